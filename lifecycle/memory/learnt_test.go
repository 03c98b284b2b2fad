package memory

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/modeldir"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestLearntIsKept(t *testing.T) {
	dir := t.TempDir()
	l := OpenLearnt(dir, quiet())
	l.ObservePeak("a", Peak{HostHard: 100, HostSoft: 50, Devices: map[string]int64{"GPU-1": 7}, Layers: 3})
	l.ObserveStart("a", 2*time.Second)
	l.ObserveService("a", time.Second)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got, ok := OpenLearnt(dir, quiet()).Get("a")
	got.Updated = time.Time{}
	want := Facts{HostHard: 100, HostSoft: 50, Devices: map[string]int64{"GPU-1": 7}, Layers: 3, Start: 2 * time.Second, Service: time.Second}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(diff, ok)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLearntWritesByItself(t *testing.T) {
	dir := t.TempDir()
	l := OpenLearnt(dir, quiet())
	l.ObserveStart("a", time.Second)
	l.mu.Lock()
	pending := l.timer != nil
	l.mu.Unlock()
	if !pending {
		t.Error("nothing is going to be written")
	}
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, learntFile)); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestLearntFollows(t *testing.T) {
	l := OpenLearnt(t.TempDir(), quiet())
	peak := func(n int64, layers int) int64 {
		l.ObservePeak("a", Peak{HostHard: n, Devices: map[string]int64{"d": n}, Layers: layers})
		f, _ := l.Get("a")
		return f.HostHard
	}
	for _, c := range []struct {
		n      int64
		layers int
		want   int64
	}{{800, 1, 800}, {900, 1, 900}, {100, 1, 800}, {800, 1, 800}, {100, 2, 100}} {
		if got := peak(c.n, c.layers); got != c.want {
			t.Errorf("after %d: %d, want %d", c.n, got, c.want)
		}
	}
	f, _ := l.Get("a")
	f.Devices["d"] = -1 // the caller's own
	if f, _ := l.Get("a"); f.Devices["d"] != 100 {
		t.Error("the caller changed what is kept")
	}
	l.ObserveStart("b", 10*time.Second)
	l.ObserveStart("b", 5*time.Second)
	if f, _ := l.Get("b"); f.Start != 9*time.Second {
		t.Errorf("start %s, want 9s", f.Start)
	}
}

