package caddymodule

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/internal/enginetest"
	"assistant/modeldir"
)

// bound is how long anything here may take on a busy machine before it counts as hung.
const bound = 30 * time.Second

// site is a server in this process, with a directory of models of its own.
type site struct {
	tb     testing.TB
	url    string
	models string // directory of model files
	events string // where its engines note what happens to them
	engine string // the fake engine's program
	root   string // everything that is written
	port   string
	listen string // "" = 127.0.0.1:port

	// Parts of its configuration; a test changes them and loads anew.
	app     map[string]any
	handler map[string]any
	admin   map[string]any
	more    map[string]any // apps beside ours and http
	server  map[string]any // more of the HTTP server
	before  []any          // handlers before ours
}

// newSite makes a site that does not run yet. When the test ends, no engine of it may be left.
func newSite(tb testing.TB) *site {
	tb.Helper()
	root := tb.TempDir()
	s := &site{
		tb: tb, root: root, models: filepath.Join(root, "models"), events: filepath.Join(root, "events"),
		port: freePort(tb), engine: enginetest.Binary(tb),
		handler: map[string]any{"handler": "assistant"},
		admin:   map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
	}
	s.url = "http://127.0.0.1:" + s.port
	s.app = map[string]any{"config_dir": s.models, "state_dir": filepath.Join(root, "state"), "max_load": 0}
	if err := os.Mkdir(s.models, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.end)
	return s
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// start loads the configuration for the first time.
func (s *site) start() *site {
	s.tb.Helper()
	s.load()
	return s
}

// load loads the configuration, which must work.
func (s *site) load() {
	s.tb.Helper()
	if err := s.tryLoad(); err != nil {
		s.tb.Fatalf("load the configuration: %v", err)
	}
}

func (s *site) tryLoad() error { return caddy.Load(s.json(), true) }

// json is the configuration.
func (s *site) json() []byte {
	server := map[string]any{
		"listen":          []string{cmp.Or(s.listen, "127.0.0.1:"+s.port)},
		"automatic_https": map[string]any{"disable": true},
		"routes": []any{map[string]any{"handle": append(slices.Clone(s.before),
			s.handler,
			map[string]any{"handler": "static_response", "status_code": 299, "body": "the next handler"},
		)}},
	}
	maps.Copy(server, s.server)
	apps := map[string]any{
		"http": map[string]any{"grace_period": "20s", "servers": map[string]any{"site": server}},
	}
	if s.app != nil {
		apps["assistant"] = s.app
	}
	maps.Copy(apps, s.more)
	b, err := json.Marshal(map[string]any{
		"admin":   s.admin,
		"storage": map[string]any{"module": "file_system", "root": filepath.Join(s.root, "storage")},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{
			"writer": map[string]any{"output": "file", "filename": s.log()}, "level": "DEBUG",
		}}},
		"apps": apps,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return b
}

func (s *site) log() string { return filepath.Join(s.root, "log") }

// end stops the server and sees that no engine is left.
func (s *site) end() {
	if err := caddy.Stop(); err != nil {
		s.tb.Errorf("stop: %v", err)
	}
	for _, pid := range s.started() {
		if !within(bound, func() bool { return !alive(pid) }) {
			s.tb.Errorf("engine %d is alive after the server's end", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if !within(bound, func() bool { return len(guardians()) == 0 }) {
		s.tb.Error("the guardian is still there")
	}
	if s.tb.Failed() {
		log, _ := os.ReadFile(s.log())
		const longest = 6000
		s.tb.Logf("log:\n%s", log[max(0, len(log)-longest):])
	}
}

// guardians lists the guardian processes of this one. A runtime lets its own go when it has written its last file.
func guardians() (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid())) // the pattern is a good one
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(b)) {
			cmd, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if pid, err := strconv.Atoi(field); err == nil && strings.HasPrefix(string(cmd), "assistant-guardian\x00") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// within reports whether ok becomes true before limit is over.
func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// eventually waits for something that must come.
func (s *site) eventually(what string, ok func() bool) {
	s.tb.Helper()
	if !within(bound, ok) {
		s.tb.Fatalf("not within %v: %s", bound, what)
	}
}

// happened returns what engines noted under a name.
func (s *site) happened(event string) []enginetest.Event {
	s.tb.Helper()
	all, err := enginetest.ReadEvents(s.events)
	if err != nil {
		s.tb.Fatal(err)
	}
	var some []enginetest.Event
	for _, e := range all {
		if e.Name == event {
			some = append(some, e)
		}
	}
	return some
}

// started returns the pids of all engines ever started.
func (s *site) started() []int {
	var pids []int
	for _, e := range s.happened(enginetest.EventStart) {
		pids = append(pids, e.Pid)
	}
	return pids
}

// model writes the file of a model that runs the fake engine with the given flags. more is put into the file as it is.
func (s *site) model(name, more string, flags ...string) {
	s.tb.Helper()
	argv := append([]string{s.engine, "--port", "{{port}}", "--alias", name, "--events", s.events}, flags...)
	quoted, err := json.Marshal(argv) // JSON's strings are TOML's
	if err != nil {
		s.tb.Fatal(err)
	}
	s.file(name, fmt.Sprintf("engine = \"command\"\ncommand = %s\nready_path = \"/health\"\n%s\n", quoted, more))
}

// file writes a model file as editors do.
func (s *site) file(name, text string) {
	s.tb.Helper()
	path := filepath.Join(s.models, name+".toml")
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.tb.Fatal(err)
	}
}

// newClient makes a new connection for each request: Caddy closes idle ones at a reload.
func newClient() *http.Client {
	return &http.Client{Timeout: bound, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
}

var visitor = newClient()

// answered is a response with its whole body.
type answered struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// pid is the engine that answered.
func (a answered) pid() int {
	pid, _ := strconv.Atoi(a.header.Get(enginetest.PidHeader))
	return pid
}

// apiError decodes an OpenAI error.
func (a answered) apiError(tb testing.TB) apiError {
	tb.Helper()
	var e struct {
		Error apiError `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		tb.Fatalf("no error object: %v: %q", err, a.body)
	}
	return e.Error
}

type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func do(ctx context.Context, method, url, body string, header ...string) (answered, error) {
	var r io.Reader = http.NoBody
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return answered{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = cmp.Or(req.Header.Get("Host"), req.Host)
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := visitor.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answered{res.StatusCode, res.Header, string(b), err}, nil
}

// persist is do as the official SDKs do it: it tries again when the connection broke without an answer. Right after a
// reload, failed or not, Caddy's listeners drop connections whose request no handler has seen.
func persist(ctx context.Context, method, url, body string, header ...string) (a answered, err error) {
	for range 5 {
		if a, err = do(ctx, method, url, body, header...); err == nil {
			break
		}
	}
	return a, err
}

// ask sends a request that must be answered, however.
func (s *site) ask(method, path, body string, header ...string) answered {
	s.tb.Helper()
	a, err := persist(s.tb.Context(), method, s.url+path, body, header...)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *site) get(path string) answered {
	s.tb.Helper()
	return s.ask(http.MethodGet, path, "")
}

const chatPath = "/v1/chat/completions"

// question is a chat request of few tokens.
func question(model string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi"}],"max_tokens":3}`, model)
}

// chat asks a model something that it must answer, and returns the engine's pid.
func (s *site) chat(model string) int {
	s.tb.Helper()
	a := s.ask(http.MethodPost, chatPath, question(model))
	if a.status != http.StatusOK || a.err != nil || a.pid() == 0 {
		s.tb.Fatalf("chat with %s: status %d, %v: %s", model, a.status, a.err, a.body)
	}
	return a.pid()
}

// stream is an answer that is being streamed.
type stream struct {
	tb  testing.TB
	pid int
	res *http.Response
	buf *bufio.Reader
}

// stream begins a streamed chat and returns when its first token is there.
func (s *site) stream(model string) *stream {
	s.tb.Helper()
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[]}`, model)
	req, err := http.NewRequestWithContext(s.tb.Context(), http.MethodPost, s.url+chatPath, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := visitor.Do(req)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { res.Body.Close() })
	st := &stream{tb: s.tb, res: res, buf: bufio.NewReader(res.Body)}
	st.pid, _ = strconv.Atoi(res.Header.Get(enginetest.PidHeader))
	if data, ok := st.next(); !ok || !strings.Contains(data, "choices") {
		s.tb.Fatalf("stream of %s: status %d, begins with %q", model, res.StatusCode, data)
	}
	return st
}

// next returns the data of the next event; false at the end.
func (st *stream) next() (string, bool) {
	for {
		line, err := st.buf.ReadString('\n')
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSuffix(data, "\n"), true
		}
		if err != nil {
			return err.Error(), false
		}
	}
}

// rest returns the data of all events to come, and whether the answer ended properly.
func (st *stream) rest() (data []string, proper bool) {
	for {
		d, ok := st.next()
		if !ok {
			return data, d == io.EOF.Error()
		}
		data = append(data, d)
	}
}

// completes reads the stream to its end, which must be [DONE].
func (st *stream) completes() {
	st.tb.Helper()
	data, proper := st.rest()
	if last := data[max(0, len(data)-1):]; !proper || len(last) == 0 || last[0] != "[DONE]" {
		st.tb.Errorf("the stream ended properly: %v, with %q; want [DONE]", proper, last)
	}
}

// current returns the runtime of the server that runs.
func current(tb testing.TB) *runtime {
	tb.Helper()
	var got *runtime
	if err := withRuntime(func(rt *runtime) error { got = rt; return nil }); err != nil {
		tb.Fatal(err)
	}
	return got
}

// card returns a model as GET /v1/models shows it.
func (s *site) card(id string) (card modelCard, ok bool) {
	s.tb.Helper()
	for _, c := range s.list() {
		if c.ID == id {
			return c, true
		}
	}
	return modelCard{}, false
}

type modelCard struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	OwnedBy string   `json:"owned_by"`
	Aliases []string `json:"aliases"`
	Status  struct {
		Value  string `json:"value"`
		Failed bool   `json:"failed"`
		Error  string `json:"error"`
	} `json:"status"`
}

func (s *site) list() []modelCard {
	s.tb.Helper()
	a := s.get("/v1/models")
	var list struct {
		Object string      `json:"object"`
		Data   []modelCard `json:"data"`
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != http.StatusOK || list.Object != "list" {
		s.tb.Fatalf("GET /v1/models: status %d, %v: %s", a.status, err, a.body)
	}
	return list.Data
}

// dispatch sends raw bytes, which Go's client would not, and returns what came back.
func (s *site) dispatch(raw string) answered {
	s.tb.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(bound))
	if _, err := io.WriteString(conn, raw); err != nil {
		s.tb.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answered{res.StatusCode, res.Header, string(b), err}
}

// engineFree reports whether nothing holds a lease on an instance of the model.
func engineFree(tb testing.TB, key string) bool {
	tb.Helper()
	for _, in := range current(tb).act.Instances() {
		if in.Key == key && in.Leases > 0 {
			return false
		}
	}
	return true
}

// resolves reports whether the catalog in force has the name.
func resolves(tb testing.TB, name string) bool {
	tb.Helper()
	_, ok := current(tb).catalog.Load().Resolve(name, modeldir.Chat)
	return ok
}

// indent makes JSON fit to be read and compared.
func indent(tb testing.TB, b []byte) string {
	tb.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "\t"); err != nil {
		tb.Fatalf("%v: %s", err, b)
	}
	return strings.TrimSpace(out.String())
}
