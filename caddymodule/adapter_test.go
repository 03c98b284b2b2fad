package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"

	pb "assistant/internal/rpc/assistantv1"
	svc "assistant/internal/rpc/assistantv1/assistantv1connect"
	"assistant/modeldir"
)

// adaptConfig adapts a config.toml as "caddy run --adapter assistant" does.
func adaptConfig(text, filename string) ([]byte, error) {
	options := map[string]any{}
	if filename != "" {
		options["filename"] = filename
	}
	got, _, err := caddyconfig.GetAdapter("assistant").Adapt([]byte(text), options)
	return got, err
}

// usersConfig is the user's own config.toml, as it stands.
func usersConfig(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../modeldir/testdata/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAdaptUsersConfig(t *testing.T) {
	const golden = "testdata/config.json"
	got, err := adaptConfig(usersConfig(t), "/etc/assistant/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(indent(t, got)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), indent(t, got)); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

// userSite writes the user's config.toml with paths and addresses of this test in it.
func userSite(t *testing.T, dir, address, grpcAddress string) string {
	t.Helper()
	text := strings.NewReplacer(
		"/etc/assistant", dir, "/home/hu/code/assistant", dir, "0.0.0.0:8080", address, "0.0.0.0:50051", grpcAddress,
	).Replace(usersConfig(t))
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUsersConfigValidates(t *testing.T) {
	dir := t.TempDir()
	file := userSite(t, dir, "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := adaptConfig(string(text), file)
	if err != nil {
		t.Fatal(err)
	}
	mustValidate(t, got)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("validation wrote something: %v, %v", left, err)
	}
}

// The app reads config.toml itself, whichever way it is named; what the global option says goes before it.
func TestConfigIsServed(t *testing.T) {
	s := newSite(t)
	file := userSite(t, s.root, "127.0.0.1:1", "127.0.0.1:2")
	if err := os.WriteFile(filepath.Join(s.root, "default.toml"), []byte("ctx_size = 512\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app = map[string]any{"config": file, "state_dir": s.app["state_dir"], "max_load": 0}
	s.model("more", "")
	s.start()
	var ids []string
	for _, c := range s.list() {
		ids = append(ids, c.ID)
	}
	if want := []string{"default", "more"}; !cmp.Equal(ids, want) {
		t.Errorf("models %q, want %q", ids, want)
	}
	m, _ := current(t).catalog.Load().Resolve("default", modeldir.Chat)
	if m.Port != 8000 || m.CtxSize != 512 || !strings.HasSuffix(m.ModelPath, "qwen1_5-0_5b-chat-q2_k.gguf") {
		t.Errorf("port %d, ctx_size %d, model_path %s", m.Port, m.CtxSize, m.ModelPath)
	}
	if got := limits(t).MaxInstances; got != 10 {
		t.Errorf("max_instances %d, want config.toml's 10", got)
	}
	s.chat("more")

	text, err := os.ReadFile(file) // a reload reads it anew
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), `name = "default"`, `name = "renamed"`, 1))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["max_instances"] = 3
	s.load()
	if !resolves(t, "renamed") || resolves(t, "default") {
		t.Error("a reload did not read config.toml anew")
	}
	if got := limits(t).MaxInstances; got != 3 {
		t.Errorf("max_instances %d, want the app's own 3", got)
	}
	if n := len(s.started()); n != 1 {
		t.Errorf("%d engines were started, want 1: the reload changed nothing about that model", n)
	}
}

// TestUsersConfigServesBoth runs the user's config.toml as it stands, but for paths and addresses: both APIs are there, on two addresses or on
// one.
func TestUsersConfigServesBoth(t *testing.T) {
	for name, same := range map[string]bool{"two addresses": false, "one address": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			grpcPort := freePort(t)
			if same {
				grpcPort = s.port
			}
			file := userSite(t, s.root, "127.0.0.1:"+s.port, "127.0.0.1:"+grpcPort)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := adaptConfig(string(text), file)
			if err != nil {
				t.Fatal(err)
			}
			var cfg map[string]any
			if err := json.Unmarshal(got, &cfg); err != nil {
				t.Fatal(err)
			}
			cfg["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false}}
			cfg["apps"].(map[string]any)["assistant"].(map[string]any)["state_dir"] = filepath.Join(s.root, "state")
			got, err = json.Marshal(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := caddy.Load(got, true); err != nil {
				t.Fatal(err)
			}
			if a := s.ask(http.MethodGet, "/v1/models", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"default"`) {
				t.Errorf("HTTP: %d %s", a.status, a.body)
			}
			s.port = grpcPort
			list := call[pb.ListModelsResponse](s.calls(t, ""), svc.ModelServiceListModelsProcedure, &pb.ListModelsRequest{})
			if len(list.Models) != 1 || list.Models[0].Name != "default" || list.Models[0].Editable {
				t.Errorf("gRPC: %v", list)
			}
		})
	}
}

func TestAdaptBadConfig(t *testing.T) {
	for name, c := range map[string]struct {
		text, filename string
		want           []string
	}{
		"no filename":   {"", "", []string{"--config FILE"}},
		"unknown key":   {"[server]\nbogus = 1\n", "/x/config.toml", []string{"/x/config.toml:2:1", "server.bogus"}},
		"wrong type":    {"[scheduler]\n\n  max_instances = \"ten\"\n", "/x/config.toml", []string{"/x/config.toml:3:", "scheduler.max_instances"}},
		"out of bounds": {"[scheduler]\nmax_load = -1.0\n", "/x/config.toml", []string{"/x/config.toml:2:", "scheduler.max_load"}},
		"bad syntax":    {"[server\n", "/x/config.toml", []string{"/x/config.toml:1:"}},
		"bad address":   {"[server]\nhttp_addr = \"nowhere\"\n", "/x/config.toml", []string{"/x/config.toml:2:", "server.http_addr", "host:port"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := adaptConfig(c.text, c.filename)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q, want %q in it", err, part)
				}
			}
			var field *modeldir.FieldError
			if c.filename != "" && (!errors.As(err, &field) || field.Line == 0 || field.Column == 0) {
				t.Errorf("error %v of type %T, want a place", err, err)
			}
		})
	}
}

// A config.toml that says nothing is served on loopback.
func TestAdaptEmptyConfig(t *testing.T) {
	got, err := adaptConfig("", "/x/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Listen []string }
			}
		}
	}
	if err := json.Unmarshal(got, &cfg); err != nil {
		t.Fatal(err)
	}
	if listen := cfg.Apps.HTTP.Servers["assistant"].Listen; !cmp.Equal(listen, []string{defaultHTTPAddr}) {
		t.Errorf("listens on %q", listen)
	}
}
