package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"assistant/modeldir"
)

// withAdmin gives the site an admin API on a port of its own, and returns its address.
func (s *site) withAdmin() string {
	s.tb.Helper()
	address := "127.0.0.1:" + freePort(s.tb)
	s.admin = map[string]any{"listen": address, "config": map[string]any{"persist": false}}
	return address
}

// admin is an admin API to ask.
type admin struct {
	t   *testing.T
	url string
}

func (a admin) ask(method, path, body string) answered {
	a.t.Helper()
	got, err := persist(a.t.Context(), method, a.url+"/assistant/"+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	return got
}

// ok asks what must succeed, and decodes the answer into v unless that is nil.
func (a admin) ok(method, path, body string, v any) string {
	a.t.Helper()
	got := a.ask(method, path, body)
	if got.status != http.StatusOK {
		a.t.Fatalf("%s %s: status %d: %s", method, path, got.status, got.body)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(got.body), v); err != nil {
			a.t.Fatalf("%s %s: %v: %s", method, path, err, got.body)
		}
	}
	return got.body
}

func TestAdminAPI(t *testing.T) {
	s := newSite(t)
	api := admin{t, "http://" + s.withAdmin()}
	s.model("m", `aliases = ["x"]`, "--stderr", "hello from the engine", "--token-delay", "5ms", "--tokens", "100000")
	s.model("bad", "", "--exit-code", "1", "--stderr", "boom")
	s.file("broken", "name =")
	s.start()

	var ps PsResult
	if api.ok("GET", "ps", "", &ps); len(ps.Instances) != 0 || ps.Instances == nil {
		t.Errorf("instances before the first request: %v, want []", ps.Instances)
	}
	api.ok("POST", "load", `{"model":"x"}`, nil)
	if api.ok("GET", "ps", "", &ps); len(ps.Instances) != 1 {
		t.Fatalf("instances %+v, want one", ps.Instances)
	}
	in := ps.Instances[0]
	if pid := s.started()[0]; in.PID != pid || in.Key != "m" || in.State != "ready" || in.Phases.Ready <= 0 {
		t.Errorf("instance %+v, want m, ready, pid %d", in, pid)
	}
	if got := s.chat("m"); got != in.PID {
		t.Errorf("%d answers, want the loaded %d", got, in.PID)
	}

	if a := api.ask("POST", "load", `{"model":"bad"}`); a.status != http.StatusBadGateway || !strings.Contains(a.body, "boom") {
		t.Errorf("load of what cannot start: status %d: %s", a.status, a.body)
	}
	var models ModelsResult
	api.ok("GET", "models", "", &models)
	var rows []string
	for _, m := range models.Models {
		rows = append(rows, m.Name+" "+m.Status)
	}
	if want := []string{"bad failed", "m loaded", "broken failed"}; !cmp.Equal(rows, want) {
		t.Errorf("models %q, want %q", rows, want)
	}

	if logs := api.ok("GET", "logs?model=m", "", nil); !strings.Contains(logs, "hello from the engine") {
		t.Errorf("logs: %q", logs)
	}
	if logs := api.ok("GET", "logs?model=bad", "", nil); !strings.Contains(logs, "boom") {
		t.Errorf("logs of what failed: %q", logs)
	}

	var d Diagnosis
	api.ok("GET", "doctor", "", &d)
	if len(d.Models) != 2 || len(d.Faults) != 1 || d.Models[1].Argv[0] != s.engine {
		t.Errorf("doctor: %+v", d)
	}
	var reaped ReapResult
	if api.ok("POST", "reap", "", &reaped); reaped.Reaped == nil || len(reaped.Reaped) != 0 {
		t.Errorf("reaped %+v, want []", reaped.Reaped)
	}
	if text := api.ok("GET", "model-config", "", nil); text != string(modeldir.DefaultModelTOML()) {
		t.Errorf("model-config: %q", text)
	}
	metrics := api.ok("GET", "metrics", "", nil)
	for _, name := range []string{
		`assistant_cold_start_seconds_count{model="m",phase="ready"} 1`, `assistant_cold_start_seconds_count{model="m",phase="first_token"} 1`,
		`assistant_instances{state="ready"} 1`, `assistant_requests_total{model="m",code="200"} 1`, `assistant_start_failures_total{model="bad"} 1`,
		`assistant_queue_wait_seconds_count{model="m"}`, `assistant_in_flight{model="m"} 0`, `assistant_request_bytes_total{model="m"}`,
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("metrics lack %s:\n%s", name, metrics)
		}
	}

	st := s.stream("m") // unload lets it go on; force does not
	api.ok("POST", "unload?model=m", "", nil)
	if !alive(st.pid) {
		t.Error("unload stopped a busy engine")
	}
	s.eventually("the engine drains", func() bool {
		api.ok("GET", "ps", "", &ps)
		return len(ps.Instances) == 1 && ps.Instances[0].State == "draining"
	})
	api.ok("POST", "unload", `{"model":"m","force":true}`, nil)
	if data, _ := st.rest(); len(data) == 0 || !strings.Contains(data[len(data)-1], "engine_crashed") {
		t.Errorf("a stream that was stopped by force ends with %q", data[max(0, len(data)-1):])
	}
	s.eventually("no instance is left", func() bool { api.ok("GET", "ps", "", &ps); return len(ps.Instances) == 0 })
}

