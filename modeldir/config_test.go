package modeldir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exported compares configurations by what others see of them.
var exported = cmp.Options{cmpopts.IgnoreUnexported(Config{}, LlamaServer{})}

// TestUsersOwnConfig reads the file that came with the request for this project,
// with the quote that its last line lacks.
func TestUsersOwnConfig(t *testing.T) {
	data, err := os.ReadFile("testdata/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	file := "/etc/assistant/config.toml"
	got, warnings, err := ParseConfig(file, data)
	if err != nil {
		t.Fatal(err)
	}
	const toml = "/home/hu/code/assistant/default.toml"
	want := &Config{
		File: file, HTTPAddr: "0.0.0.0:8080", GRPCAddr: "0.0.0.0:50051",
		ConfigDir: "/etc/assistant/models", MaxInstances: 10, MaxLoad: new(0.800000011920929),
		LlamaServers: []LlamaServer{{Name: "default", Port: new(8000), ConfigPath: toml}},
	}
	if d := cmp.Diff(want, got, exported); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	wantWarnings := []Warning{
		{18, `a string lacks its closing quote; the line is read as: config_path = "` + toml + `"  # 配置文件路径`},
	}
	if d := cmp.Diff(wantWarnings, warnings); d != "" {
		t.Errorf("warnings: -want +got:\n%s", d)
	}

	models, faults := got.Models() // the file at config_path is not there
	wantModels := []*Model{{
		Name: "default", Key: "default", Entry: true, File: file, Kind: Chat, Engine: EngineAuto, Port: 8000, MaxInstances: 1,
		ModelPath: "/home/hu/code/assistant/models/qwen1_5-0_5b-chat-q2_k.gguf",
	}}
	if d := cmp.Diff(wantModels, models); d != "" {
		t.Errorf("models: -want +got:\n%s", d)
	}
	if len(faults) != 1 || faults[0].File != toml || faults[0].Name != "default" {
		t.Fatalf("faults %+v, want one of %s", faults, toml)
	}
	text := faults[0].Err.Error()
	for _, part := range []string{file + ":18:1: llama_servers[0].config_path: ", toml, "no such file"} {
		if !strings.Contains(text, part) {
			t.Errorf("fault %q does not tell %q", text, part)
		}
	}
}

func TestParseConfig(t *testing.T) {
	tests := []struct {
		name, toml string
		want       Config // less the file
		warnings   []Warning
	}{
		{"empty", "", Config{}, nil},
		{"empty strings are absent", `
			[server]
			http_addr = ""
			grpc_addr = ""
			[scheduler]
			config_dir = ""`, Config{}, nil},
		{"relative paths", `
			scheduler = { config_dir = "models", max_load = 2, max_instances = 1 }
			[[llama_servers]]
			name = "a"
			config_path = "a.toml"`, Config{
			ConfigDir: below("models"), MaxLoad: new(2.0), MaxInstances: 1,
			LlamaServers: []LlamaServer{{Name: "a", ConfigPath: below("a.toml")}},
		}, nil},
		{"remote servers as strings and tables", `remote_servers = ["http://a:1", { url = "https://b/v1", api_key = "k", models = ["m"], weight = 2, max_concurrency = 3 }]`, Config{
			RemoteServers: []RemoteServer{{URL: "http://a:1"}, {URL: "https://b/v1", APIKey: "k", Models: []string{"m"}, Weight: 2, MaxConcurrency: 3}},
		}, nil},
		{"remote servers as array of tables", "[[remote_servers]]\nurl = \"http://a\"\n[[remote_servers]]\nurl = \"http://b\"", Config{
			RemoteServers: []RemoteServer{{URL: "http://a"}, {URL: "http://b"}},
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings, err := ParseConfig(testFile, []byte(tt.toml))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.File = testFile
			if d := cmp.Diff(&tt.want, got, exported); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if d := cmp.Diff(tt.warnings, warnings); d != "" {
				t.Errorf("warnings: -want +got:\n%s", d)
			}
		})
	}
}

func TestParseConfigErrors(t *testing.T) {
	const entry = "[[llama_servers]]\n"
	tests := []struct {
		name, toml    string
		line, column  int
		field, reason string
	}{
		{"syntax", "[server\n", 1, 8, "", ""},
		{"unknown key", "[server]\nhttp_adr = ''", 2, 1, "server.http_adr", "did you mean http_addr?"},
		{"unknown table", "[shceduler]", 1, 2, "shceduler", "did you mean scheduler?"},
		{"other case", "[Server]", 1, 2, "Server", "did you mean server?"},
		{"unknown key of an entry", entry + "name = 'a'\nprot = 1", 3, 1, "llama_servers[0].prot", "did you mean port?"},
		{"type", entry + "port = '1'", 2, 8, "llama_servers.port", "must be an integer, not a string"},
		{"http_addr", "[server]\nhttp_addr = 'localhost'", 2, 1, "server.http_addr", "host:port"},
		{"grpc_addr", "[server]\ngrpc_addr = 'a:99999'", 2, 1, "server.grpc_addr", "host:port"},
		{"max_instances", "[scheduler]\nmax_instances = 0", 2, 1, "scheduler.max_instances", "not in 1 to"},
		{"max_load negative", "[scheduler]\nmax_load = -0.1", 2, 1, "scheduler.max_load", "0 (off) or more"},
		{"max_load infinite", "[scheduler]\nmax_load = inf", 2, 1, "scheduler.max_load", "is no load"},
		{"max_load not a number", "[scheduler]\nmax_load = nan", 2, 1, "scheduler.max_load", "is no load"},
		{"no name", entry + "port = 1", 1, 3, "llama_servers[0].name", "must not be empty"},
		{"bad name", entry + "name = ' a'", 2, 1, "llama_servers[0].name", "space"},
		{"same name twice", entry + "name = 'a'\n" + entry + "name = 'a'", 4, 1, "llama_servers[1].name", "earlier entry"},
		{"port", entry + "name = 'a'\n" + entry + "name = 'b'\nport = 70000", 5, 1, "llama_servers[1].port", "70000"},
		{"remote server", "remote_servers = ['x']", 1, 1, "remote_servers[0].url", "http or https"},
		{"remote server's weight", "remote_servers = [{url='http://a'}, {url='http://b',weight=-1}]", 1, 53, "remote_servers[1].weight", "-1"},
		{"remote server's unknown key", "remote_servers = [{url='http://a',key='b'}]", 1, 35, "remote_servers[0].key", "unknown key; the keys are api_key, max_concurrency, models, url, weight"},
		// What the repair of strings cannot put right is told as it was written.
		{"unclosed in a list", "remote_servers = [\"a]\n", 1, 22, "", ""},
		{"unclosed literal string", entry + "name = 'a\n", 2, 10, "", ""},
		{"text after a string", entry + "name = \"a\"b\"\n", 2, 11, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := ParseConfig(testFile, []byte(tt.toml))
			if c != nil {
				t.Errorf("a configuration came with the error")
			}
			e := (*FieldError)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a FieldError", err)
			}
			want := FieldError{File: testFile, Line: tt.line, Column: tt.column, Field: tt.field, Reason: e.Reason}
			if d := cmp.Diff(want, *e); d != "" {
				t.Errorf("%v: -want +got:\n%s", e, d)
			}
			if !strings.Contains(e.Reason, tt.reason) || e.Reason == "" {
				t.Errorf("reason %q does not tell %q", e.Reason, tt.reason)
			}
		})
	}
}

