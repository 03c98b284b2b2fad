package engine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"assistant/internal/gguf"
	"assistant/internal/gguf/gguftest"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

const someTemplate = "{% for m in messages %}<|im_start|>{{ m.role }}…{% endfor %}"

// installed is a machine with WasmEdge, in a folder of the test's own.
type installed struct {
	t   *testing.T
	dir string
}

// install makes the parts of that name, and no other can be found.
func install(t *testing.T, parts ...string) installed {
	t.Helper()
	s := installed{t, t.TempDir()}
	t.Setenv("PATH", s.dir+"/nowhere")
	t.Setenv("HOME", s.dir+"/home")
	t.Setenv("XDG_CACHE_HOME", s.dir+"/cache")
	for _, name := range []string{envWasmEdgeDir, envPluginPath, envServerWasm, "LLAMA_SERVER"} {
		t.Setenv(name, "")
	}
	wasmEdgeSeen.Store(nil)
	t.Cleanup(func() { wasmEdgeSeen.Store(nil) })
	for _, part := range parts {
		s.put(part, "#!/bin/sh\n")
	}
	return s
}

func (s installed) put(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // programs
		s.t.Fatal(err)
	}
	return path
}

// model writes a model's file with that template.
func (s installed) model(name, arch, template string, trained int) string {
	s.t.Helper()
	f := new(gguftest.File).Add("general.architecture", arch).Add(arch+".context_length", trained).
		Add("tokenizer.ggml.tokens", []string{"<s>", "</s>"}).Add("tokenizer.ggml.bos_token_id", 0).Add("tokenizer.ggml.eos_token_id", 1)
	if template != "" {
		f.Add("tokenizer.chat_template", template)
	}
	return f.Write(s.t, filepath.Join(s.dir, name))
}

const (
	programPart = "home/.wasmedge/bin/wasmedge"
	pluginPart  = "home/.wasmedge/plugin/libwasmedgePluginWasiNN.so"
	serverPart  = "home/.wasmedge/llama-api-server.wasm"
)

func (s installed) plan(m modeldir.Model) (Plan, error) {
	s.t.Helper()
	if m.Engine == "" {
		m.Engine = modeldir.EngineWasmEdge
	}
	if m.Kind == "" {
		m.Kind = modeldir.Chat
	}
	m.Name, m.File = "m", filepath.Join(s.dir, "m.toml")
	return For(&m).Prepare(&m, Place{Port: 9001, Socket: "/run/m.sock"})
}

func TestGuestPlan(t *testing.T) {
	s := install(t, programPart, pluginPart)
	chat, embed := s.model("a:b.gguf", "llama", someTemplate, 2048), s.model("e.gguf", "bert", "", 512)
	plan, err := s.plan(modeldir.Model{ModelPath: chat, EmbeddingModelPath: embed, Concurrency: 3, BatchSize: 64, Env: map[string]string{"A": "{{name}}"}})
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := guestFile()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(s.dir, programPart), "--nn-preload", "default:GGML:AUTO:" + chat, "--nn-preload", "embedding:GGML:AUTO:" + embed, wasm}
	if !slices.Equal(plan.Argv, want) {
		t.Errorf("argv\n%q, want\n%q", plan.Argv, want)
	}
	if want := []string{envPluginPath + "=" + filepath.Join(s.dir, filepath.Dir(pluginPart)), "A=m"}; !slices.Equal(plan.Env, want) {
		t.Errorf("env %q, want %q", plan.Env, want)
	}
	if plan.Slots != 3 || plan.Compile == nil || plan.Compile.Wasm() != wasm {
		t.Errorf("%d slots, compiles %+v", plan.Slots, plan.Compile)
	}
	var got struct {
		Chat, Embedding map[string]any
		Threads         int
	}
	if err := json.Unmarshal(plan.Guest, &got); err != nil {
		t.Fatal(err)
	}
	if c := got.Chat; c["graph"] != "default" || c["context"] != 2048.0 || c["batch"] != 64.0 || c["parallel"] != 3.0 || c["template"] != someTemplate || c["bos"] != "<s>" || c["eos"] != "</s>" {
		t.Errorf("chat %v", c)
	}
	if e := got.Embedding; e["graph"] != "embedding" || e["context"] != 512.0 {
		t.Errorf("embedding %v", e)
	}
	if got.Threads != machine.CPUs() {
		t.Errorf("%d threads", got.Threads)
	}

	plan, err = s.plan(modeldir.Model{ModelPath: embed, Kind: modeldir.Embedding, Threads: 1})
	if err != nil || !strings.Contains(string(plan.Guest), `"embedding":{"graph":"default"`) || strings.Contains(string(plan.Guest), `"chat"`) || !strings.Contains(string(plan.Guest), `"threads":1`) {
		t.Errorf("for embeddings alone: %s, %v", plan.Guest, err)
	}
}

