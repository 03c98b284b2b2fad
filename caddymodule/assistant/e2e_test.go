package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"assistant/internal/enginetest"
	"assistant/internal/realtest"
)

// The tests of this package are from end to end: the real binary (this one, executing itself), the real llama-server,
// real models, the official Python client, through HTTPS. make test hands them what they need.

const envServer = "ASSISTANT_E2E_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(envServer) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// bound is how long anything here may take on a busy machine before it counts as hung.
const bound = 2 * time.Minute

// server is a running router with its own folder.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	https  string // base URL
	admin  string // base URL
	client *http.Client
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startServer starts the router with the given models (file name → TOML), and more environment, and waits until it serves.
func startServer(t *testing.T, models map[string]string, env ...string) *server {
	t.Helper()
	engine := realtest.Need(t, "ASSISTANT_TEST_LLAMA_SERVER")
	s := &server{t: t, dir: t.TempDir()}
	httpsPort, adminPort := freePort(t), freePort(t)
	s.https = fmt.Sprintf("https://localhost:%d", httpsPort)
	s.admin = fmt.Sprintf("http://127.0.0.1:%d", adminPort)
	s.write("Caddyfile", fmt.Sprintf(`{
	admin 127.0.0.1:%d
	skip_install_trust
	auto_https disable_redirects
	grace_period {$GRACE:20s}
	assistant {
		config_dir ./models
		state_dir ./state
		max_load 0
	}
}
%s, https://127.0.0.1:%d {
	bind 127.0.0.1
	tls internal
	assistant
	assistant_rpc
}
`, adminPort, s.https, httpsPort))
	for name, text := range models {
		s.write(filepath.Join("models", name), text)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(exe, "run", "--config", "Caddyfile")
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), envServer+"=1", "LLAMA_SERVER="+engine, "HOME="+s.dir,
		"XDG_DATA_HOME="+filepath.Join(s.dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config"))
	s.cmd.Env = append(s.cmd.Env, env...)
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.waitUp()
	return s
}

// log is all that the server has logged.
func (s *server) log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b)
}

func (s *server) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) ca() string {
	return filepath.Join(s.dir, "data", "caddy", "pki", "authorities", "local", "root.crt")
}

func (s *server) waitUp() {
	s.t.Helper()
	for deadline := time.Now().Add(bound); ; time.Sleep(20 * time.Millisecond) {
		if pem, err := os.ReadFile(s.ca()); err == nil {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			s.client = &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true, ForceAttemptHTTP2: false,
			}}
			if res, err := s.client.Get(s.https + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the server does not come up:\n%s", s.log())
		}
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(bound):
		_ = s.cmd.Process.Kill()
		s.t.Error("the server did not stop")
	}
	if s.t.Failed() {
		s.t.Logf("the server's log:\n%s", s.log())
	}
}

// instance is what the admin API tells of one.
type instance struct {
	Model   string `json:"model"`
	PID     int    `json:"pid"`
	Address string `json:"address"`
	Leases  int    `json:"leases"`
	Served  int    `json:"served"`
	Phases  struct {
		Spawn      float64 `json:"spawn_ms"`
		Ready      float64 `json:"ready_ms"`
		FirstToken float64 `json:"first_token_ms"`
	} `json:"phases"`
}

func (s *server) instances() []instance {
	s.t.Helper()
	res, err := http.Get(s.admin + "/assistant/ps")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var ps struct{ Instances []instance }
	if err := json.NewDecoder(res.Body).Decode(&ps); err != nil {
		s.t.Fatal(err)
	}
	return ps.Instances
}

func (s *server) metrics() string {
	s.t.Helper()
	res, err := http.Get(s.admin + "/assistant/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(text), "assistant_requests_total{") {
		s.t.Fatalf("metrics: %v\n%s", err, text)
	}
	return string(text)
}

// the returns the only instance of a model.
func (s *server) the(model string) instance {
	s.t.Helper()
	var found []instance
	for _, in := range s.instances() {
		if in.Model == model {
			found = append(found, in)
		}
	}
	if len(found) != 1 {
		s.t.Fatalf("%d instances of %s, want 1", len(found), model)
	}
	return found[0]
}

// python runs a script of testdata with the official client and decodes the line of JSON it ends with.
func (s *server) python(script string, into any) {
	s.t.Helper()
	out, err := s.pythonCommand(script).Output()
	s.decode(script, out, err, into)
}

func (s *server) pythonCommand(script string) *exec.Cmd {
	cmd := exec.Command(realtest.Need(s.t, "ASSISTANT_TEST_PYTHON"), filepath.Join("testdata", script))
	cmd.Env = append(os.Environ(), "BASE_URL="+s.https+"/v1", "SSL_CERT_FILE="+s.ca())
	return cmd
}

func (s *server) decode(script string, out []byte, err error, into any) {
	s.t.Helper()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), into); err != nil {
		s.t.Fatalf("%s printed %q: %v", script, out, err)
	}
}

