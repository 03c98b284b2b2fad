package modeldir

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func modelNames(c *Catalog) []string {
	var names []string
	for _, m := range c.Models() {
		names = append(names, m.Key)
	}
	return names
}

func TestLoadDir(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.toml", "model_path = 'b'")
	write(t, dir, "a.toml", "name = 'z'\nmodel_path = 'a'\naliases = ['y']")
	write(t, dir, "broken.toml", "model_path = ")
	write(t, dir, "wrong.toml", "name = 'named'\nport = -1")
	write(t, dir, "unnamed.toml", "name = ''")
	for _, other := range []string{"c.tml", "d.toml~", ".#e.toml", ".f.toml", "toml", "g.toml.swp", "h.TOML"} {
		write(t, dir, other, "not even TOML")
	}
	mkdir(t, filepath.Join(dir, "sub"))
	write(t, filepath.Join(dir, "sub"), "sub.toml", "model_path = 's'")
	mkdir(t, filepath.Join(dir, "dir.toml"))

	c, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"b", "z"}, modelNames(c)); d != "" {
		t.Errorf("models: -want +got:\n%s", d)
	}
	if m, ok := c.Resolve("y", Chat); !ok || m.Name != "z" {
		t.Errorf("the alias leads to %v, %v", m, ok)
	}
	var faults []string
	for _, f := range c.Faults() {
		faults = append(faults, filepath.Base(f.File)+" "+f.Name)
	}
	if d := cmp.Diff([]string{"broken.toml broken", "dir.toml dir", "unnamed.toml unnamed", "wrong.toml named"}, faults); d != "" {
		t.Errorf("faults: -want +got:\n%s", d)
	}
}

func TestLoadDirRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	mkdir(t, "models")
	write(t, "models", "a.toml", "model_path = 'm'")
	c, err := LoadDir("models")
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := c.Resolve("a", Chat); m == nil || !filepath.IsAbs(m.ModelPath) || !filepath.IsAbs(m.File) {
		t.Errorf("model %+v, want absolute paths", m)
	}
}

func TestLoadDirThatIsNone(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "missing"), write(t, dir, "file", "")} {
		if c, err := LoadDir(path); err == nil || c != nil {
			t.Errorf("%s: got %v, %v", path, c, err)
		}
	}
}

// TestNames scans a directory again and again and checks who has which name.
func TestNames(t *testing.T) {
	type state struct {
		files  map[string]string // by stem, "name alias…"; one not listed is removed
		want   string            // "name=stem …" in force
		faults string            // "stem: name" of each
	}
	tests := []struct {
		name   string
		states []state
	}{
		{"first in order at the start", []state{
			{map[string]string{"b": "x", "a": "x"}, "x=a", "b: b"},
		}},
		{"the one in force stays", []state{
			{map[string]string{"b": "x"}, "x=b", ""},
			{map[string]string{"b": "x", "a": "x"}, "x=b", "a: a"},
			{map[string]string{"a": "x"}, "x=a", ""},
		}},
		{"an alias clashes like a name", []state{
			{map[string]string{"a": "x y"}, "x=a", ""},
			{map[string]string{"a": "x y", "b": "y"}, "x=a", "b: b"},
			{map[string]string{"a": "x", "b": "y"}, "x=a y=b", ""},
		}},
		{"a clash keeps the last good version", []state{
			{map[string]string{"a": "x", "b": "y"}, "x=a y=b", ""},
			{map[string]string{"a": "x", "b": "x"}, "x=a y=b", "b: y"},
			{map[string]string{"a": "z", "b": "x"}, "x=b z=a", ""},
		}},
		{"names are swapped", []state{
			{map[string]string{"a": "x", "b": "y"}, "x=a y=b", ""},
			{map[string]string{"a": "y", "b": "x"}, "x=b y=a", ""},
		}},
		{"a chain of clashes falls back whole", []state{
			{map[string]string{"a": "x", "b": "y", "c": "z"}, "x=a y=b z=c", ""},
			{map[string]string{"a": "y", "b": "z", "c": "z"}, "x=a y=b z=c", "a: x b: y"},
		}},
		{"who lost one name claims no other", []state{
			{map[string]string{"a": "x"}, "x=a", ""},
			{map[string]string{"a": "x", "b": "y x", "c": "y"}, "x=a y=c", "b: b"},
		}},
		{"a file is renamed", []state{
			{map[string]string{"b": "x"}, "x=b", ""},
			{map[string]string{"a": "x"}, "x=a", ""},
		}},
		{"broken keeps its name", []state{
			{map[string]string{"b": "x"}, "x=b", ""},
			{map[string]string{"b": "", "a": "x"}, "x=b", "a: a b: b"},
		}},
	}
	for _, tt := range tests {
		for _, patient := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/patient=%v", tt.name, patient), func(t *testing.T) {
				dir := t.TempDir()
				s := newScanner(dir, nil, nil)
				for i, st := range tt.states {
					for _, old := range must(filepath.Glob(filepath.Join(dir, "*"))) {
						remove(t, old)
					}
					for stem, names := range st.files {
						write(t, dir, stem+".toml", modelText(names))
					}
					if err := s.scan(scanOptions{all: true, patient: patient}); err != nil {
						t.Fatal(err)
					}
					if err := s.scan(scanOptions{patient: patient}); err != nil { // what is away stays away
						t.Fatal(err)
					}
					checkNames(t, i, s.catalog(), st.want, st.faults)
				}
			})
		}
	}
}

