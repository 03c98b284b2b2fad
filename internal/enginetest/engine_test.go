package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	MaybeRun()
	os.Exit(m.Run())
}

// call sends a request and returns the status and the whole body.
func call(t *testing.T, url, body string) (int, string) {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// await returns the first event with the given name, which must come within five seconds.
func await(t *testing.T, file, name string) Event {
	t.Helper()
	return awaitNth(t, file, name, 1)
}

func awaitNth(t *testing.T, file, name string, n int) Event {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		events, err := ReadEvents(file)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, e := range events {
			if e.Name == name {
				seen++
			}
			if seen == n {
				return e
			}
		}
	}
	t.Fatalf("no %d events %q within 5 s", n, name)
	return Event{}
}

// data returns the payloads of a stream.
func data(t *testing.T, stream string) []string {
	t.Helper()
	var out []string
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		d, ok := strings.CutPrefix(block, "data: ")
		if !ok || strings.Contains(d, "\n") {
			t.Fatalf("not one data line: %q", block)
		}
		out = append(out, d)
	}
	return out
}

// TestShapes compares every object with a recording of llama-server b11669,
// where ours differ by nothing but who answered and when.
func TestShapes(t *testing.T) {
	e := Start(t)
	tests := []struct{ recording, body string }{
		{"chat_tiny", `{"model":"tiny"`},
		{"chat_length", `{"model":"tiny","max_tokens":5`},
		{"chat_zero_tokens", `{"model":"tiny","max_tokens":0`},
		{"completion_tiny", `{"model":"tiny"`},
		{"completion_length", `{"model":"tiny","max_tokens":5`},
	}
	for _, tt := range tests {
		t.Run(tt.recording, func(t *testing.T) {
			path := "/v1/chat/completions"
			if strings.HasPrefix(tt.recording, "completion") {
				path = "/v1/completions"
			}
			read := func(ext string) string {
				b, err := os.ReadFile("../openai/testdata/join/" + tt.recording + ext)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			_, got := call(t, e.URL+path, tt.body+"}")
			if diff := cmp.Diff(shape(t, read(".plain.json")), shape(t, got)); diff != "" {
				t.Errorf("plain: recorded (-), got (+):\n%s", diff)
			}
			_, got = call(t, e.URL+path, tt.body+`,"stream":true,"stream_options":{"include_usage":true}}`)
			want, have := data(t, read(".sse")), data(t, got)
			if len(want) != len(have) {
				t.Fatalf("stream: got %d events, want %d:\n%s", len(have), len(want), got)
			}
			for i := range want {
				if diff := cmp.Diff(shape(t, want[i]), shape(t, have[i])); diff != "" {
					t.Fatalf("event %d: recorded (-), got (+):\n%s", i, diff)
				}
			}
		})
	}
}

// shape decodes an object and blanks what differs between any two answers.
func shape(t *testing.T, s string) any {
	t.Helper()
	if s == "[DONE]" {
		return s
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	for _, k := range []string{"id", "created", "system_fingerprint"} {
		if m[k] == nil {
			t.Errorf("no %s in %s", k, s)
		}
		m[k] = ""
	}
	if u, ok := m["usage"].(map[string]any); ok {
		u["prompt_tokens"], u["total_tokens"] = 0, 0
	}
	if tm, ok := m["timings"].(map[string]any); ok {
		for k := range tm {
			tm[k] = 0
		}
	}
	return m
}

func TestStreamWithoutUsage(t *testing.T) {
	e := Start(t, "--tokens", "2")
	_, got := call(t, e.URL+"/v1/chat/completions", `{"model":"m \"1\"","messages":[{"content":"}{\\\""}],"stream":true}`)
	events := data(t, got)
	if len(events) != 5 { // role, two tokens, finish, mark
		t.Fatalf("got %d events, want 5:\n%s", len(events), got)
	}
	var last struct {
		Model   string
		Choices []struct {
			Finish string `json:"finish_reason"`
		}
		Usage   any
		Timings any
	}
	if err := json.Unmarshal([]byte(events[3]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Model != `m "1"` || len(last.Choices) != 1 || last.Choices[0].Finish != "stop" || last.Usage != nil || last.Timings == nil {
		t.Errorf("last chunk: got %+v, want the model as asked, stop, timings and no usage", last)
	}
}

func TestBadBody(t *testing.T) {
	e := Start(t)
	for _, body := range []string{"[]", "{", `{"model"`, `{"model":1}`, `{"stream":tru}`, "\x00"} {
		if status, got := call(t, e.URL+"/v1/chat/completions", body); status != http.StatusBadRequest {
			t.Errorf("%q: got %d %s, want 400", body, status, got)
		}
	}
}

func TestEmbeddings(t *testing.T) {
	e := Start(t, "--embeddings")
	_, floats := call(t, e.URL+"/v1/embeddings", `{"model":"m","input":["a cat","the cat sat"]}`)
	_, encoded := call(t, e.URL+"/v1/embeddings", `{"model":"m","input":"a cat","encoding_format":"base64"}`)
	var list struct {
		Data []struct{ Embedding []float32 }
	}
	var list64 struct{ Data []struct{ Embedding string } }
	if err := json.Unmarshal([]byte(floats), &list); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(encoded), &list64); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(list64.Data[0].Embedding)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, len(raw)/4)
	if _, err := binary.Decode(raw, binary.LittleEndian, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list.Data[0].Embedding, got); diff != "" {
		t.Errorf("base64 differs from floats:\n%s", diff)
	}
	dot := func(a, b []float32) (sum float32) {
		for i := range a {
			sum += a[i] * b[i]
		}
		return sum
	}
	near, far := dot(got, list.Data[1].Embedding), dot(got, Embed("stocks fell"))
	if one := dot(got, got); one < 0.999 || one > 1.001 || near <= far {
		t.Errorf("norm %v, near %v, far %v; want 1 and near > far", one, near, far)
	}
	if status, _ := call(t, Start(t).URL+"/v1/embeddings", `{"input":"a"}`); status != http.StatusNotImplemented {
		t.Errorf("without --embeddings: got %d, want 501", status)
	}
}

func TestLoading(t *testing.T) {
	tests := []struct {
		ready string
		want  string // what a request sees during the start delay
	}{
		{"503", `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`},
		{"tcp", "timeout"},
		{"refuse", "refused"},
	}
	// All ports are chosen before any is given back: chosen one by one, two of the engines had the same once.
	ports, held := make([]string, len(tests)), make([]net.Listener, len(tests))
	for i := range tests {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		held[i] = l
	}
	for _, l := range held {
		l.Close()
	}
	for i, tt := range tests {
		t.Run(tt.ready, func(t *testing.T) {
			t.Parallel()
			port := ports[i]
			log := filepath.Join(t.TempDir(), "events")
			argv := Command("--port", port, "--start-delay", "700ms", "--ready", tt.ready, "--events", log)
			cmd := exec.Command(argv[0], argv[1:]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			await(t, log, EventStart)

			var got string
			c := http.Client{Timeout: 100 * time.Millisecond, Transport: &http.Transport{}}
			for got == "" || got == "refused" && tt.want != got { // 503 and tcp listen a moment after their start
				resp, err := c.Get("http://127.0.0.1:" + port + "/health")
				switch {
				case errors.Is(err, syscall.ECONNREFUSED):
					got = "refused"
				case errors.Is(err, context.DeadlineExceeded):
					got = "timeout"
				case err != nil:
					t.Fatal(err)
				default:
					b, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					got = string(b)
				}
			}
			if got != tt.want {
				t.Errorf("while loading: got %s, want %s", got, tt.want)
			}
			start, ready := await(t, log, EventStart), await(t, log, EventReady)
			if d := time.Duration(ready.Time - start.Time); d < 700*time.Millisecond {
				t.Errorf("ready after %s, want 700ms or more", d)
			}
			if status, body := call(t, "http://127.0.0.1:"+port+"/health", ""); status != 200 || body != `{"status":"ok"}` {
				t.Errorf("when ready: got %d %s", status, body)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "e.sock")
	if e := Start(t, "--host", path); e.URL != "unix:"+path {
		t.Fatalf("got %s, want unix:%s", e.URL, path)
	}
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := c.Get("http://engine/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c.CloseIdleConnections()
}

// A client that leaves frees a stream at once; a plain request goes on under --no-cancel.
func TestCancel(t *testing.T) {
	tests := []struct {
		name, body string
		want       string
	}{
		{"stream", `{"stream":true}`, EventCancel},
		{"plain", `{}`, EventEnd},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "events")
			e := Start(t, "--no-cancel", "--events", log, "--tokens", "40", "--token-delay", "10ms")
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+"/v1/chat/completions", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if resp, err := http.DefaultClient.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()
			await(t, log, EventBegin)
			cancel()
			<-gone
			got := await(t, log, tt.want)
			if (got.Tokens == 40) != (tt.want == EventEnd) {
				t.Errorf("%s after %d tokens", tt.want, got.Tokens)
			}
		})
	}
}

// With one slot the second request waits for the first.
func TestSlots(t *testing.T) {
	e := Start(t, "-np", "1", "--tokens", "30", "--token-delay", "10ms")
	began := time.Now()
	done := make(chan struct{})
	for range 2 {
		go func() {
			defer func() { done <- struct{}{} }()
			resp, err := http.Post(e.URL+"/v1/completions", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}()
	}
	<-done
	<-done
	if d := time.Since(began); d < 600*time.Millisecond {
		t.Errorf("both done after %s, want 600ms or more", d)
	}
}

func TestEcho(t *testing.T) {
	e := Start(t, "--echo")
	_, body := call(t, e.URL+"/v1/chat/completions?a=b", strings.Repeat("x", 5000))
	var got Echo
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Pid != e.Cmd.Process.Pid || got.Path != "/v1/chat/completions?a=b" || got.BodySize != 5000 || got.Length != 5000 || len(got.Body) != 1024 {
		t.Errorf("got %+v", got)
	}
}

func TestEnds(t *testing.T) {
	taken := Start(t)
	port := taken.URL[strings.LastIndex(taken.URL, ":")+1:]
	tests := []struct {
		name   string
		flags  []string
		signal int // how many SIGTERMs it gets
		post   bool
		want   string // as os/exec says it
		stderr string
	}{
		{"port taken", []string{"--port", port}, 0, false, "exit status 1", "couldn't bind HTTP server socket"},
		{"exits at once", []string{"--exit-code", "3", "--stderr", "no GPU", "--stderr", "bye"}, 0, false, "exit status 3", "no GPU\nbye\n"},
		{"exits later", []string{"--port", "0", "--exit-code", "4", "--exit-after", "50ms"}, 0, false, "exit status 4", "listening"},
		{"unknown flag", []string{"--nonsense"}, 0, false, "exit status 1", "nonsense"},
		{"lenient", []string{"--nonsense", "1", "--lenient", "--exit-code", "5"}, 0, false, "exit status 5", ""},
		{"no model", []string{"-m", "/does/not/exist.gguf"}, 0, false, "exit status 1", "exiting due to model loading error"},
		{"term", []string{"--port", "0"}, 1, false, "<nil>", "listening"},
		{"hang", []string{"--hang"}, 1, false, "<nil>", ""},
		{"ignores the first term", []string{"--port", "0", "--ignore-term", "1"}, 2, false, "<nil>", "listening"},
		{"ignores all", []string{"--port", "0", "--ignore-term", "-1", "--max-life", "2s"}, 2, false, "exit status 1", "still here after 2s"},
		{"dies on a request", []string{"--port", "0", "--die-on-request"}, 0, true, "signal: killed", "listening"},
		{"dies mid-stream", []string{"--port", "0", "--die-after-tokens", "3"}, 0, true, "signal: killed", "listening"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "events")
			argv := Command(append(tt.flags, "--events", log)...)
			cmd := exec.Command(argv[0], argv[1:]...)
			var stderr bytes.Buffer
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill() //nolint:errcheck // it has ended unless the test failed
			lines := bufio.NewScanner(io.TeeReader(pipe, &stderr))
			if tt.post {
				for lines.Scan() {
					if _, url, ok := strings.Cut(lines.Text(), "listening on "); ok {
						resp, err := http.Post(url+"/v1/completions", "", strings.NewReader(`{"stream":true}`))
						if err == nil {
							b, _ := io.ReadAll(resp.Body)
							resp.Body.Close()
							if got := strings.Count(string(b), "data: "); got != 3 {
								t.Errorf("got %d tokens, want 3", got)
							}
						}
						break
					}
				}
			}
			for i := range tt.signal {
				await(t, log, EventStart)
				if i == 0 && tt.stderr == "listening" {
					await(t, log, EventReady)
				}
				if i > 0 { // signals that come together are one
					awaitNth(t, log, EventTerm, i)
				}
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
			for lines.Scan() {
			}
			if err := cmd.Wait(); errString(err) != tt.want {
				t.Errorf("got %s, want %s", errString(err), tt.want)
			}
			if !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("stderr %q does not contain %q", stderr.String(), tt.stderr)
			}
		})
	}
}

func errString(err error) string {
	if err == nil {
		return "<nil>"
	}
	return err.Error()
}

// The daemon serves on after the process we started has exited.
func TestDaemonize(t *testing.T) {
	log := filepath.Join(t.TempDir(), "events")
	argv := Command("--port", "0", "--daemonize", "--events", log, "--max-life", "5s")
	out, err := os.Create(filepath.Join(t.TempDir(), "out")) // a pipe would keep Run waiting for the daemon
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	e := await(t, log, EventReady)
	p, err := os.FindProcess(e.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill() //nolint:errcheck // it has ended unless the test failed
	if e.Pid == cmd.Process.Pid {
		t.Error("the process that serves is the one that exited")
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon is gone: %v", err)
	}
	await(t, log, EventStop)
}

// The child outlives its parent and holds the pipe open.
func TestChild(t *testing.T) {
	log := filepath.Join(t.TempDir(), "events")
	e := Start(t, "--child", "--events", log)
	pid := await(t, log, EventChild).Child
	child, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Kill() //nolint:errcheck // it has ended unless the test failed
	_ = e.Cmd.Process.Kill()
	_, _ = e.Cmd.Process.Wait()
	if err := child.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the child is gone: %v", err)
	}
}

// A test binary poses as llama-server by its environment alone.
func TestEnvironment(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "--exit-code", "7")
	cmd.Env = append(os.Environ(), EnvRun+"=1", EnvArgs+"=--stderr hello")
	out, err := cmd.CombinedOutput()
	if errString(err) != "exit status 7" || string(out) != "hello\n" {
		t.Errorf("got %v, %q; want status 7 and hello", err, out)
	}
}

func TestBinary(t *testing.T) {
	cmd := exec.Command(Binary(t), "--exit-code", "9")
	if err := cmd.Run(); errString(err) != "exit status 9" {
		t.Errorf("got %v, want status 9", err)
	}
}
