package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assistant/internal/realtest"
)

// wasmModel is the file of a model for the guest in the real WasmEdge, with our plug-in.
func wasmModel(t *testing.T, name, file, more string) string {
	t.Helper()
	return fmt.Sprintf("name = %q\nengine = \"wasmedge\"\nwasm = \"guest\"\nmodel_path = %q\nctx_size = 2048\nthreads = 1\n"+
		"env = { WASMEDGE_DIR = %q, WASMEDGE_PLUGIN_PATH = %q }\n%s\n",
		name, filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), file),
		filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASMEDGE")), filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASI_NN")), more)
}

const (
	smollm2File = "smollm2-135m-instruct.gguf"
	minilmFile  = "all-minilm-l6-v2.gguf"
	tinyFile    = "tiny.gguf"
)

// TestGuestInWasmEdgeByOpenAIPython: the whole way, from the official client over HTTPS to our guest in the real WasmEdge with
// the real model, and back.
func TestGuestInWasmEdgeByOpenAIPython(t *testing.T) {
	embedding := fmt.Sprintf("embedding_model_path = %q\n", filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), minilmFile))
	s := startServer(t, map[string]string{
		"smollm2.toml": wasmModel(t, "smollm2", smollm2File, "concurrency = 2\n"+embedding),
		"one.toml":     wasmModel(t, "one", smollm2File, ""),
		"tiny.toml":    wasmModel(t, "tiny", tinyFile, ""),
		"minilm.toml":  wasmModel(t, "minilm", minilmFile, `kind = "embedding"`),
		"caller.toml":  wasmModel(t, "caller", smollm2File, `prompt_template = "chatml-tool"`),
	})
	var got struct {
		Checks          int
		Failed          []string
		Apart, Together float64
		AfterLeaving    float64 `json:"after_leaving"`
	}
	s.python("guest.py", &got)
	if got.Checks < 37 || len(got.Failed) > 0 {
		t.Errorf("%d checks, of which failed:\n%s", got.Checks, strings.Join(got.Failed, "\n"))
	}
	t.Logf("two answers: apart %.2f s, together %.2f s; after three that left the next had its answer in %.2f s", got.Apart, got.Together, got.AfterLeaving)
	in := s.the("smollm2")
	if in.Phases.Ready <= 0 || !strings.HasPrefix(in.Address, "unix/") {
		t.Errorf("instance %+v", in)
	}
	if log := s.log(); strings.Contains(log, "capital of France") || strings.Contains(log, "lighthouse") {
		t.Error("a prompt is in the log")
	}
}

func TestGuestInWasmEdgeKilledMidStream(t *testing.T) {
	// The model must have more to say than it can before it is killed.
	s := startServer(t, map[string]string{"tiny.toml": wasmModel(t, "tiny", smollm2File, "")})
	s.killsMidStream()
}

// TestLlamaCoreInWasmEdgeByOpenAIPython: the crate that llama-api-server is made of, in the real WasmEdge, as an engine of the
// router's: its dialect is repaired, and the official client notices nothing of it.
func TestLlamaCoreInWasmEdgeByOpenAIPython(t *testing.T) {
	wasm := fmt.Sprintf("wasm = %q\n", realtest.Need(t, "ASSISTANT_TEST_LLAMA_CORE_SERVER"))
	file := func(name, file, more string) string {
		return strings.Replace(wasmModel(t, name, file, more), "wasm = \"guest\"\n", wasm, 1)
	}
	s := startServer(t, map[string]string{
		"smollm2.toml": file("smollm2", smollm2File, fmt.Sprintf("embedding_model_path = %q\n", filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), minilmFile))),
		"tiny.toml":    file("tiny", tinyFile, `prompt_template = "chatml"`),
	})
	var got struct {
		Checks       int
		Failed       []string
		AfterLeaving float64 `json:"after_leaving"`
	}
	s.python("core.py", &got)
	if got.Checks < 17 || len(got.Failed) > 0 {
		t.Errorf("%d checks, of which failed:\n%s", got.Checks, strings.Join(got.Failed, "\n"))
	}
	t.Logf("after two clients that left the next had its answer in %.2f s", got.AfterLeaving)
	if in := s.the("smollm2"); !strings.HasPrefix(in.Address, "tcp/127.0.0.1:") {
		t.Errorf("it listens on %s, not on this machine alone", in.Address)
	}
	if log := s.log(); strings.Contains(log, "capital of France") || strings.Contains(log, "lighthouse") {
		t.Error("a prompt is in the log")
	}
}