// TestRenamedFileIsInForceAtOnce: no patience is due to a file whose name another one has by now.
func TestRenamedFileIsInForceAtOnce(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, names[0]+".toml"), filepath.Join(dir, names[1]+".toml")
		write(t, dir, names[0]+".toml", modelText("x"))
		s := newScanner(dir, nil, nil)
		if err := s.scan(scanOptions{patient: true}); err != nil {
			t.Fatal(err)
		}
		rename(t, from, to)
		if err := s.scan(scanOptions{patient: true}); err != nil {
			t.Fatal(err)
		}
		checkNames(t, 1, s.catalog(), "x="+names[1], "")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// modelText is a model file with that name and those aliases; broken without.
func modelText(names string) string {
	all := strings.Fields(names)
	if len(all) == 0 {
		return "broken"
	}
	return fmt.Sprintf("model_path = 'm'\nname = %q\naliases = [%s]", all[0], strings.Join(quotedAll(all[1:]), ","))
}

func quotedAll(words []string) []string {
	var q []string
	for _, w := range words {
		q = append(q, "'"+w+"'")
	}
	return q
}

func checkNames(t *testing.T, state int, c *Catalog, want, wantFaults string) {
	t.Helper()
	var got, faults []string
	for _, m := range c.Models() {
		got = append(got, m.Name+"="+stem(m.File))
	}
	for _, f := range c.Faults() {
		faults = append(faults, stem(f.File)+": "+f.Name)
		if !strings.Contains(f.Err.Error(), f.File) {
			t.Errorf("state %d: fault %q does not name the file %s", state, f.Err, f.File)
		}
		if taken := " is taken by model "; strings.Contains(f.Err.Error(), taken) && strings.Count(f.Err.Error(), ".toml") != 2 {
			t.Errorf("state %d: fault %q does not name both files", state, f.Err)
		}
	}
	if got := strings.Join(got, " "); got != want {
		t.Errorf("state %d: in force %q, want %q", state, got, want)
	}
	if faults := strings.Join(faults, " "); faults != wantFaults {
		t.Errorf("state %d: faults %q, want %q", state, faults, wantFaults)
	}
}

// TestUnchangedModelsAreTheSame: whoever compares catalogs may compare pointers.
func TestUnchangedModelsAreTheSame(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'")
	write(t, dir, "b.toml", "model_path = 'b'")
	s := newScanner(dir, nil, nil)
	check := func(o scanOptions) *Catalog {
		t.Helper()
		if err := s.scan(o); err != nil {
			t.Fatal(err)
		}
		return s.catalog()
	}
	before := check(scanOptions{})
	if !check(scanOptions{all: true}).same(before) {
		t.Error("reading the same files again made another catalog")
	}
	replace(t, dir, "a.toml", "# a comment\nmodel_path = 'a'")
	if !check(scanOptions{}).same(before) {
		t.Error("a comment made another catalog")
	}
	replace(t, dir, "a.toml", "model_path = 'A'")
	after := check(scanOptions{})
	if after.Models()[0] == before.Models()[0] || after.Models()[0].ModelPath == before.Models()[0].ModelPath {
		t.Error("the changed model is the same")
	}
	if after.Models()[1] != before.Models()[1] {
		t.Error("the unchanged model is another")
	}
}