func TestCloseStrings(t *testing.T) {
	tests := []struct {
		name, in, want string
		lines          []int // with a warning
	}{
		{"nothing to do", "a = \"b\" # c\"\n", "a = \"b\" # c\"\n", nil},
		{"at the end of the file", `a = "b`, `a = "b"`, []int{1}},
		{"before a comment", "a = \"/b  # c\nd = 1\n", "a = \"/b\"  # c\nd = 1\n", []int{1}},
		{"before trailing space", "a = \"b \t\r\n", "a = \"b\" \t\r\n", []int{1}},
		{"a hash in the path", "a = \"/b#c\n", "a = \"/b#c\"\n", []int{1}},
		{"empty before a comment", "a = \" # c\n", "a = \"\" # c\n", []int{1}},
		{"second string of the line", "a = [\"b\", \"c\n", "a = [\"b\", \"c\"\n", []int{1}},
		{"escaped quote", "a = \"b\\\"\n", "a = \"b\\\"\"\n", []int{1}},
		{"two lines", "a = \"b\n\nc = \"d\n", "a = \"b\"\n\nc = \"d\"\n", []int{1, 3}},
		{"multi-line strings are left alone", "a = \"\"\"\nb = \"c\n\"\"\"\nd = '''\n\"e\n'''\nf = \"g\n", "a = \"\"\"\nb = \"c\n\"\"\"\nd = '''\n\"e\n'''\nf = \"g\"\n", []int{7}},
		{"unclosed literal strings are left alone", "a = 'b\n", "a = 'b\n", nil},
		{"literal strings hide quotes", "a = 'b\"c' # \"\n", "a = 'b\"c' # \"\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings := closeStrings([]byte(tt.in))
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			var lines []int
			for _, w := range warnings {
				lines = append(lines, w.Line)
			}
			if d := cmp.Diff(tt.lines, lines); d != "" {
				t.Errorf("lines with a warning: -want +got:\n%s", d)
			}
		})
	}
}