// errNoAnswer is a connection that ended before the head of a response.
var errNoAnswer = errors.New("no answer")

// ask sends a chat request over a connection of its own and returns status and body.
func (s *server) ask(model string, maxTokens int) (int, string, error) {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"messages":[{"role":"user","content":"Count."}]}`, model, maxTokens)
	res, err := s.client.Post(s.https+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func smollm2(t *testing.T, more string) string {
	return modelTOML(t, "smollm2", "smollm2-135m-instruct.gguf", more)
}

func tiny(t *testing.T) string { return modelTOML(t, "tiny", "tiny.gguf", "") }

// modelTOML uses one thread: with neighbours on the machine llama.cpp's threads wait for each other.
func modelTOML(t *testing.T, name, file, more string) string {
	return fmt.Sprintf("name = %q\nengine = \"llama-server\"\nmodel_path = %q\nctx_size = 2048\nargs = [\"-t\", \"1\"]\n%s\n",
		name, filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), file), more)
}

func TestColdStartByOpenAIPythonOverHTTPS(t *testing.T) {
	s := startServer(t, map[string]string{"smollm2.toml": smollm2(t, `idle_timeout = "1s"`)})
	if n := len(s.instances()); n != 0 {
		t.Fatalf("%d instances before the first request, want 0", n)
	}
	var got struct {
		Streamed, Whole, Finish string
		WholeFinish             string `json:"whole_finish"`
		Pieces, Usage           int
		WholeUsage              int `json:"whole_usage"`
		First, Last             float64
		Models                  []string
		Timings                 bool
	}
	s.python("chat.py", &got)
	if !strings.Contains(got.Streamed, "Paris") || got.Streamed != got.Whole {
		t.Errorf("streamed %q, whole %q, want the same text with Paris in it", got.Streamed, got.Whole)
	}
	if got.Pieces < 4 || got.Last-got.First <= 0 {
		t.Errorf("%d pieces from %.3fs to %.3fs: that is no stream", got.Pieces, got.First, got.Last)
	}
	if got.Finish != got.WholeFinish || got.Usage != got.WholeUsage || got.Usage == 0 || !got.Timings {
		t.Errorf("the ends differ: %+v", got)
	}
	if len(got.Models) != 1 || got.Models[0] != "smollm2" {
		t.Errorf("models: %v", got.Models)
	}
	waitFor(t, "the idle instance to retire", func() bool { return len(s.instances()) == 0 })
	if status, text, err := s.ask("smollm2", 4); err != nil || status != http.StatusOK { // a second cold start
		t.Errorf("after it retired: %d, %v\n%s", status, err, text)
	}
	in := s.the("smollm2")
	if in.Phases.Ready <= 0 || in.Phases.Spawn <= 0 || in.Phases.FirstToken <= 0 {
		t.Errorf("phases of the cold start: %+v", in.Phases)
	}
	t.Logf("spawn %.0f ms, ready %.0f ms, first token %.0f ms", in.Phases.Spawn, in.Phases.Ready, in.Phases.FirstToken)
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %s", bound, what)
		}
	}
}

func TestEmbeddingsPutRelatedSentencesNearer(t *testing.T) {
	s := startServer(t, map[string]string{"minilm.toml": modelTOML(t, "minilm", "all-minilm-l6-v2.gguf", `kind = "embedding"`)})
	var got struct {
		Dimensions         int
		Related, Unrelated float64
	}
	s.python("embed.py", &got)
	if got.Dimensions != 384 || got.Related < got.Unrelated+0.3 {
		t.Errorf("%+v, want 384 dimensions and the related pair nearer by far", got)
	}
}

func TestEngineKilledMidStreamIsATypedError(t *testing.T) {
	s := startServer(t, map[string]string{"tiny.toml": tiny(t)})
	s.killsMidStream()
}

// killsMidStream kills the engine of the model tiny while the official client reads a stream: it gets a typed error, and the next
// request is answered by another.
func (s *server) killsMidStream() {
	t := s.t
	t.Helper()
	cmd := s.pythonCommand("crash.py")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("the client printed %q, %v", line, err)
	}
	first := s.the("tiny").PID
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines)
	var got struct {
		Ended, Code string
		Seen        int
	}
	s.decode("crash.py", rest, cmd.Wait(), &got)
	if got.Ended != "error" || got.Code != "engine_crashed" || got.Seen < 5 {
		t.Errorf("the client saw %+v, want the error engine_crashed after some tokens", got)
	}
	if status, text, err := s.ask("tiny", 5); err != nil || status != http.StatusOK {
		t.Errorf("the next request: %d, %v\n%s", status, err, text)
	}
	if again := s.the("tiny").PID; again == first {
		t.Error("the dead engine is listed")
	}
}

// TestClientOfAPlainRequestThatLeavesFreesTheSlot is about llama-server, which by itself generates on for nobody.
func TestClientOfAPlainRequestThatLeavesFreesTheSlot(t *testing.T) {
	s := startServer(t, map[string]string{"smollm2.toml": smollm2(t, "concurrency = 1")})
	if status, text, err := s.ask("smollm2", 2); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v\n%s", status, err, text)
	}
	ctx, leave := context.WithCancel(t.Context())
	body := `{"model":"smollm2","max_tokens":2000,"ignore_eos":true,"messages":[{"role":"user","content":"Tell me a long story."}]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.https+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		res, err := s.client.Do(req)
		if err == nil {
			said, _ := io.ReadAll(res.Body)
			res.Body.Close()
			err = fmt.Errorf("an answer: %d %s", res.StatusCode, said)
		}
		gone <- err
	}()
	waitFor(t, "the engine to generate", func() bool { return s.busySlots("smollm2") == 1 })
	leave()
	left := time.Now()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("the client got %v", err)
	}
	waitFor(t, "the slot to be free", func() bool { return s.busySlots("smollm2") == 0 })
	took := time.Since(left)
	t.Logf("free after %v", took.Round(time.Millisecond))
	const limit = 3 * time.Second // 1 s, and what a busy machine adds to it
	if took > limit {
		t.Errorf("the slot was free after %v, want %v at the most; by itself the engine goes on for half a minute", took, limit)
	}
}