// TestSameStampIsReadAgain: a change within the file system's clock tick, of
// the same length, must not go unseen.
func TestSameStampIsReadAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    func(path string) scanOptions
	}{
		{"touched", func(path string) scanOptions { return scanOptions{touched: map[string]bool{path: true}} }},
		{"unsettled", func(string) scanOptions { return scanOptions{unsettled: true} }},
		{"all", func(string) scanOptions { return scanOptions{all: true} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := write(t, dir, "a.toml", "model_path = 'a'")
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			s := newScanner(dir, nil, nil)
			if err := s.scan(scanOptions{}); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "a.toml", "model_path = 'b'")
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
			if err := s.scan(tt.o(path)); err != nil {
				t.Fatal(err)
			}
			if got := s.catalog().Models()[0].ModelPath; filepath.Base(got) != "b" {
				t.Errorf("model_path is %s, want b", got)
			}
		})
	}
}

// TestPatience: a file that is away for one scan is not taken for removed.
func TestPatience(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "a.toml", "model_path = 'a'")
	s := newScanner(dir, nil, nil)
	scan := func(patient bool) (models int, doubtful bool) {
		t.Helper()
		if err := s.scan(scanOptions{patient: patient}); err != nil {
			t.Fatal(err)
		}
		return len(s.catalog().Models()), s.doubtful()
	}
	check := func(what string, patient bool, wantModels int, wantDoubtful bool) {
		t.Helper()
		if models, doubtful := scan(patient); models != wantModels || doubtful != wantDoubtful {
			t.Errorf("%s: %d models, doubtful %v; want %d, %v", what, models, doubtful, wantModels, wantDoubtful)
		}
	}
	check("there", true, 1, false)
	remove(t, path)
	check("away for a moment", true, 1, true)
	write(t, dir, "a.toml", "model_path = 'a'")
	check("back", true, 1, false)
	remove(t, path)
	check("away again", true, 1, true)
	check("gone", true, 0, false)
	write(t, dir, "a.toml", "model_path = 'a'")
	check("new", true, 1, false)
	remove(t, path)
	check("gone, for who has no patience", false, 0, false)
}