// TestConfigModels expands entries together with the files at config_path.
func TestConfigModels(t *testing.T) {
	tests := []struct {
		name, config, toml string // toml is at a.toml
		want               []*Model
		fault              string // part of the only one; "" = none
	}{
		{"three roles", `
			name = "a"
			chat_model_path = "c"
			embedding_model_path = "e"
			tts_model_path = "t"
			port = 8000`, "", []*Model{
			{Name: "a", Key: "a", Kind: Chat, Engine: EngineAuto, ModelPath: "c", Port: 8000, MaxInstances: 1},
			{Name: "a", Key: "a#embedding", Kind: Embedding, Engine: EngineAuto, ModelPath: "e"},
			{Name: "a", Key: "a#speech", Kind: Speech, Engine: EngineAuto, ModelPath: "t"},
		}, ""},
		{"the first role there is is the main one", `
			name = "a"
			chat_model_path = ""
			embedding_model_path = "e"
			tts_model_path = "t"
			port = 8000`, "", []*Model{
			{Name: "a", Key: "a", Kind: Embedding, Engine: EngineAuto, ModelPath: "e", Port: 8000, MaxInstances: 1},
			{Name: "a", Key: "a#speech", Kind: Speech, Engine: EngineAuto, ModelPath: "t"},
		}, ""},
		{"config_path supplies the rest", `
			name = "a"
			chat_model_path = "c"
			embedding_model_path = "e"
			config_path = "a.toml"`, `
			name = "ignored"
			model_path = "ignored"
			port = 9000
			ctx_size = 7
			engine = "llama-server"
			aliases = ["x"]
			system_prompt = "Be brief."
			max_instances = 3
			idle_timeout = "1m"`, []*Model{
			{
				Name: "a", Key: "a", Kind: Chat, Engine: EngineLlamaServer, ModelPath: "c", Port: 9000, CtxSize: 7,
				Aliases: []string{"x"}, Shape: &Shape{System: "Be brief."}, MaxInstances: 1, IdleTimeout: new(time.Minute),
			},
			{
				Name: "a", Key: "a#embedding", Kind: Embedding, Engine: EngineLlamaServer, ModelPath: "e", CtxSize: 7,
				MaxInstances: 3, IdleTimeout: new(time.Minute),
			},
		}, ""},
		{"the entry's port 0 goes before", `
			name = "a"
			chat_model_path = "c"
			port = 0
			config_path = "a.toml"`, `port = 9000`, []*Model{{Name: "a", Key: "a", Kind: Chat, Engine: EngineAuto, ModelPath: "c"}}, ""},
		{"config_path supplies all", `config_path = "a.toml"`, `
			name = "x"
			kind = "rerank"
			model_path = "m"
			port = 1`, []*Model{{Name: "x", Key: "x", Kind: Rerank, Engine: EngineAuto, ModelPath: "m", Port: 1, MaxInstances: 1}}, ""},
		{"config_path names no model", `config_path = "a.toml"`, `model_path = "m"`, []*Model{{Name: "a", Key: "a", Kind: Chat, Engine: EngineAuto, ModelPath: "m"}}, ""},
		{"command", `
			name = "a"
			config_path = "a.toml"`, `command = ["run"]`, []*Model{{Name: "a", Key: "a", Kind: Chat, Engine: EngineCommand, Command: []string{"run"}}}, ""},
		{"no path at all", `name = "a"`, "", nil, "config.toml:1:3: llama_servers[0]: has no model"},
		{"no path in config_path either", "name = 'a'\nconfig_path = 'a.toml'", "port = 1", nil, "a.toml:1:1: llama_servers[0]: has no model"},
		{"config_path broken", "name = 'a'\nchat_model_path = 'c'\nconfig_path = 'a.toml'", "prot = 1", []*Model{
			{Name: "a", Key: "a", Kind: Chat, Engine: EngineAuto, ModelPath: "c"},
		}, "a.toml:1:1: prot: unknown key; did you mean port?"},
		{"config_path missing", "name = 'a'\nchat_model_path = 'c'\nconfig_path = 'b.toml'", "", []*Model{
			{Name: "a", Key: "a", Kind: Chat, Engine: EngineAuto, ModelPath: "c"},
		}, "config.toml:4:1: llama_servers[0].config_path: "},
		{"config_path missing, and no name", "chat_model_path = 'c'\nconfig_path = 'b.toml'", "", nil, "llama_servers[0].config_path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.toml != "" {
				write(t, dir, "a.toml", tt.toml)
			}
			file := filepath.Join(dir, "config.toml")
			c, _, err := ParseConfig(file, []byte("[[llama_servers]]\n"+tt.config))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range tt.want {
				m.File, m.Entry = file, true
				if m.ModelPath != "" {
					m.ModelPath = filepath.Join(dir, m.ModelPath)
				}
			}
			got, faults := c.Models()
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkFault(t, faults, tt.fault)
		})
	}
}