func TestAdminAPIRefuses(t *testing.T) {
	s := newSite(t)
	api := admin{t, "http://" + s.withAdmin()}
	s.start()
	for path, method := range map[string]string{
		"ps": "POST", "models": "POST", "load": "GET", "unload": "GET", "logs": "POST", "doctor": "POST", "reap": "GET", "model-config": "POST", "metrics": "POST",
	} {
		a := api.ask(method, path, "")
		if allow := a.header.Get("Allow"); a.status != http.StatusMethodNotAllowed || allow == "" || allow == method {
			t.Errorf("%s %s: status %d, Allow %q: %s", method, path, a.status, allow, a.body)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "load", "", 400},
		{"POST", "load", "{}", 400},
		{"POST", "load", "{", 400},
		{"POST", "load?model=nobody", "", 404},
		{"POST", "unload", "", 400},
		{"POST", "unload", `{"model":"nobody"}`, 404},
		{"GET", "logs", "", 400},
		{"GET", "logs?model=nobody", "", 404},
		{"GET", "nothing", "", 404},
	} {
		if a := api.ask(c.method, c.path, c.body); a.status != c.status {
			t.Errorf("%s %s %s: status %d, want %d: %s", c.method, c.path, c.body, a.status, c.status, a.body)
		}
	}
	s.app, s.handler = nil, map[string]any{"handler": "static_response"}
	s.load()
	if a := api.ask("GET", "ps", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("without the app: status %d: %s", a.status, a.body)
	}
}

// run runs "caddy assistant" with the given arguments.
func run(args ...string) (string, error) {
	cmd := &cobra.Command{Use: "assistant", SilenceErrors: true}
	assistantCommand(cmd)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean the test's own
	err := cmd.Execute()
	return out.String(), err
}

