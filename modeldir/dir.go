package modeldir

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// LoadDir reads every model file of one directory: names that end in .toml and
// do not begin with a dot; subdirectories are not entered, symbolic links are followed. A
// broken file is a fault of the catalog; the error is only about dir itself.
func LoadDir(dir string) (*Catalog, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := newScanner(dir, nil, nil)
	if err := s.scan(scanOptions{}); err != nil {
		return nil, err
	}
	return s.catalog(), nil
}

// isModelFile tells model files from editors' lock files, backups and all else.
func isModelFile(name string) bool {
	return filepath.Ext(name) == ".toml" && name[0] != '.'
}

// scanner reads a directory and the files that config.toml names, again and
// again, and keeps what it knows of each.
type scanner struct {
	dir     string // absolute; "" = none
	config  *Config
	named   map[string]bool // files that belong to an entry of config: no models of their own
	sources map[sourceID]*source
	// seed is the catalog before the first scan: the good versions of what may be broken by now.
	seed *Catalog
}

// sourceID says where models come from: a file of the directory, or an entry of config.toml.
type sourceID struct {
	file  string // "" for an entry
	entry int
}

// source is what is known of one place that models come from.
type source struct {
	id   sourceID
	path string // the file to read; "" for an entry without config_path

	stamp   fs.FileInfo // of the file as it was read; nil if it could not be
	settled bool        // the stamp will differ if the file is written again
	missing bool        // gone at the last scan; it counts at the next

	read    []*Model // the newest version; nil if that is broken
	fault   *Fault   // why read is nil, or incomplete
	inForce []*Model // the version in the catalog
	clash   *Fault   // why inForce is not read, though read is good
}

func newScanner(dir string, config *Config, seed *Catalog) *scanner {
	s := &scanner{dir: dir, config: config, named: make(map[string]bool), sources: make(map[sourceID]*source), seed: seed}
	if config != nil {
		for i, entry := range config.LlamaServers {
			if entry.ConfigPath != "" {
				s.named[entry.ConfigPath] = true
			}
			id := sourceID{entry: i}
			src := &source{id: id, path: entry.ConfigPath}
			if entry.Name != "" {
				src.inForce = s.seeds(config.File, entry.Name)
			}
			s.sources[id] = src
		}
	}
	return s
}

// seeds returns the models of an earlier catalog that came from file; only those called name, unless that is "".
func (s *scanner) seeds(file, name string) []*Model {
	if s.seed == nil {
		return nil
	}
	var models []*Model
	for _, m := range s.seed.Models() {
		if m.File == file && (name == "" || m.Name == name) {
			models = append(models, m)
		}
	}
	return models
}

type scanOptions struct {
	// all files are read, changed or not.
	all bool
	// touched files are read even if their stamp is the same: something was
	// seen to happen to them. Nil is none.
	touched map[string]bool
	// unsettled files are read even if their stamp is the same.
	unsettled bool
	// patient scans take a file's absence for true only when they see it a
	// second time: editors remove a file for a moment to write it anew.
	patient bool
}

// scan brings the sources up to date and settles which version of each is in
// force. An error is about the directory, whose sources then stay as they are
// unless it does not exist.
func (s *scanner) scan(o scanOptions) error {
	listed, err := s.list()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.noteAbsent(listed, o)
	}
	sources := slices.SortedFunc(maps.Values(s.sources), func(a, b *source) int { return a.id.compare(b.id) })
	inParallel(sources, func(src *source) {
		if !src.missing && src.stale(o) {
			s.load(src)
		}
	})
	resolve(sources)
	s.seed = nil
	return err
}

func (a sourceID) compare(b sourceID) int {
	// Entries of config.toml have no file and so come first, in their own order.
	if c := strings.Compare(a.file, b.file); c != 0 {
		return c
	}
	return a.entry - b.entry
}

// list returns the model files of the directory, and adds a source for each new one.
func (s *scanner) list() (map[string]bool, error) {
	if s.dir == "" {
		return nil, nil
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		path := filepath.Join(s.dir, name)
		if !isModelFile(name) || s.named[path] {
			continue
		}
		listed[path] = true
		id := sourceID{file: path}
		if src := s.sources[id]; src != nil {
			src.missing = false
		} else {
			s.sources[id] = &source{id: id, path: path, inForce: s.seeds(path, "")}
		}
	}
	return listed, nil
}