// TestConfigEntries scans the files at config_path, in the very directory of model files.
func TestConfigEntries(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml.d")
	cfg, _, err := ParseConfig(file, []byte("[[llama_servers]]\nname = 'a'\nchat_model_path = 'c'\nembedding_model_path = 'e'\nconfig_path = 'a.toml'"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.toml", "ctx_size = 1")
	write(t, dir, "b.toml", "name = 'a#embedding'\nmodel_path = 'b'")
	write(t, dir, "c.toml", "model_path = 'c'")
	s := newScanner(dir, cfg, nil)
	scan := func() *Catalog {
		t.Helper()
		if err := s.scan(scanOptions{all: true}); err != nil {
			t.Fatal(err)
		}
		return s.catalog()
	}
	c := scan()
	if d := cmp.Diff([]string{"a", "a#embedding", "c"}, modelNames(c)); d != "" {
		t.Errorf("models: -want +got:\n%s", d)
	}
	checkFault(t, c.Faults(), `"a#embedding" is taken by model "a"`)
	for kind, want := range map[Kind]string{Chat: "a", Embedding: "a#embedding", Rerank: "a"} {
		if m, ok := c.Resolve("a", kind); !ok || m.Key != want {
			t.Errorf("kind %s leads to %v, want %s", kind, m, want)
		}
	}
	remove(t, filepath.Join(dir, "b.toml"))
	for _, text := range []string{"ctx_size = -1", "", " \n"} {
		write(t, dir, "a.toml", text)
		c := scan()
		if m, _ := c.Resolve("a", Chat); m == nil || m.CtxSize != 1 {
			t.Errorf("config_path of %q: model %+v, want the last good one", text, m)
		}
		checkFault(t, c.Faults(), "a.toml")
	}
	remove(t, filepath.Join(dir, "a.toml"))
	if m, _ := scan().Resolve("a", Chat); m == nil || m.CtxSize != 1 {
		t.Errorf("without config_path: model %+v, want the last good one", m)
	}
	write(t, dir, "a.toml", "ctx_size = 2")
	c = scan()
	if m, _ := c.Resolve("a", Embedding); m == nil || m.CtxSize != 2 || m.File != file {
		t.Errorf("model %+v, want the new one", m)
	}
	checkFault(t, c.Faults(), "")
}

// TestSeed: a watcher that takes another's place has no version of its own to fall back to.
func TestSeed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'")
	write(t, dir, "b.toml", "model_path = 'b'")
	write(t, dir, "c.toml", "model_path = 'c'")
	first, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a.toml", "broken")
	remove(t, filepath.Join(dir, "b.toml"))
	s := newScanner(dir, nil, first)
	if err := s.scan(scanOptions{}); err != nil {
		t.Fatal(err)
	}
	c := s.catalog()
	if d := cmp.Diff([]string{"a", "c"}, modelNames(c)); d != "" {
		t.Errorf("models: -want +got:\n%s", d)
	}
	if c.Models()[0] != first.Models()[0] || c.Models()[1] != first.Models()[2] {
		t.Error("the models are not those of the earlier catalog")
	}
	checkFault(t, c.Faults(), "a.toml")
}

func TestResolveAllocatesNothing(t *testing.T) {
	c := NewCatalog([]*Model{{Name: "a", Key: "a", Kind: Chat, Aliases: []string{"b"}}})
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := c.Resolve("b", Chat); !ok {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// manyModels writes n model files of an ordinary sort.
func manyModels(tb testing.TB, n int) string {
	dir := tb.TempDir()
	for i := range n {
		write(tb, dir, fmt.Sprintf("model-%05d.toml", i), fmt.Sprintf(`# A model like any other.
name       = "org/model-%05d"
model_path = "/var/lib/assistant/models/model-%05d-instruct-q4_k_m.gguf"
port       = 0
ctx_size   = 4096
batch_size = 512
aliases    = ["model-%05d:latest"]
args       = ["--flash-attn", "on"]
idle_timeout = "30s"
`, i, i, i))
	}
	return dir
}

// TestManyModels keeps the memory of a catalog, watched, in its bound. Time is for BenchmarkLoad10k.
func TestManyModels(t *testing.T) {
	const n, most = 2000, 3000 // bytes a model
	dir := manyModels(t, n)
	before := heap()
	s := newScanner(dir, nil, nil)
	if err := s.scan(scanOptions{}); err != nil {
		t.Fatal(err)
	}
	c := s.catalog()
	each := (heap() - before) / n
	if len(c.Models()) != n || len(c.Faults()) != 0 {
		t.Fatalf("%d models, faults %v", len(c.Models()), c.Faults())
	}
	if each > most {
		t.Errorf("%d bytes a model, want at most %d", each, most)
	}
	t.Logf("%d bytes a model", each)
	runtime.KeepAlive(s)
	runtime.KeepAlive(c)
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the first one moves pools aside, the second one empties them
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkLoad10k(b *testing.B) {
	const n = 10_000
	dir := manyModels(b, n)
	before := heap()
	var c *Catalog
	for b.Loop() {
		var err error
		if c, err = LoadDir(dir); err != nil || len(c.Models()) != n {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-before)/n, "B/model")
	runtime.KeepAlive(c)
}

// BenchmarkRescan10k is what one event costs.
func BenchmarkRescan10k(b *testing.B) {
	s := newScanner(manyModels(b, 10_000), nil, nil)
	if err := s.scan(scanOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.scan(scanOptions{patient: true}); err != nil {
			b.Fatal(err)
		}
		s.catalog()
	}
}

func BenchmarkCatalogResolve(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		var models []*Model
		for i := range n {
			name := fmt.Sprintf("model-%05d", i)
			models = append(models, &Model{Name: name, Key: name, Kind: Chat})
		}
		c := NewCatalog(slices.Clone(models))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := c.Resolve(models[i].Name, Chat); !ok {
					b.Fatal("not found")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}