func TestCommands(t *testing.T) {
	s := newSite(t)
	address := s.withAdmin()
	s.model("m", `aliases = ["x"]`, "--stderr", "hello from the engine")
	s.start()
	ask := func(args ...string) string {
		t.Helper()
		out, err := run(append(args, "--address", address)...)
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		return out
	}
	for _, c := range []struct {
		args []string
		want []string // parts, in this order
	}{
		{[]string{"ps"}, []string{"MODEL", "PID"}},
		{[]string{"models"}, []string{"MODEL", "m", "command", "unloaded", "x"}},
		{[]string{"load", "x"}, []string{"x is ready\n"}},
		{[]string{"ps"}, []string{"MODEL", "\nm", "ready", "0/∞"}},
		{[]string{"models"}, []string{"m", "command", "loaded"}},
		{[]string{"logs", "m"}, []string{"hello from the engine"}},
		{[]string{"doctor"}, []string{"llama-server", "model m", "ok", s.engine}},
		{[]string{"reap"}, []string{"nothing was left behind"}},
		{[]string{"unload", "m"}, []string{"m is let go\n"}},
		{[]string{"unload", "--force", "m"}, []string{"m is let go\n"}},
	} {
		out := ask(c.args...)
		rest := out
		for _, part := range c.want {
			var ok bool
			if _, rest, ok = strings.Cut(rest, part); !ok {
				t.Errorf("%s: want %q, in this order:\n%s", c.args, c.want, out)
				break
			}
		}
	}
	s.eventually("the engine ends", func() bool { return !alive(s.started()[0]) })

	for _, args := range [][]string{{"load", "m"}, {"ps"}, {"models"}, {"logs", "m"}, {"doctor"}, {"reap"}, {"unload", "m"}, {"model-config"}} {
		out := ask(append(args, "--json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || len(v) == 0 || !strings.HasSuffix(out, "\n") {
			t.Errorf("%s --json: %v: %q", args, err, out)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	s := newSite(t)
	address := s.withAdmin()
	s.start()
	nobody := "127.0.0.1:" + freePort(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"load", "nobody", "--address", address}, `the model "nobody" does not exist`},
		{[]string{"load", "--address", address}, "accepts 1 arg"},
		{[]string{"ps", "--address", nobody}, "is it running?"},
		{[]string{"ps", "x"}, "unknown command"},
		{[]string{"bogus"}, `unknown`},
	} {
		out, err := run(c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q: %s", c.args, err, c.want, out)
		}
	}
	if out, err := run(); err != nil || !strings.Contains(out, "model-config") {
		t.Errorf("without arguments: %v: %s, want help", err, out)
	}
}

// Without --address the Caddyfile of the folder says where the server is.
func TestAddressFromCaddyfile(t *testing.T) {
	s := newSite(t)
	address := s.withAdmin()
	s.start()
	t.Chdir(s.root)
	if got, err := (&client{}).adminAddress(); err != nil || got != caddy.DefaultAdminListen {
		t.Errorf("without a Caddyfile: %q, %v", got, err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile("Caddyfile", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("{\n\tadmin " + address + "\n}\n")
	if out, err := run("ps"); err != nil || !strings.HasPrefix(out, "MODEL") {
		t.Errorf("ps: %v: %s", err, out)
	}
	write("{\n\tassistant {\n\t\tbogus\n\t}\n}\n")
	if _, err := run("ps"); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Errorf("a Caddyfile that is wrong: %v", err)
	}
}

func TestModelConfigCommand(t *testing.T) {
	want := string(modeldir.DefaultModelTOML())
	for _, args := range [][]string{{"model-config"}, {"--model-config"}} {
		if out, err := run(args...); err != nil || out != want {
			t.Errorf("%s: %v: %q", args, err, out)
		}
		file := filepath.Join(t.TempDir(), "m.toml")
		out, err := run(append(args, file)...)
		if err != nil || !strings.Contains(out, file) {
			t.Fatalf("%s FILE: %v: %s", args, err, out)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s FILE wrote %q, %v", args, got, err)
		}
		if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := run(append(args, file)...); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: a file that is there: %v", args, err)
		}
		if got, _ := os.ReadFile(file); string(got) != "mine" {
			t.Error("a file was overwritten")
		}
	}
}

func TestDoctorWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LLAMA_SERVER", filepath.Join(dir, "no-such-program"))
	for name, text := range map[string]string{
		"good":   "engine = \"command\"\ncommand = [\"sh\", \"{{port}}\"]\n",
		"absent": "model_path = \"absent.gguf\"\n",
		"broken": "bogus = 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := run("doctor", "--config-dir", dir)
	if err == nil {
		t.Error("no error, though something is missing")
	}
	for _, part := range []string{"no-such-program", "model good", "model absent", "missing", "broken.toml", "bogus"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in:\n%s", part, out)
		}
	}
	for _, name := range []string{"absent", "broken"} {
		if err := os.Remove(filepath.Join(dir, name+".toml")); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run("doctor", "--config-dir", dir, "--json"); err != nil || !json.Valid([]byte(out)) {
		t.Errorf("all is well: %v: %s", err, out)
	}
}

// A record of a router that is no more, whose engine is gone too.
func TestReapWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	out, err := run("reap", "--state-dir", dir)
	if err != nil || !strings.Contains(out, "nothing") {
		t.Errorf("nothing to reap: %v: %s", err, out)
	}
	const noPID = 1 << 30
	record := fmt.Sprintf(`{"router":"r","router_pid":%d,"router_started":"1","model":"m","instance":"m#1","mark":"r-1","pid":%d,"started":"1"}`, noPID, noPID)
	for _, args := range [][]string{nil, {"--json"}} {
		if err := os.MkdirAll(filepath.Join(dir, "instances"), 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "instances", "r-1.json")
		if err := os.WriteFile(file, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := run(append([]string{"reap", "--state-dir", dir}, args...)...)
		if err != nil || !strings.Contains(out, strconv.Itoa(noPID)) {
			t.Errorf("reap %s: %v: %s", args, err, out)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the record is still there: %v", err)
		}
	}
}