func TestForeignFilesAreReplaced(t *testing.T) {
	for name, text := range map[string]string{
		"damaged":    `{"version":1,"facts":{"a":`,
		"not JSON":   "what is this",
		"later":      `{"version":9,"facts":{"a":{"host_hard":1}}}`,
		"empty":      "",
		"other form": `{"version":1,"facts":[1]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, learntFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var logged bytes.Buffer
			l := OpenLearnt(dir, slog.New(slog.NewTextHandler(&logged, nil)))
			if _, ok := l.Get("a"); ok || !strings.Contains(logged.String(), "WARN") {
				t.Errorf("read all the same, or no word: %q", &logged)
			}
			l.ObserveStart("b", time.Second)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, ok := OpenLearnt(dir, quiet()).Get("b"); !ok {
				t.Error("not replaced")
			}
		})
	}
}

func TestNonsenseIsDropped(t *testing.T) {
	dir := t.TempDir()
	text := `{"version":1,"facts":{"a":{"host_hard":-5},"b":{"devices":{"x":99999999999999999}},"c":{"host_hard":5}}}`
	if err := os.WriteFile(filepath.Join(dir, learntFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := OpenLearnt(dir, quiet())
	for key, want := range map[string]bool{"a": false, "b": false, "c": true} {
		if _, ok := l.Get(key); ok != want {
			t.Errorf("%s: %v", key, ok)
		}
	}
}

func TestLearntIsBounded(t *testing.T) {
	l := OpenLearnt(t.TempDir(), quiet())
	for i := range maxFacts + 10 {
		l.facts[fmt.Sprint(i)] = Facts{HostHard: 1, Updated: time.Unix(int64(i), 0)}
	}
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	_, oldest := l.Get("9")
	_, kept := l.Get("10")
	if len(l.facts) != maxFacts || oldest || !kept {
		t.Errorf("%d are kept, the oldest %v, the next %v", len(l.facts), oldest, kept)
	}
}

func TestLearntWithoutADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := OpenLearnt(filepath.Join(file, "state"), quiet())
	l.ObserveStart("a", time.Second)
	if err := l.Close(); err == nil {
		t.Error("written into a file")
	}
	if _, ok := l.Get("a"); !ok {
		t.Error("forgotten as well")
	}
}

func TestLearntTogether(t *testing.T) {
	l := OpenLearnt(t.TempDir(), quiet())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				l.ObservePeak(fmt.Sprint(j%5), Peak{HostHard: int64(i)})
				l.Get(fmt.Sprint(j % 5))
				if j%20 == 0 {
					_ = l.Save()
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestCombine(t *testing.T) {
	n := layers(4)
	n.Output.Context, n.Compute, n.Process, n.DeviceCompute = gib, gib, gib, gib
	host := func(n Need) int64 { hard, _ := n.Host(0); return hard }
	if got := Combine(n, Facts{}); !cmp.Equal(got, n) {
		t.Errorf("nothing learnt changed it: %+v", got)
	}
	if got := Combine(n, Facts{HostHard: 2 * gib}); host(got) != 2*gib || got.Source != Measured || got.Weights() != n.Weights() {
		t.Errorf("less: %d from %s", host(got), got.Source)
	}
	if got := Combine(n, Facts{HostHard: 9 * gib}); host(got) != 9*gib {
		t.Errorf("more: %d", host(got))
	}
	if got := Combine(n, Facts{HostHard: 1}); host(got) != gib {
		t.Errorf("below the context: %d, want the context", host(got))
	}
	// All five layers on two devices: 5 GiB of weights, 1 of context, and 4 of what is learnt.
	if got := Combine(n, Facts{HostHard: gib, Layers: 5, Devices: map[string]int64{"a": 6 * gib, "b": 4 * gib}}); got.DeviceCompute != 2*gib {
		t.Errorf("on each device %d, want 2 GiB", got.DeviceCompute)
	}
	got := Combine(Need{Source: Unknown}, Facts{HostHard: 3, HostSoft: 4, Devices: map[string]int64{"b": 2, "a": 1}})
	hard, soft := got.Host(0)
	if hard != 3 || soft != 4 || !cmp.Equal(got.Fixed, []Share{{"a", 1}, {"b", 2}}) {
		t.Errorf("an engine we cannot look into: %+v", got)
	}
}

func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := func() *modeldir.Model {
		return &modeldir.Model{Name: "a", ModelPath: path, Engine: modeldir.EngineLlamaServer}
	}
	seen := map[string]string{Key(base()): "as it is"}
	for name, change := range map[string]func(*modeldir.Model){
		"context": func(m *modeldir.Model) { m.CtxSize = 1 }, "batch": func(m *modeldir.Model) { m.BatchSize = 1 },
		"slots": func(m *modeldir.Model) { m.Concurrency = 1 }, "args": func(m *modeldir.Model) { m.Args = []string{"x"} },
		"layers": func(m *modeldir.Model) { m.NGPULayers = ptr(0) }, "devices": func(m *modeldir.Model) { m.Devices = []string{"x"} },
		"engine": func(m *modeldir.Model) { m.Engine = modeldir.EngineCommand }, "env": func(m *modeldir.Model) { m.Env = map[string]string{"a": "b"} },
		"split": func(m *modeldir.Model) { m.TensorSplit = []float64{1} }, "file": func(m *modeldir.Model) { m.ModelPath += "x" },
	} {
		m := base()
		change(m)
		if other, ok := seen[Key(m)]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[Key(m)] = name
	}
	named := base()
	named.Name, named.Aliases, named.Priority = "b", []string{"c"}, 9
	if Key(named) != Key(base()) {
		t.Error("the name is in the key")
	}
	if err := os.WriteFile(path, []byte("22"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, ok := seen[Key(base())]; ok {
		t.Errorf("a file that was replaced has the key of %s", other)
	}
}