func TestServerPlan(t *testing.T) {
	s := install(t, programPart, pluginPart, serverPart)
	chat, embed := s.model("m.gguf", "llama", someTemplate, 8192), s.model("e.gguf", "bert", "", 512)
	m := modeldir.Model{ModelPath: chat, EmbeddingModelPath: embed, CtxSize: 1000, Concurrency: 4, Threads: 1, Args: []string{"--temp", "0"}}
	plan, err := s.plan(m)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("--dir .:" + s.dir + ":readonly --env LLAMA_LOG=warn --nn-preload default:GGML:AUTO:" + chat +
		" --nn-preload embedding:GGML:AUTO:" + embed + " " + filepath.Join(s.dir, serverPart) +
		" --model-name default,embedding --model-alias default,embedding --prompt-template chatml,embedding --ctx-size 1000,512" +
		" --batch-size 512,512 --ubatch-size 512,512 --threads 1 --socket-addr 127.0.0.1:9001 --temp 0")
	if !slices.Equal(plan.Argv[1:], want) {
		t.Errorf("argv\n%q, want\n%q", plan.Argv[1:], want)
	}
	if plan.Slots != 1 || plan.Guest != nil {
		t.Errorf("%d slots, guest %s: it is to be asked by HTTP, one request at a time", plan.Slots, plan.Guest)
	}
	m.Engine, m.Wasm = modeldir.EngineWasmEdge, modeldir.WasmGuest
	if m.Args = nil; For(&m).Repairs != 0 {
		t.Error("the guest is asked for, and what is installed is repaired")
	}
	if m.Wasm = ""; For(&m).Dialect(&modeldir.Model{}).Context != wasmContext {
		t.Errorf("context %d where none is set", For(&m).Dialect(&modeldir.Model{}).Context)
	}
}