// TestWasmEdgeThatCannotServe: what is missing or wrong is told by its name, with what to do, and the others serve on.
func TestWasmEdgeThatCannotServe(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Libraries that are no plug-ins of this WasmEdge's: one it ignores, as it does those of other versions, one it dies of.
	pluginOf := func(library string) (folder string) {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASMEDGE")), library))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", library, err)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		folder = filepath.Join(dir, strings.Trim(library, "*"))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(filepath.Base(folder), "libwasmedgePluginWasiNN.so"), b)
		return folder
	}
	plugin := func(toml, path string) string {
		before, rest, _ := strings.Cut(toml, "WASMEDGE_PLUGIN_PATH = ")
		_, after, _ := strings.Cut(rest, " }")
		return fmt.Sprintf("%sWASMEDGE_PLUGIN_PATH = %q }%s", before, path, after)
	}
	good := func(name, more string) string { return wasmModel(t, name, smollm2File, more) }
	cases := map[string]struct {
		toml string
		want []string
	}{
		"noplugin": {plugin(good("noplugin", ""), "/nonexistent"), []string{"plug-in not found", "/nonexistent", "install_v2.sh"}},
		"ignored":  {plugin(good("ignored", ""), pluginOf("libspdlog.so.*")), []string{"did not take the WASI-NN plug-in", "of another version", "unknown option: nn-preload"}},
		"deadly":   {plugin(good("deadly", ""), pluginOf("libggml-base.so.*")), []string{"did not take the WASI-NN plug-in", "of another version"}},
		"nowasm":   {strings.Replace(good("nowasm", ""), `wasm = "guest"`, `wasm = "/nonexistent/x.wasm"`, 1), []string{"/nonexistent/x.wasm", "releases/latest/download/llama-api-server.wasm"}},
		"template": {good("template", `prompt_template = "chatlm"`), []string{"chatlm", "choose one of none, chatml"}},
		"broken": {
			fmt.Sprintf("name = \"broken\"\nengine = \"wasmedge\"\nwasm = \"guest\"\nmodel_path = %q\nenv = { WASMEDGE_DIR = %q, WASMEDGE_PLUGIN_PATH = %q }\n",
				write("broken.gguf", []byte("GGUF and then nothing")), filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASMEDGE")), filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASI_NN"))),
			[]string{"broken.gguf", "downloaded to its end"},
		},
		"large": {good("large", `memory = "100TB"`), []string{"does not fit this machine"}},
	}
	models := map[string]string{"good.toml": good("good", "")}
	for name, c := range cases {
		models[name+".toml"] = c.toml
	}
	s := startServer(t, models)
	for name, c := range cases {
		status, text, err := s.ask(name, 3)
		if err != nil || status != http.StatusBadGateway || !strings.Contains(text, `"code":"engine_failed"`) {
			t.Errorf("%s: %d, %v: %s", name, status, err, text)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s", name, want, text)
			}
		}
	}
	if status, text, err := s.ask("good", 3); err != nil || status != http.StatusOK {
		t.Errorf("one that can: %d, %v: %s", status, err, text)
	}
}

// TestGuestIsCompiledForLaterStarts: when an instance has stopped, in the background; the next one runs what was compiled.
func TestGuestIsCompiledForLaterStarts(t *testing.T) {
	cache, err := os.UserCacheDir() // the user's own: it is compiled once, not for each test
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, map[string]string{"tiny.toml": wasmModel(t, "tiny", tinyFile, `idle_timeout = "100ms"`)}, "XDG_CACHE_HOME="+cache)
	argv := func() string {
		t.Helper()
		if status, text, err := s.ask("tiny", 3); err != nil || status != http.StatusOK || !strings.Contains(text, " 1 2 3") {
			t.Fatalf("%d, %v: %s", status, err, text)
		}
		for _, in := range s.instances() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", in.PID))
			return strings.ReplaceAll(string(b), "\x00", " ")
		}
		return "" // it has retired by now
	}
	// It is compiled in what other tests leave of the processors: nothing, as long as they last.
	for began := time.Now(); ; {
		got := argv()
		if strings.Contains(got, "--run-mode aot") && strings.Contains(got, "compiled-") {
			break
		}
		if time.Since(began) > 7*time.Minute {
			t.Fatalf("not compiled after %v; the last instance was %s", time.Since(began), got)
		}
		waitFor(t, "the idle instance to retire", func() bool { return len(s.instances()) == 0 })
		time.Sleep(time.Second)
	}
}
