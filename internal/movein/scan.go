package movein

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"assistant/internal/gguf"
)

// Found is a model that lies here.
type Found struct {
	Entry
	Size         int64 // bytes, of all its parts
	Parameters   int64
	Quantization string
}

// Skipped is a file, or a directory, that is no model of ours, and why.
type Skipped struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Stores are the directories where programs keep models by default, as far as they are here: the Hugging Face cache, LM Studio's and Ollama's.
func Stores(getenv func(string) string, home string) (dirs []string) {
	hub := cmp.Or(getenv("HF_HUB_CACHE"), join(getenv("HF_HOME"), "hub"), join(getenv("XDG_CACHE_HOME"), "huggingface/hub"), join(home, ".cache/huggingface/hub"))
	studio := join(home, ".lmstudio")
	if b, err := os.ReadFile(join(home, ".lmstudio-home-pointer")); home != "" && err == nil {
		studio = strings.TrimSpace(string(b))
	}
	for _, dir := range []string{
		hub, join(studio, "models"), join(home, ".cache/lm-studio/models"),
		cmp.Or(getenv("OLLAMA_MODELS"), join(home, ".ollama/models")), "/usr/share/ollama/.ollama/models",
	} {
		if info, err := os.Stat(dir); dir != "" && err == nil && info.IsDir() && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func join(dir, rest string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, rest)
}

// Scan finds the models in directories, of which each is looked through to its bottom. Symbolic links to files are followed, those to directories are
// not. A model that several names lead to is found once, a split one by its first part. Nothing is moved or changed. Names are taken from the files'
// and differ from each other and from those that are taken.
func Scan(dirs []string, taken func(name string) bool) ([]Found, []Skipped) {
	s := scan{seen: map[string]bool{}, projectors: map[string][]candidate{}, taken: taken, names: map[string]bool{}}
	for _, dir := range dirs {
		s.look(dir)
	}
	for _, c := range s.models {
		s.take(c)
	}
	slices.SortStableFunc(s.skipped, func(a, b Skipped) int { return strings.Compare(a.Path, b.Path) })
	return s.found, s.skipped
}

type scan struct {
	seen       map[string]bool // real paths
	models     []candidate
	projectors map[string][]candidate // by directory
	taken      func(name string) bool
	names      map[string]bool
	found      []Found
	skipped    []Skipped
}

// candidate is a GGUF file.
type candidate struct {
	path   string // absolute
	header *gguf.Header
	size   int64

	name      string // "" = as the file is called
	projector string // that is known to be its; "" = look beside it
	system    string
	defaults  map[string]any
	licence   string
}

func (s *scan) skip(path, why string, args ...any) {
	s.skipped = append(s.skipped, Skipped{path, fmt.Sprintf(why, args...)})
}

// look collects what is in a directory.
func (s *scan) look(dir string) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		s.skip(dir, "%v", err)
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			s.skip(path, "%v", err)
			return fs.SkipDir
		}
		if d.IsDir() {
			if isOllama(path) {
				s.lookOllama(path)
				return fs.SkipDir
			}
			return nil
		}
		s.lookFile(path)
		return nil
	})
}

// further matches what is not the first part of a split model.
var further = regexp.MustCompile(`-0*([0-9]+)-of-[0-9]+\.gguf$`)

// lookFile collects a file, if it is a GGUF file.
func (s *scan) lookFile(path string) {
	name := strings.ToLower(filepath.Base(path))
	if !strings.HasSuffix(name, ".gguf") {
		if strings.HasSuffix(name, ".gguf.part") || strings.HasSuffix(name, ".gguf.incomplete") || strings.HasSuffix(name, ".incomplete") {
			s.skip(path, "its download has not ended")
		}
		return
	}
	if part := further.FindStringSubmatch(name); part != nil && part[1] != "1" {
		return
	}
	s.collect(candidate{path: path})
}

