package modeldir

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watches follows directories that come, go and are replaced.
type watches struct {
	fs      *fsnotify.Watcher
	targets []string               // the directories of interest
	on      map[string]fs.FileInfo // those watched, as they were then
	failed  map[string]bool        // those that could not be watched, which was said already
}

func newWatches(targets []string) (*watches, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &watches{fs: w, targets: targets, on: make(map[string]fs.FileInfo), failed: make(map[string]bool)}, nil
}

func (w *watches) close() { _ = w.fs.Close() }

// follow watches each target or, as long as it does not exist, the nearest
// directory above it. Errors are those that are new.
func (w *watches) follow() error {
	var errs []error
	// A watch ends with its directory, whose inode a new one may have by now.
	alive := w.fs.WatchList()
	maps.DeleteFunc(w.on, func(dir string, _ fs.FileInfo) bool { return !slices.Contains(alive, dir) })
	// What was missing may have come just before the watch that would have told.
	for range 3 {
		want := w.wanted()
		if maps.EqualFunc(want, w.on, os.SameFile) {
			break
		}
		for dir, was := range w.on {
			if now, ok := want[dir]; !ok || !os.SameFile(now, was) {
				_ = w.fs.Remove(dir) // it fails if the directory is gone, and the watch with it
				delete(w.on, dir)
			}
		}
		for dir, info := range want {
			if w.on[dir] != nil {
				continue
			}
			err := w.fs.Add(dir)
			if err != nil && !w.failed[dir] {
				errs = append(errs, err)
			}
			w.failed[dir] = err != nil
			if err == nil {
				w.on[dir] = info
			}
		}
	}
	return errors.Join(errs...)
}

// wanted are the directories to watch now.
func (w *watches) wanted() map[string]fs.FileInfo {
	want := make(map[string]fs.FileInfo)
	for _, dir := range w.targets {
		if link, err := os.Lstat(dir); err == nil && link.Mode()&fs.ModeSymlink != 0 {
			above := filepath.Dir(dir) // it tells when the link comes to lead elsewhere
			if info, err := os.Stat(above); err == nil {
				want[above] = info
			}
		}
		for {
			info, err := os.Stat(dir)
			if err == nil && info.IsDir() {
				want[dir] = info
				break
			}
			above := filepath.Dir(dir)
			if above == dir {
				break
			}
			dir = above
		}
	}
	return want
}

// leadsTo reports whether path is a target or on the way to one.
func (w *watches) leadsTo(path string) bool {
	return slices.ContainsFunc(w.targets, func(t string) bool {
		return t == path || strings.HasPrefix(t, strings.TrimSuffix(path, string(filepath.Separator))+string(filepath.Separator))
	})
}