func TestWasmEdgeIsMissing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parts []string
		env   map[string]string
		model modeldir.Model
		want  []string // in the error
	}{
		{"all of it", nil, nil, modeldir.Model{}, []string{"wasmedge", "install_v2.sh", "source ~/.wasmedge/env"}},
		{"where the environment says", []string{programPart}, map[string]string{envWasmEdgeDir: "/nowhere"}, modeldir.Model{}, []string{"/nowhere/wasmedge", envWasmEdgeDir}},
		{"the plug-in", []string{programPart}, nil, modeldir.Model{}, []string{"libwasmedgePluginWasiNN.so", "install_v2.sh", "build-wasi-nn.sh"}},
		{"the plug-in, where the environment says", []string{programPart, pluginPart}, map[string]string{envPluginPath: "/nowhere"}, modeldir.Model{}, []string{"/nowhere", envPluginPath}},
		{"the plug-in, where the model says", []string{programPart, pluginPart}, nil, modeldir.Model{Env: map[string]string{envPluginPath: "/nowhere"}}, []string{"/nowhere"}},
		{"the wasm", []string{programPart, pluginPart}, nil, modeldir.Model{Wasm: "/nowhere/x.wasm"}, []string{"/nowhere/x.wasm", "releases/latest/download/llama-api-server.wasm", `wasm = "guest"`}},
		{"the wasm, where the environment says", []string{programPart, pluginPart}, map[string]string{envServerWasm: "/nowhere/y.wasm"}, modeldir.Model{}, []string{"/nowhere/y.wasm", envServerWasm}},
		{"the model", []string{programPart, pluginPart}, nil, modeldir.Model{ModelPath: "/nowhere/m.gguf"}, []string{"/nowhere/m.gguf", "model_path"}},
		{"the other model", []string{programPart, pluginPart}, nil, modeldir.Model{EmbeddingModelPath: "/nowhere/e.gguf"}, []string{"/nowhere/e.gguf", "embedding_model_path"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := install(t, tt.parts...)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if tt.model.ModelPath == "" {
				tt.model.ModelPath = s.model("m.gguf", "llama", someTemplate, 512)
			}
			_, err := s.plan(tt.model)
			if missing := (*MissingError)(nil); !errors.As(err, &missing) {
				t.Fatalf("error %v", err)
			}
			m := tt.model
			m.Engine, m.Kind, m.File = modeldir.EngineWasmEdge, modeldir.Chat, filepath.Join(s.dir, "m.toml")
			if found := Check(&m); found == nil || found.Error() != err.Error() {
				t.Errorf("looked for, it is %v", found)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

func TestWasmEdgeRefuses(t *testing.T) {
	s := install(t, programPart, pluginPart)
	good, base := s.model("m.gguf", "llama", someTemplate, 512), s.model("base.gguf", "llama", "", 512)
	for name, tt := range map[string]struct {
		model modeldir.Model
		want  string
	}{
		"no template, and none to guess": {modeldir.Model{ModelPath: base}, "set prompt_template to one of none, chatml"},
		"a template it does not know":    {modeldir.Model{ModelPath: good, PromptTemplate: "chatlm"}, "choose one of none, chatml"},
		"arguments":                      {modeldir.Model{ModelPath: good, Args: []string{"-x"}}, "args: the guest takes none"},
		"another kind":                   {modeldir.Model{ModelPath: good, Kind: modeldir.Rerank}, "set engine = \"llama-server\""},
		"speech":                         {modeldir.Model{ModelPath: good, Kind: modeldir.Speech}, "OuteTTS"},
		"no model at all":                {modeldir.Model{ModelPath: s.put("x.gguf", "PK")}, "downloaded to its end"},
	} {
		if _, err := s.plan(tt.model); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if plan, err := s.plan(modeldir.Model{ModelPath: base, PromptTemplate: "none"}); err != nil || strings.Contains(string(plan.Guest), "template") {
		t.Errorf("none: %s, %v", plan.Guest, err)
	}
	s.put(serverPart, "")
	serverWasmSeen.Clear()
	if _, err := s.plan(modeldir.Model{ModelPath: base}); err == nil || !strings.Contains(err.Error(), "mistrallite") {
		t.Errorf("for the server: %v", err)
	}
}

func TestGuessTemplate(t *testing.T) {
	for _, tt := range []struct{ arch, template, want string }{
		{"llama", "…<|im_start|>…", "chatml"},
		{"phi3", "…<|im_start|>…<|im_sep|>…", "phi-4-chat"},
		{"llama", "…<|start_header_id|>…", "llama-3-chat"},
		{"gemma2", "…<start_of_turn>…", "gemma-instruct"},
		{"gemma3", "…<start_of_turn>…", "gemma-3"},
		{"llama", "…<<SYS>>…[INST]…", "llama-2-chat"},
		{"llama", "…[INST]…", "mistral-instruct"},
		{"phi3", "…<|user|>…<|end|>…", "phi-3-chat"},
		{"llama", "…<|user|>…</s>…", "zephyr"},
		{"qwen2", "", "chatml"},
		{"llama", "", ""},
	} {
		got := guessTemplate(&gguf.Header{Arch: tt.arch, Template: tt.template})
		if got != tt.want || got != "" && !slices.Contains(serverTemplates, got) {
			t.Errorf("%s %q: %q, want %q", tt.arch, tt.template, got, tt.want)
		}
	}
	for _, name := range guestTemplates() {
		if !slices.Contains(serverTemplates, name) {
			t.Errorf("our template %s has a name that llama-api-server does not know", name)
		}
	}
}

func TestAuto(t *testing.T) {
	wasm := []string{programPart, pluginPart}
	both := append([]string{"nowhere/llama-server"}, wasm...)
	for _, tt := range []struct {
		name  string
		parts []string
		model modeldir.Model
		want  string
	}{
		{"both", both, modeldir.Model{}, "llama-server"},
		{"both, of config.toml", both, modeldir.Model{Entry: true}, "wasmedge"},
		{"both, of config.toml, for a GPU", both, modeldir.Model{Entry: true, NGPULayers: new(9)}, "llama-server"},
		{"WasmEdge", wasm, modeldir.Model{}, "wasmedge"},
		{"WasmEdge, with a server's arguments", wasm, modeldir.Model{Args: []string{"-fa", "on"}}, "llama-server"},
		{"WasmEdge, to rank", wasm, modeldir.Model{Kind: modeldir.Rerank}, "llama-server"},
		{"no plug-in", []string{programPart}, modeldir.Model{Entry: true}, "llama-server"},
		{"nothing", nil, modeldir.Model{}, "llama-server"},
	} {
		install(t, tt.parts...)
		m := tt.model
		m.Engine = modeldir.EngineAuto
		kind, why := Choose(&m)
		if kind.Name != tt.want || !strings.HasPrefix(why, "auto: ") {
			t.Errorf("%s: %s, %q", tt.name, kind.Name, why)
		}
	}
}

func TestExplainWasm(t *testing.T) {
	const said = `[error] instantiation failed: unknown import, Code: 0x302
    When linking module: "wasi_ephemeral_nn" , function name: "load_by_name_with_config"`
	if got := explainWasm(said); !strings.Contains(got, "of another version") || !strings.Contains(got, envPluginPath) {
		t.Errorf("got %q", got)
	}
	if got := explainWasm("llama: out of memory"); got != "" {
		t.Errorf("got %q", got)
	}
}
