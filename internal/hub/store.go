package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"assistant/internal/hub/source"
	"assistant/internal/wholefile"
)

// What a store has in its directory.
const (
	blobsDir  = "blobs"  // sha256-HEX: contents, which models share
	modelsDir = "models" // ID/NAME: the files of a model by their names, links to contents; ID.json: what they are
	partsDir  = "parts"  // what is being brought
	jobsDir   = "jobs"   // ID.json: downloads that are not done
)

// Model is a model that is here in whole.
type Model struct {
	Source       string    `json:"source"`   // as it was asked for, in full
	Resolved     string    `json:"resolved"` // with the quantisation and tag that were chosen
	Name         string    `json:"name"`
	Quantization string    `json:"quantization,omitempty"`
	Licence      string    `json:"licence,omitempty"`
	Revision     string    `json:"revision,omitempty"`
	Files        []Stored  `json:"files"`
	Installed    time.Time `json:"installed"`
}

// Stored is a file of a model.
type Stored struct {
	Name   string      `json:"name"`
	Role   source.Role `json:"role"`
	SHA256 string      `json:"sha256,omitempty"` // "" = it lies outside the store
	Size   int64       `json:"size"`             // bytes
	Path   string      `json:"path"`             // absolute
}

// Path is the file that an engine is given: of split weights the first; "" = there is none.
func (m Model) Path() string { return m.file(source.Weights) }

// Projector is the file of its projector; "" = it has none.
func (m Model) Projector() string { return m.file(source.Projector) }

func (m Model) file(role source.Role) string {
	for _, f := range m.Files {
		if f.Role == role {
			return f.Path
		}
	}
	return ""
}

// Size is that of all its files, in bytes.
func (m Model) Size() (sum int64) {
	for _, f := range m.Files {
		sum += f.Size
	}
	return sum
}

// store keeps contents by their hash, and the models that are made of them.
type store struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	models map[string]Model // by source
}

// openStore reads what a store has.
func openStore(dir string, log *slog.Logger) *store {
	s := &store{dir: dir, log: log, models: map[string]Model{}}
	eachJSON(s, modelsDir, func(m Model) { s.models[m.Source] = m })
	return s
}

// eachJSON reads the notes in a directory of the store. What is damaged is passed over: it is as if the model, or the download, were not there.
func eachJSON[T any](s *store, dir string, use func(T)) {
	files, _ := filepath.Glob(filepath.Join(s.dir, dir, "*.json")) // the pattern is a good one
	for _, file := range files {
		var v T
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			s.log.Warn("a note in the store of models cannot be read", "file", file, "error", err)
			continue
		}
		use(v)
	}
}

// model returns a model whose files are all there.
func (s *store) model(src string) (Model, bool) {
	s.mu.Lock()
	m, ok := s.models[src]
	if !ok { // a source that left something open is found by what was chosen too
		for _, other := range s.models {
			if other.Resolved == src {
				m, ok = other, true
			}
		}
	}
	s.mu.Unlock()
	if !ok {
		return Model{}, false
	}
	for _, f := range m.Files {
		if info, err := os.Stat(f.Path); err != nil || info.Size() != f.Size {
			return Model{}, false
		}
	}
	return m, true
}

// all returns every model, whether its files are there or not.
func (s *store) all() []Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Model, 0, len(s.models))
	for _, m := range s.models {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Model) int { return strings.Compare(a.Source, b.Source) })
	return list
}

func (s *store) blobPath(hash string) string { return filepath.Join(s.dir, blobsDir, "sha256-"+hash) }

// blob finds a content that is in the store. A size below 0 is not known.
func (s *store) blob(hash string, size int64) (string, bool) {
	if hash == "" {
		return "", false
	}
	path := s.blobPath(hash)
	info, err := os.Stat(path)
	return path, err == nil && (size < 0 || info.Size() == size)
}

// adopt takes a file that is whole into the store.
func (s *store) adopt(path, hash string) (string, error) {
	blob := s.blobPath(hash)
	if err := os.MkdirAll(filepath.Dir(blob), 0o700); err != nil {
		return "", err
	}
	return blob, os.Rename(path, blob)
}

// install makes a model of files that are there.
func (s *store) install(src string, plan *source.Plan, files []FileStatus) (Model, error) {
	m := Model{
		Source: src, Resolved: plan.Source, Name: plan.Name, Quantization: plan.Quantization,
		Licence: plan.Licence, Revision: plan.Revision, Installed: time.Now().UTC(),
	}
	dir := filepath.Join(s.dir, modelsDir, id(src))
	for i, f := range plan.Files {
		stored := Stored{Name: f.Name, Role: f.Role, SHA256: files[i].SHA256, Path: f.Path}
		if f.Path == "" {
			stored.Path = filepath.Join(dir, f.Name)
			if err := link(files[i].Path, stored.Path); err != nil {
				return m, err
			}
		}
		info, err := os.Stat(stored.Path)
		if err != nil {
			return m, err
		}
		stored.Size = info.Size()
		m.Files = append(m.Files, stored)
	}
	if m.Path() == "" {
		return m, fmt.Errorf("%s has no weights in it: name a source with a GGUF file", plan.Source)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, err
	}
	if err := wholefile.Replace(dir+".json", b); err != nil {
		return m, err
	}
	s.mu.Lock()
	s.models[src] = m
	s.mu.Unlock()
	return m, nil
}

// link gives a content a name, in place of what had it: engines find the further parts of split models by the first one's name. It is a hard
// link, as a symbolic one would lead out of the directory that engines in WebAssembly may read.
func link(content, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	next := name + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(content, next); err != nil {
		return fmt.Errorf("name a file of the store (its file system must have hard links): %w", err)
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	_ = os.Remove(next) // where both were links to the same, rename has left it
	return nil
}

// job is the note of a download that is not done.
type job struct {
	Source string   `json:"source"`
	As     []string `json:"as,omitempty"`
	State  State    `json:"state"` // Downloading = to be gone on with
	Error  string   `json:"error,omitempty"`
}

func (s *store) jobFile(src string) string { return filepath.Join(s.dir, jobsDir, id(src)+".json") }

func (s *store) setJob(j job) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return wholefile.Replace(s.jobFile(j.Source), b)
}

func (s *store) removeJob(src string) error {
	if err := os.Remove(s.jobFile(src)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *store) jobs() (list []job) {
	eachJSON(s, jobsDir, func(j job) { list = append(list, j) })
	return list
}