// noteAbsent forgets the files that are gone for good.
func (s *scanner) noteAbsent(listed map[string]bool, o scanOptions) {
	for id, src := range s.sources {
		switch {
		case id.file == "" || listed[id.file]:
		case o.patient && !src.missing:
			src.missing = true
		default:
			delete(s.sources, id)
		}
	}
}

// doubtful reports whether a file is gone that another scan has to look for.
func (s *scanner) doubtful() bool {
	for _, src := range s.sources {
		if src.missing {
			return true
		}
	}
	return false
}

// stale reports whether the source has to be read.
func (src *source) stale(o scanOptions) bool {
	if src.path == "" {
		return src.read == nil && src.fault == nil
	}
	if o.all || src.stamp == nil || o.touched[src.path] || o.unsettled && !src.settled {
		return true
	}
	now, err := os.Stat(src.path)
	return err != nil || now.Size() != src.stamp.Size() || !now.ModTime().Equal(src.stamp.ModTime()) || !os.SameFile(now, src.stamp)
}

// settlingTime is how old a file must be to be known by its time of change.
// File systems count that in steps of up to two seconds (FAT).
const settlingTime = 2 * time.Second

// load reads the source's file. It touches nothing but the source.
func (s *scanner) load(src *source) {
	src.stamp, src.settled = nil, false
	var data []byte
	var err error
	if src.path != "" {
		var stamp fs.FileInfo
		if data, stamp, err = readFile(src.path); err == nil {
			src.stamp, src.settled = stamp, time.Since(stamp.ModTime()) > settlingTime
		}
	}
	models, name, err := s.parse(src, data, err)
	src.fault = nil
	if err != nil {
		src.fault = &Fault{File: src.path, Name: name, Err: err}
		if src.path == "" {
			src.fault.File = s.config.File
		}
		if len(src.inForce) == 0 && src.id.file == "" {
			models = s.config.bare(src.id.entry)
		}
	}
	src.replace(models)
}

// replace takes the newest version, keeping the models it has if they are the same.
func (src *source) replace(models []*Model) {
	for _, have := range [][]*Model{src.read, src.inForce} {
		if len(have) > 0 && reflect.DeepEqual(have, models) {
			src.read = have
			return
		}
	}
	src.read = models
}

func (s *scanner) parse(src *source, data []byte, failed error) (models []*Model, name string, err error) {
	if src.id.file == "" {
		return s.config.expand(src.id.entry, data, failed)
	}
	if failed != nil {
		return nil, stem(src.path), failed
	}
	raw, doc, err := readModel(src.path, data)
	name = raw.label(src.path)
	if err != nil {
		return nil, name, err
	}
	m, err := raw.model(doc)
	if err != nil {
		return nil, name, err
	}
	return []*Model{m}, name, nil
}

// readFile reads a configuration file, but nothing else: a named pipe would
// block, a huge file would fill the memory. The info is from before reading, so that a
// change during it shows.
func readFile(path string) ([]byte, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &FieldError{File: path, Reason: "is not a regular file"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data := bytes.NewBuffer(make([]byte, 0, min(info.Size(), maxFileSize)+bytes.MinRead))
	_, err = data.ReadFrom(io.LimitReader(f, maxFileSize+1)) // one more, so that parsing sees what is too large
	return data.Bytes(), info, err
}

// inParallel calls f for each source, on all processors.
func inParallel(sources []*source, f func(*source)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(sources)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(sources); i = next.Add(1) - 1 {
				f(sources[i])
			}
		})
	}
	wg.Wait()
}

// catalog makes a catalog of the versions in force.
func (s *scanner) catalog() *Catalog {
	models := make([]*Model, 0, len(s.sources))
	var faults []Fault
	for _, src := range s.sources {
		models = append(models, src.inForce...)
		for _, f := range []*Fault{src.fault, src.clash} {
			if f != nil {
				faults = append(faults, *f)
			}
		}
	}
	return NewCatalog(models, faults...)
}
