package modeldir

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testFile is an absolute path on every system.
var testFile = func() string {
	if runtime.GOOS == "windows" {
		return `C:\models\m1.toml`
	}
	return "/models/m1.toml"
}()

func below(path string) string { return filepath.Join(filepath.Dir(testFile), path) }

func TestParseModel(t *testing.T) {
	tests := []struct {
		name, toml string
		want       Model // Name, Key, File, Kind and Engine are filled in if empty
	}{
		{"least", `model_path = "a.gguf"`, Model{ModelPath: below("a.gguf")}},
		{"byte order mark", "\xef\xbb\xbfmodel_path = \"a.gguf\"", Model{ModelPath: below("a.gguf")}},
		{"windows line ends", "model_path = \"a.gguf\"\r\nport = 1\r\n", Model{ModelPath: below("a.gguf"), Port: 1, MaxInstances: 1}},
		{"empty strings are absent", `model_path = "a"
			kind = ""
			engine = ""
			upstream = ""
			identity = ""
			ready_path = ""`, Model{ModelPath: below("a")}},
		{"empty lists are absent", `model_path = "a"
			args = []
			aliases = []
			env = {}
			command = []`, Model{ModelPath: below("a")}},
		{"command makes the engine", `command = ["server", "--port", "{{port}}"]`, Model{
			Engine: EngineCommand, Command: []string{"server", "--port", "{{port}}"},
		}},
		{"relative program", `command = ["./server", "./arg"]
			stop_command = ["bin/stop"]
			cleanup_command = ["../clean"]`, Model{
			Engine:  EngineCommand,
			Command: []string{below("server"), "./arg"}, StopCommand: []string{below("bin/stop")}, CleanupCommand: []string{below("../clean")},
		}},
		{"program of a placeholder", `command = ["{{model_path}}/run"]`, Model{Engine: EngineCommand, Command: []string{"{{model_path}}/run"}}},
		{"braces of others", `command = ["docker", "inspect", "--format", "{{.State.Pid}}", "{{ .Name }}", "{{instance}}"]`, Model{
			Engine: EngineCommand, Command: []string{"docker", "inspect", "--format", "{{.State.Pid}}", "{{ .Name }}", "{{instance}}"},
		}},
		{"no placeholders in args", `model_path = "a"
			args = ["--chat-template", "{{ messages }}"]`, Model{ModelPath: below("a"), Args: []string{"--chat-template", "{{ messages }}"}}},
		{"slashes in the name", `name = "Qwen/Qwen3-0.6B"
			model_path = "a"`, Model{Name: "Qwen/Qwen3-0.6B", ModelPath: below("a")}},
		{"a fixed port caps instances", `model_path = "a"
			port = 8000
			max_instances = 4`, Model{ModelPath: below("a"), Port: 8000, MaxInstances: 1}},
		{"times", `model_path = "a"
			idle_timeout = 0
			start_timeout = 90
			stop_timeout = "1m30s"`, Model{ModelPath: below("a"), IdleTimeout: new(time.Duration(0)), StartTimeout: 90 * time.Second, StopTimeout: 90 * time.Second}},
		{"upstream url", `command = ["a"]
			upstream = "http://localhost:80/"`, Model{Engine: EngineCommand, Command: []string{"a"}, Upstream: "localhost:80"}},
		{"upstream ipv6", `command = ["a"]
			upstream = "[::1]:80"`, Model{Engine: EngineCommand, Command: []string{"a"}, Upstream: "[::1]:80"}},
		{"upstream socket", `command = ["a"]
			upstream = "unix//run/a.sock"
			identity = "none"`, Model{Engine: EngineCommand, Command: []string{"a"}, Upstream: "unix//run/a.sock", Identity: IdentityNone}},
		{"dialect", `command = ["a"]
			dialect = "llama-api-server"`, Model{Engine: EngineCommand, Command: []string{"a"}, Dialect: DialectLlamaAPIServer}},
		{"everything else", `model_path = "a"
			kind = "embedding"
			engine = "llama-server"
			ctx_size = 1
			batch_size = 2
			aliases = ["x", "y"]
			env = { A = "{{port}}" }
			n_gpu_layers = -1
			devices = ["CUDA0", "CUDA1"]
			split_mode = "row"
			tensor_split = [3, 1.5]
			main_gpu = 1
			preload = true
			keep_context = true
			ready_path = "/health?full=1"
			min_instances = 2
			max_instances = 3
			concurrency = 4
			memory = "4GiB"
			priority = -5
			pinned = true
			cancel_by_stream = false`, Model{
			ModelPath: below("a"), Kind: Embedding, Engine: EngineLlamaServer, CtxSize: 1, BatchSize: 2, Aliases: []string{"x", "y"},
			Env: map[string]string{"A": "{{port}}"}, NGPULayers: new(-1), Devices: []string{"CUDA0", "CUDA1"}, ReadyPath: "/health?full=1",
			SplitMode: "row", TensorSplit: []float64{3, 1.5}, MainGPU: new(1), Preload: true, KeepContext: true,
			MinInstances: 2, MaxInstances: 3, Concurrency: 4, Memory: 4 << 30, Priority: -5, Pinned: true, CancelByStream: new(false),
		}},
	}
	tests = append(tests, []struct {
		name, toml string
		want       Model
	}{
		{"for WasmEdge, by what only it has", `
			model_path = "a"
			embedding_model_path = "b"
			threads = 2
			wasm = "c.wasm"
			prompt_template = "chatml"`, Model{
			ModelPath: below("a"), EmbeddingModelPath: below("b"), Threads: 2, Wasm: below("c.wasm"), PromptTemplate: "chatml", Engine: EngineWasmEdge,
		}},
		{"our own guest", "model_path = 'a'\nwasm = 'guest'", Model{ModelPath: below("a"), Wasm: WasmGuest, Engine: EngineWasmEdge}},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want.Name == "" {
				want.Name = "m1"
			}
			if want.Kind == "" {
				want.Kind = Chat
			}
			if want.Engine == "" {
				want.Engine = EngineAuto
			}
			want.Key, want.File = want.Name, testFile
			got, err := ParseModel(testFile, []byte(tt.toml))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestMemorySizes(t *testing.T) {
	tests := map[string]int64{
		`"0"`: 0, `1024`: 1024, `"1024"`: 1024, `"1 kB"`: 1000, `"600MB"`: 600e6, `"1.5GB"`: 1.5e9, `"2TB"`: 2e12,
		`"1KiB"`: 1 << 10, `"1mib"`: 1 << 20, `"1.5 GiB"`: 3 << 29, `"1TiB"`: 1 << 40, `"7B"`: 7,
	}
	for text, want := range tests {
		m, err := ParseModel(testFile, []byte("model_path = \"a\"\nmemory = "+text))
		if err != nil {
			t.Errorf("memory = %s: %v", text, err)
		} else if m.Memory != want {
			t.Errorf("memory = %s: got %d, want %d", text, m.Memory, want)
		}
	}
}

// TestParseModelErrors checks that each mistake is told with its place, its field, and what to do.
func TestParseModelErrors(t *testing.T) {
	const ok = "model_path = 'a'\n"
	long := strings.Repeat("x", 257)
	tests := []struct {
		name, toml   string
		line, column int
		field        string
		reason       string // part of it
	}{
		{"empty file", " \n", 0, 0, "", "empty"},
		{"too large", strings.Repeat("#", maxFileSize+1), 0, 0, "", "larger than"},
		{"syntax", ok + "port = \n", 2, 8, "", ""},
		{"unclosed string", "model_path = \"a\n", 1, 16, "", ""},
		{"not utf-8", ok + "name = \"\xff\"", 2, 9, "", ""},
		{"key twice", ok + "model_path = 'b'", 2, 1, "model_path", "already"},
		{"unknown key", ok + "  ctxsize = 1", 2, 3, "ctxsize", "did you mean ctx_size?"},
		{"unknown key like none", ok + "zzzzzz = 1", 2, 1, "zzzzzz", "the keys are aliases, answer_timeout, args,"},
		{"unknown table", ok + "[foo]\na = 1", 2, 2, "foo", "unknown key"},
		{"unknown quoted key", ok + "\"a.b\" = 1", 2, 1, "a.b", "unknown key"},
		{"other case", "MODEL_PATH = 'a'", 1, 1, "MODEL_PATH", "did you mean model_path?"},
		{"string for integer", ok + "port = '80'", 2, 8, "port", "must be an integer, not a string"},
		{"float for integer", ok + "port = 1.5", 2, 8, "port", "must be an integer, not a float"},
		{"integer for string", "model_path = 1", 1, 14, "model_path", "must be a string, not an integer"},
		{"string for list", ok + "args = '-v'", 2, 8, "args", "must be an array of strings, not a string"},
		{"integer in list", ok + "args = [1]", 2, 9, "args", "must be an array of strings, not an integer"},
		{"string for boolean", ok + "pinned = 'yes'", 2, 10, "pinned", "must be true or false, not a string"},
		{"integer in env", ok + "[env]\nA = 1", 3, 5, "env.A", "must be a string, not an integer"},
		{"huge integer", ok + "port = 99_999_999_999_999_999_999", 2, 8, "port", "too large"},
		{"kind", ok + "kind = 'picture'", 2, 1, "kind", `"picture" is none of "chat", "embedding", "rerank", "speech", "transcription", "image", "moderation"`},
		{"engine", ok + "engine = 'vllm'", 2, 1, "engine", `none of "auto", "llama-server", "wasmedge", "command"`},
		{"dialect", "command = ['a']\ndialect = 'x'", 2, 1, "dialect", `none of "", "llama-api-server"`},
		{"dialect of a native engine", "model_path = 'a'\ndialect = 'llama-api-server'", 2, 1, "dialect", "only for engine"},
		{"identity", "command = ['a']\nidentity = 'x'", 2, 1, "identity", `none of "", "none"`},
		{"port too high", ok + "port = 65536", 2, 1, "port", "65536 is not in 0 to 65535"},
		{"port negative", ok + "port = -1", 2, 1, "port", "-1 is not in 0 to 65535"},
		{"ctx_size", ok + "ctx_size = -1", 2, 1, "ctx_size", "not in 0 to"},
		{"batch_size", ok + "batch_size = 3000000000", 2, 1, "batch_size", "not in 0 to 2147483647"},
		{"split_mode", ok + "split_mode = 'column'", 2, 1, "split_mode", `none of "", "none", "layer", "row"`},
		{"main_gpu", ok + "main_gpu = 16", 2, 1, "main_gpu", "not in 0 to 15"},
		{"tensor_split of nothing", ok + "tensor_split = [0.0, 0]", 2, 1, "tensor_split", "gives no device a share"},
		{"tensor_split negative", ok + "tensor_split = [1, -1]", 2, 1, "tensor_split", "-1 is no share"},
		{"tensor_split of others", ok + "devices = ['a']\ntensor_split = [1, 1]", 3, 1, "tensor_split", "2 shares for 1 devices"},
		{"string for numbers", ok + "tensor_split = 'a'", 2, 16, "tensor_split", "must be an array of numbers, not a string"},
		{"keep_context in WasmEdge", ok + "engine = 'wasmedge'\nkeep_context = true", 3, 1, "keep_context", `only for engine = "llama-server", but engine is "wasmedge"`},
		{"a wasm for llama-server", ok + "engine = 'llama-server'\nwasm = 'x.wasm'", 3, 1, "wasm", `only for engine = "wasmedge", but engine is "llama-server"`},
		{"a template for a command", "command = ['a']\nprompt_template = 'chatml'", 2, 1, "prompt_template", `only for engine = "wasmedge"`},
		{"a second model for embeddings", ok + "kind = 'embedding'\nembedding_model_path = 'b'", 3, 1, "embedding_model_path", "set model_path instead"},
		{"too many threads", ok + "threads = 1000", 2, 1, "threads", "not in 0 to 512"},
		{"keep_context of a command", "command = ['a']\nkeep_context = true", 2, 1, "keep_context", `only for engine = "llama-server"`},
		{"n_gpu_layers", ok + "n_gpu_layers = -2", 2, 1, "n_gpu_layers", "not in -1 to"},
		{"concurrency", ok + "concurrency = -2", 2, 1, "concurrency", "not in 0 to"},
		{"min_instances", ok + "min_instances = -2", 2, 1, "min_instances", "not in 0 to"},
		{"max_instances", ok + "max_instances = -2", 2, 1, "max_instances", "not in 0 to"},
		{"min over max", ok + "max_instances = 4\nmin_instances = 5", 3, 1, "min_instances", "5 is more than 4, which is max_instances"},
		{"min over default", ok + "min_instances = 2", 2, 1, "min_instances", "2 is more than 1, which is the default of max_instances"},
		{"min over port", ok + "port = 1\nmax_instances = 3\nmin_instances = 2", 4, 1, "min_instances", "fixed port"},
		{"no model_path", "port = 0", 1, 1, "model_path", `required by engine = "auto"`},
		{"no model_path for llama-server", "engine = 'llama-server'", 1, 1, "model_path", `required by engine = "llama-server"`},
		{"a path and a source", ok + "model_source = 'hf:a/b'", 2, 1, "model_source", "remove one of them"},
		{"a source with a line's end in it", "model_source = \"hf:a/b\\n\"", 1, 1, "model_source", "control characters"},
		{"no command", ok + "engine = 'command'", 1, 1, "command", "required by engine"},
		{"empty program", "command = ['', 'a']", 1, 1, "command", "empty"},
		{"command without its engine", ok + "engine = 'wasmedge'\ncommand = ['a']", 3, 1, "command", "only for engine"},
		{"upstream without command", ok + "upstream = 'a:1'", 2, 1, "upstream", "only for engine"},
		{"stop_command without command", ok + "stop_command = ['a']", 2, 1, "stop_command", "only for engine"},
		{"placeholder", "command = ['a', '{{prot}}']", 1, 1, "command", "unknown placeholder {{prot}}; there are {{port}} {{model_path}}"},
		{"placeholder with spaces", "command = ['a', '{{ port }}']", 1, 1, "command", "unknown placeholder {{ port }}"},
		{"placeholder in stop_command", "command = ['a']\nstop_command = ['{{host}}']", 2, 1, "stop_command", "{{host}}"},
		{"placeholder in env", ok + "env = { A = '', B = '{{x}}' }", 2, 17, "env.B", "{{x}}"},
		{"env name", ok + "[env]\n'A=B' = ''", 3, 1, "env.A=B", "environment variable"},
		{"zero byte", ok + `args = ["a\u0000"]`, 2, 1, "args", "zero byte"},
		{"ready_path", ok + "ready_path = 'health'", 2, 1, "ready_path", `must begin with "/"`},
		{"ready_path with space", ok + "ready_path = '/a b'", 2, 1, "ready_path", "spaces"},
		{"duration without unit", ok + "idle_timeout = '30'", 2, 1, "idle_timeout", `"30" is no duration: write a string such as "90s"`},
		{"duration negative", ok + "start_timeout = '-1s'", 2, 1, "start_timeout", "negative"},
		{"duration of seconds negative", ok + "stop_timeout = -1", 2, 1, "stop_timeout", "not in 0 to"},
		{"duration beyond all bounds", ok + "stop_timeout = 9223372036854775807", 2, 1, "stop_timeout", "not in 0 to"},
		{"duration of another type", ok + "stop_timeout = true", 2, 1, "stop_timeout", "no duration"},
		{"memory unit", ok + "memory = '4G'", 2, 1, "memory", `"4G" is no size: write a string such as "4GiB"`},
		{"memory negative", ok + "memory = '-4GiB'", 2, 1, "memory", "no size"},
		{"memory negative integer", ok + "memory = -4", 2, 1, "memory", "negative"},
		{"memory infinite", ok + "memory = 'inf'", 2, 1, "memory", "no size"},
		{"memory beyond all bounds", ok + "memory = '9999999TiB'", 2, 1, "memory", "no size"},
		{"memory of another type", ok + "memory = 1.5", 2, 1, "memory", "no size"},
		{"name empty", ok + "name = ''", 2, 1, "name", "empty"},
		{"name of spaces", ok + "name = ' a'", 2, 1, "name", "space"},
		{"name with control character", ok + `name = "a\tb"`, 2, 1, "name", "control"},
		{"name too long", ok + "name = '" + long + "'", 2, 1, "name", "257 bytes long, more than 256"},
		{"alias is the name", ok + "name = 'a'\naliases = ['a']", 3, 1, "aliases", "own name"},
		{"alias twice", ok + "aliases = ['a', 'a']", 2, 1, "aliases", "twice"},
		{"alias empty", ok + "aliases = ['']", 2, 1, "aliases", "empty"},
		{"upstream https", "command = ['a']\nupstream = 'https://h:1'", 2, 1, "upstream", "TLS"},
		{"upstream with path", "command = ['a']\nupstream = 'http://h:1/v1'", 2, 1, "upstream", "more than a host and a port"},
		{"upstream without port", "command = ['a']\nupstream = 'http://h'", 2, 1, "upstream", "no host and port"},
		{"upstream port 0", "command = ['a']\nupstream = 'h:0'", 2, 1, "upstream", "no host and port"},
		{"upstream without host", "command = ['a']\nupstream = ':80'", 2, 1, "upstream", "no host and port"},
		{"upstream relative socket", "command = ['a']\nupstream = 'unix/a'", 2, 1, "upstream", "absolute"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ParseModel(testFile, []byte(tt.toml))
			if m != nil {
				t.Errorf("a model came with the error")
			}
			e := (*FieldError)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a FieldError", err)
			}
			got, want := *e, FieldError{File: testFile, Line: tt.line, Column: tt.column, Field: tt.field, Reason: e.Reason}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%v: -want +got:\n%s", e, d)
			}
			if !strings.Contains(e.Reason, tt.reason) || e.Reason == "" {
				t.Errorf("reason %q does not tell %q", e.Reason, tt.reason)
			}
			if strings.Contains(e.Error(), "\n") {
				t.Errorf("error of several lines: %q", e.Error())
			}
		})
	}
}