// checkFault checks that there is one fault with that text in it, or none if that is "".
func checkFault(t *testing.T, faults []Fault, part string) {
	t.Helper()
	switch {
	case part == "" && len(faults) == 0:
	case part == "" || len(faults) != 1:
		t.Errorf("faults %v, want one with %q", faults, part)
	case !strings.Contains(faults[0].Err.Error(), part):
		t.Errorf("fault %q, want one with %q", faults[0].Err, part)
	case !filepath.IsAbs(faults[0].File) || faults[0].Name == "":
		t.Errorf("fault of file %q, model %q", faults[0].File, faults[0].Name)
	}
}

func TestReadConfig(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, _, err := ReadConfig("config.toml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
	write(t, ".", "config.toml", "[scheduler]\nconfig_dir = 'models'")
	c, _, err := ReadConfig("config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if wd, _ := os.Getwd(); c.ConfigDir != filepath.Join(wd, "models") {
		t.Errorf("config_dir is %s, want it below %s", c.ConfigDir, wd)
	}
}

// FuzzParseConfig checks that no input does harm and that what is taken keeps its promises.
func FuzzParseConfig(f *testing.F) {
	own, err := os.ReadFile("testdata/config.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("remote_servers = ['http://a', {url = \"https://b\", weight = 1}]\n[scheduler]\nmax_load = 1e3\n")
	f.Add("[[llama_servers]]\nname = \"a\nchat_model_path = \"b # c\ntts_model_path = \"\"\"\nx\"\"\"\n[[llama_servers]]\nname='b'\nport=1")
	f.Add("[[remote_servers]]\n[[remote_servers]]\n[remote_servers.a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, warnings, err := ParseConfig(testFile, []byte(text))
		if err != nil {
			e := (*FieldError)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		for _, w := range warnings {
			if w.Line < 1 || w.Line > 1+strings.Count(text, "\n") || w.Message == "" {
				t.Errorf("warning %+v", w)
			}
		}
		if c.MaxInstances < 0 || c.MaxLoad != nil && !(*c.MaxLoad >= 0) || c.ConfigDir != "" && !filepath.IsAbs(c.ConfigDir) {
			t.Errorf("%+v", c)
		}
		for i := range c.LlamaServers {
			if c.LlamaServers[i].ConfigPath != "" {
				continue // the fuzzer is to read no files
			}
			models, name, err := c.expand(i, nil, nil)
			if err == nil && (len(models) == 0 || name == "") {
				t.Errorf("entry %d makes no model", i)
			}
			for _, m := range models {
				checkModel(t, m)
			}
		}
	})
}