// busySlots asks the engine itself how many of its slots generate.
func (s *server) busySlots(model string) int {
	s.t.Helper()
	socket, isUnix := strings.CutPrefix(s.the(model).Address, "unix/")
	if !isUnix {
		s.t.Fatalf("%s listens on %s, want a unix socket", model, socket)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	res, err := client.Get("http://engine/slots")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var slots []struct {
		Processing bool `json:"is_processing"`
	}
	if err := json.NewDecoder(res.Body).Decode(&slots); err != nil {
		s.t.Fatal(err)
	}
	busy := 0
	for _, slot := range slots {
		if slot.Processing {
			busy++
		}
	}
	return busy
}

func TestRouterKilledLeavesNoEngine(t *testing.T) {
	s := startServer(t, map[string]string{"tiny.toml": tiny(t), "smollm2.toml": smollm2(t, "")})
	for _, model := range []string{"tiny", "smollm2"} {
		if status, text, err := s.ask(model, 2); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d, %v\n%s", model, status, err, text)
		}
	}
	pids := []int{s.the("tiny").PID, s.the("smollm2").PID}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	const limit = 2 * time.Second
	for _, pid := range pids {
		for running(pid) {
			if time.Since(killed) > limit {
				t.Fatalf("engine %d lives %v after its router was killed", pid, limit)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	t.Logf("no engine %v after the kill", time.Since(killed).Round(time.Millisecond))
}

// running reports whether the process is more than a zombie that waits for init.
func running(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	state := bytes.TrimSpace(b[bytes.LastIndexByte(b, ')')+1:])
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

// TestExitRefusesThoseWhoWait: an engine that is not ready must not hold up the server's end, nor its clients.
func TestExitRefusesThoseWhoWait(t *testing.T) {
	s := startServer(t, map[string]string{"slow.toml": `command = ["sleep", "600"]` + "\nport = " + strconv.Itoa(freePort(t)) + "\n"})
	type answer struct {
		status int
		text   string
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		status, text, err := s.ask("slow", 5)
		got <- answer{status, text, err}
	}()
	waitFor(t, "the start", func() bool {
		return len(s.instances()) == 1 && s.the("slow").PID == 0 && strings.Contains(s.log(), "engine started")
	})
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a := <-got
	if a.err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(a.text, "shutting_down") {
		t.Errorf("the waiting client got %d %q, %v, want 503 shutting_down", a.status, a.text, a.err)
	}
	began := time.Now()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	const limit = 15 * time.Second // far less than the grace period and the start together
	if took := time.Since(began); took > limit {
		t.Errorf("the server took %v to end", took)
	}
}

// TestExitEndsStreamsWithAnError: a stream that outlasts the grace period must not look whole, nor as if the engine were to blame.
func TestExitEndsStreamsWithAnError(t *testing.T) {
	command := fmt.Sprintf("command = [%q, \"--port\", \"{{port}}\", \"--tokens\", \"100000\", \"--token-delay\", \"50ms\"]\n", enginetest.Binary(t))
	s := startServer(t, map[string]string{"endless.toml": command}, "GRACE=1s")
	streams := map[string]string{
		"/v1/chat/completions": `{"model":"endless","stream":true,"messages":[{"role":"user","content":"Hi"}]}`,
		"/v1/responses":        `{"model":"endless","stream":true,"input":"Hi"}`,
		"/v1/messages":         `{"model":"endless","stream":true,"max_tokens":100000,"messages":[{"role":"user","content":"Hi"}]}`,
	}
	var ended sync.WaitGroup
	said := make(map[string]*bytes.Buffer)
	for path, body := range streams {
		res, err := s.client.Post(s.https+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out := new(bytes.Buffer)
		said[path] = out
		ended.Go(func() {
			if _, err := io.Copy(out, res.Body); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	for path, out := range said {
		text := out.String()
		if !strings.Contains(text, "the server is shutting down") || strings.Contains(text, "[DONE]") {
			t.Errorf("%s ended with %s", path, text[max(0, len(text)-1000):])
		}
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

func Test200ConcurrentFirstRequestsSpawnOnce(t *testing.T) {
	s := startServer(t, map[string]string{"smollm2.toml": smollm2(t, "")})
	var wg sync.WaitGroup
	failures := make(chan string, 200)
	for range 200 {
		wg.Go(func() {
			if status, text, err := s.ask("smollm2", 1); err != nil || status != http.StatusOK {
				failures <- fmt.Sprint(status, err, text)
			}
		})
	}
	wg.Wait()
	if n := len(failures); n > 0 {
		t.Errorf("%d of 200 failed, the first: %s", n, <-failures)
	}
	if n := strings.Count(s.log(), "engine started"); n != 1 {
		t.Errorf("%d engines were started, want 1", n)
	}
}

func TestReloadUnderLoadLosesNothing(t *testing.T) {
	s := startServer(t, map[string]string{"tiny.toml": tiny(t)})
	python := s.pythonCommand("steady.py")
	stdin, err := python.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := python.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := python.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err != nil || line != "begun\n" {
		t.Fatalf("the client printed %q, %v", line, err)
	}
	pid := s.the("tiny").PID

	over := make(chan struct{})
	var wg sync.WaitGroup
	failures := make(chan string, 1000)
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				status, text, err := s.ask("tiny", 100)
				for try := 0; try < 2 && errors.Is(err, errNoAnswer); try++ { // as often as OpenAI's clients
					// net/http closes a connection whose request it read after its shutdown began, before any handler
					// saw it (conn.serve in server.go): nothing had begun. That no other request is among these is
					// shown by the metrics below.
					time.Sleep(500 * time.Millisecond)
					status, text, err = s.ask("tiny", 100)
				}
				if err != nil || status != http.StatusOK || !strings.Contains(text, " 100") {
					failures <- fmt.Sprint(status, err, text)
				}
			}
		})
	}
	for i := range 5 {
		caddyfile, err := os.ReadFile(filepath.Join(s.dir, "Caddyfile"))
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(caddyfile), "assistant {\n", fmt.Sprintf("assistant {\n\t\tmax_instances %d\n", 3+i), 1)
		req, err := http.NewRequest(http.MethodPost, s.admin+"/load", strings.NewReader(changed))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/caddyfile")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("reload %d: %d %s", i, res.StatusCode, text)
		}
	}
	close(over)
	wg.Wait()
	stdin.Close()
	rest, _ := io.ReadAll(lines)
	var got struct {
		Answered int
		Failed   []string
	}
	s.decode("steady.py", rest, python.Wait(), &got)
	if got.Answered == 0 || len(got.Failed) > 0 {
		t.Errorf("openai-python: %+v", got)
	}
	if n := len(failures); n > 0 {
		t.Errorf("%d requests failed, the first: %s", n, <-failures)
	}
	for line := range strings.SplitSeq(s.metrics(), "\n") {
		if strings.HasPrefix(line, "assistant_requests_total{") && !strings.Contains(line, `code="200"`) {
			t.Errorf("a request that had begun failed: %s", line)
		}
	}
	if now := s.the("tiny").PID; now != pid {
		t.Errorf("the engine was %d and is %d", pid, now)
	}
}