// collect reads what a file says of itself.
func (s *scan) collect(c candidate) {
	target, err := filepath.EvalSymlinks(c.path)
	if err != nil {
		s.skip(c.path, "%v", errors.Unwrap(err))
		return
	}
	if s.seen[target] {
		return
	}
	s.seen[target] = true
	info, err := os.Stat(target)
	if err != nil || !info.Mode().IsRegular() {
		s.skip(c.path, "it is no plain file")
		return
	}
	h, err := gguf.Read(c.path)
	switch {
	case err != nil:
		s.skip(c.path, "%v", err)
		return
	case h.Arch == "clip":
		c.header = h
		s.projectors[filepath.Dir(c.path)] = append(s.projectors[filepath.Dir(c.path)], c)
		return
	case h.Arch == "" || len(h.Tensors) == 0 && h.Parameters == 0 && h.Arch == "imatrix":
		s.skip(c.path, "it holds no model")
		return
	case slices.ContainsFunc(h.Tensors, func(t gguf.Tensor) bool { return strings.HasSuffix(t.Name, ".lora_a") }):
		s.skip(c.path, "it is an adapter (LoRA): name it in the args of the model it is for (--lora)")
		return
	}
	c.header, c.size = h, info.Size()
	for i := 2; i <= h.Count; i++ {
		part, _ := gguf.PartPath(c.path, i, h.Count) // it was read already
		if more, err := os.Stat(part); err == nil {
			c.size += more.Size()
		}
	}
	s.models = append(s.models, c)
}

// take makes an entry of a model.
func (s *scan) take(c candidate) {
	projector := c.projector
	if projector == "" {
		projector = s.projectorOf(c)
	}
	e := describe(c.header, c.path, projector)
	e.Name, e.SystemPrompt, e.Defaults = s.name(c), c.system, c.defaults
	e.Comments = append(e.Comments, "Memory: "+gib(c.size)+" for its weights, and what its context takes; the server reckons it from the file at each start.")
	if c.licence != "" {
		e.Comments = append(e.Comments, "Licence: "+c.licence)
	}
	s.found = append(s.found, Found{Entry: e, Size: c.size, Parameters: c.header.Parameters, Quantization: c.header.Quantization()})
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// projectorOf is the projector that lies beside a model: the only one; of several, that of the highest name, by which F16 goes before BF16 and F32;
// where several models lie in a directory, one that has the model's name in its own.
func (s *scan) projectorOf(c candidate) string {
	dir := filepath.Dir(c.path)
	beside := s.projectors[dir]
	bases := map[string]bool{}
	for _, m := range s.models {
		if filepath.Dir(m.path) == dir {
			bases[baseName(m.path)] = true
		}
	}
	if len(bases) > 1 {
		own := baseName(c.path)
		beside = slices.DeleteFunc(slices.Clone(beside), func(p candidate) bool {
			return !strings.Contains(strings.ToLower(filepath.Base(p.path)), own)
		})
	}
	best := ""
	for _, p := range beside {
		if best == "" || rank(p.path) < rank(best) {
			best = p.path
		}
	}
	return best
}

// rank orders projectors: half precision is enough, and not every device has BF16.
func rank(path string) int {
	name := strings.ToLower(filepath.Base(path))
	for i, kind := range []string{"f16", "bf16", "f32"} {
		if strings.Contains(name, kind) && (kind != "f16" || !strings.Contains(name, "bf16")) {
			return i
		}
	}
	return 3
}

var (
	split    = regexp.MustCompile(`(?i)-[0-9]{5}-of-[0-9]{5}$`)
	quantEnd = regexp.MustCompile(`(?i)[-._](ud-)?(i?q[0-9]+[a-z0-9_]*|bf16|f16|f32|fp16|mxfp4[a-z_]*)$`)
	unsafe   = regexp.MustCompile(`[^a-z0-9._:/-]+`)
)

// baseName is a file's name without what tells its parts and quantisation.
func baseName(path string) string {
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	return quantEnd.ReplaceAllString(split.ReplaceAllString(name, ""), "")
}

// name is what a model is called: as it is known, else as its file is, with a number where that is taken.
func (s *scan) name(c candidate) string {
	name := c.name
	if name == "" {
		name = split.ReplaceAllString(strings.TrimSuffix(filepath.Base(c.path), filepath.Ext(c.path)), "")
	}
	name = strings.Trim(unsafe.ReplaceAllString(strings.ToLower(name), "-"), "-./:")
	name = cmp.Or(name, "model")
	free := name
	for i := 2; s.names[free] || s.taken != nil && s.taken(free); i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	s.names[free] = true
	return free
}