func TestFieldErrorText(t *testing.T) {
	for want, e := range map[string]FieldError{
		"/a.toml:3:7: port: is odd": {"/a.toml", 3, 7, "port", "is odd"},
		"/a.toml:3:7: is odd":       {"/a.toml", 3, 7, "", "is odd"},
		"/a.toml: is odd":           {"/a.toml", 0, 0, "", "is odd"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestNameOfFileThatIsNone: the stem has to be as good a name as a given one.
func TestNameOfFileThatIsNone(t *testing.T) {
	for _, stem := range []string{" a", "a\xff", "a\nb"} {
		if _, err := ParseModel(below(stem+".toml"), []byte("model_path = 'a'")); err == nil {
			t.Errorf("the file name %q was taken for a model's name", stem)
		}
	}
}

// FuzzParseModel checks that no input does harm and that what is taken keeps its promises.
func FuzzParseModel(f *testing.F) {
	f.Add(string(DefaultModelTOML()))
	f.Add(uncommented())
	f.Add("command = ['./a', '{{port}}']\nupstream = 'unix//a'\nenv.A = 'b'\n")
	f.Add("port = 99_999_999_999_999_999_999\nidle_timeout = [[{ a = { b = 1 } }]]")
	f.Add("\xef\xbb\xbfname = '''\na'''\r\n[env]\n\"\" = ''\n[[x.y]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseModel(testFile, []byte(text))
		if err != nil {
			e := (*FieldError)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			if lines := 1 + strings.Count(text, "\n"); e.Line > lines || e.Line > 0 && e.Column < 1 {
				t.Fatalf("%v: no such place in %d lines", e, lines)
			}
			return
		}
		checkModel(t, m)
	})
}

// checkModel checks what every model in a catalog promises.
func checkModel(t *testing.T, m *Model) {
	t.Helper()
	if m.Name == "" || m.Key == "" || m.Kind == "" || m.Engine == "" {
		t.Errorf("name, key, kind or engine is empty: %+v", m)
	}
	if m.ModelPath != "" && !filepath.IsAbs(m.ModelPath) {
		t.Errorf("relative model path %q", m.ModelPath)
	}
	if m.Engine == EngineCommand != (len(m.Command) > 0) || m.Engine != EngineCommand && m.ModelPath == "" {
		t.Errorf("engine %q with command %q and path %q", m.Engine, m.Command, m.ModelPath)
	}
	if m.Port < 0 || m.Port > maxPort || m.Memory < 0 || m.StartTimeout < 0 || m.MinInstances > max(m.MaxInstances, 1) {
		t.Errorf("out of range: %+v", m)
	}
	if m.Port > 0 && m.MaxInstances != 1 {
		t.Errorf("%d instances on port %d", m.MaxInstances, m.Port)
	}
}
