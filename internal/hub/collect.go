package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// collectGrace is how long a model stays that no model file names: who brought it may be about to write one.
const collectGrace = 10 * time.Minute

// Used tells what must stay.
type Used struct {
	Sources []string // of models
	Paths   []string // files that models name, which may lie in the store
	Dropped []string // sources of models that were just removed: they need not stay ten minutes
}

// Collected is what Collect removed.
type Collected struct {
	Models []string `json:"models"` // their sources
	Bytes  int64    `json:"bytes"`  // of contents that nobody shares any more
}

// Collect removes models that are not used, then contents that no model has. What is used, was brought in the last ten minutes, or came for a download
// that is to go on, stays.
func (m *Manager) Collect(used Used, now time.Time) (Collected, error) {
	got, err := m.collect(used, now)
	if len(got.Models) > 0 {
		m.OnRemoved()
	}
	return got, err
}

func (m *Manager) collect(used Used, now time.Time) (Collected, error) {
	keep, dropped := canonicals(used.Sources), canonicals(used.Dropped)
	m.mu.Lock()
	defer m.mu.Unlock() // nothing is begun meanwhile
	paths := slices.Clone(used.Paths)
	for _, d := range m.downloads {
		s := d.now()
		if !s.Over() {
			return Collected{}, ErrBusy
		}
		if s.State == Paused || s.State == Failed {
			keep[d.src] = true
			for _, f := range s.Files {
				paths = append(paths, f.Path)
			}
		}
	}
	got := Collected{Models: []string{}}
	for _, model := range m.store.all() {
		young := now.Sub(model.Installed) < collectGrace && !dropped[model.Source] && !dropped[model.Resolved]
		if young || keep[model.Source] || keep[model.Resolved] || m.store.within(model.Source, used.Paths) {
			continue
		}
		if err := m.store.remove(model.Source); err != nil {
			return got, err
		}
		delete(m.downloads, id(model.Source))
		got.Models = append(got.Models, model.Source)
	}
	freed, err := m.store.sweep(paths)
	got.Bytes = freed
	return got, err
}

func canonicals(sources []string) map[string]bool {
	set := make(map[string]bool, len(sources))
	for _, src := range sources {
		if src, err := canonical(src); err == nil {
			set[src] = true
		}
	}
	return set
}

// within reports whether one of the paths is a file of the model.
func (s *store) within(src string, paths []string) bool {
	dir := filepath.Join(s.dir, modelsDir, id(src)) + string(filepath.Separator)
	for _, path := range paths {
		if strings.HasPrefix(filepath.Clean(path), dir) {
			return true
		}
	}
	return false
}

// remove removes a model. Its contents stay for sweep.
func (s *store) remove(src string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.models, src)
	dir := filepath.Join(s.dir, modelsDir, id(src))
	return errors.Join(os.Remove(dir+".json"), os.RemoveAll(dir))
}

// sweep removes contents that no model has. It returns how many bytes that freed.
func (s *store) sweep(paths []string) (freed int64, err error) {
	has := map[string]bool{}
	for _, m := range s.all() {
		for _, f := range m.Files {
			if f.SHA256 != "" {
				has[s.blobPath(f.SHA256)] = true
			}
		}
	}
	for _, path := range paths {
		has[filepath.Clean(path)] = true
	}
	dir := filepath.Join(s.dir, blobsDir)
	blobs, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	for _, blob := range blobs {
		path := filepath.Join(dir, blob.Name())
		info, statErr := blob.Info()
		if has[path] || statErr != nil {
			continue
		}
		if bad := os.Remove(path); bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		freed += info.Size()
	}
	return freed, err
}
