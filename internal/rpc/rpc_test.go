package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/structpb"

	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/openai"
	pb "assistant/internal/rpc/assistantv1"
	svc "assistant/internal/rpc/assistantv1/assistantv1connect"
)

// gate lets those in who say that they are admins.
type gate struct {
	mu    sync.Mutex
	lines []string
}

func (g *gate) Identify(r *http.Request) (*Caller, error) {
	if r.Header.Get("Authorization") == "" {
		return nil, openai.InvalidKey("no API key")
	}
	return &Caller{Key: &keys.Key{Name: "k"}, Admin: r.Header.Get("Authorization") == "admin", Request: r}, nil
}

func (g *gate) Audit(c *Caller, action, subject string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, fmt.Sprintf("%s %s %q %v", c.Key.Name, action, subject, err == nil))
}

// shelf is a Downloads that brings a byte whenever it is told to.
type shelf struct {
	mu      sync.Mutex
	status  hub.Status
	changed chan struct{}
}

func (s *shelf) set(state hub.State, done int64) (hub.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.State == hub.Cancelled {
		return hub.Status{}, fmt.Errorf("it is cancelled: %w", hub.ErrEnded)
	}
	s.status.State, s.status.Done = state, done
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
	return s.status, nil
}

func (s *shelf) Start(source string, o hub.StartOptions) (hub.Status, error) {
	if !strings.Contains(source, ":") {
		return hub.Status{}, errors.New("it is no source")
	}
	s.mu.Lock()
	s.status = hub.Status{ID: "1", Source: source, Name: o.As, Total: -1, Started: time.Unix(1, 0), Files: []hub.FileStatus{{Name: "f", Total: 10}}}
	s.mu.Unlock()
	return s.set(hub.Resolving, 0)
}

func (s *shelf) List() []hub.Status {
	st, _ := s.Get("1")
	return []hub.Status{st}
}

func (s *shelf) Get(id string) (hub.Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, id == s.status.ID
}

func (s *shelf) Watch(ctx context.Context, _ string) iter.Seq[hub.Status] {
	return func(yield func(hub.Status) bool) {
		for {
			s.mu.Lock()
			now, changed := s.status, s.changed
			s.mu.Unlock()
			if !yield(now) || now.State == hub.Completed || now.State == hub.Cancelled {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *shelf) Pause(string) (hub.Status, error)  { return s.set(hub.Paused, s.status.Done) }
func (s *shelf) Resume(string) (hub.Status, error) { return s.set(hub.Downloading, s.status.Done) }
func (s *shelf) Cancel(string) (hub.Status, error) { return s.set(hub.Cancelled, 0) }

// served is a server of the services, and a client of it.
type served struct {
	gate   *gate
	shelf  *shelf
	client *connect.Client
	ready  chan struct{}
	end    context.CancelFunc
}

// serve serves chats by a handler, and downloads. Nobody asks for anything else.
func serve(t *testing.T, chats http.HandlerFunc) *served {
	t.Helper()
	s := &served{gate: new(gate), shelf: new(shelf), ready: make(chan struct{})}
	serving, end := context.WithCancel(context.Background())
	s.end = end
	server := httptest.NewUnstartedServer(New(Services{
		Access: s.gate, Downloads: s.shelf, Chat: chats, Ready: s.ready, Serving: serving, MaxMessage: 1 << 20,
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		end()
		server.Close()
	})
	s.client = connect.NewClient(connecthttp.NewTransport(server.Client(), server.URL, connecthttp.WithGRPC()))
	return s
}

// as is a context of calls with that key.
func as(t *testing.T, key string) context.Context {
	ctx, info := connect.NewClientContext(t.Context())
	if key != "" {
		info.RequestHeader().Set("Authorization", key)
	}
	return ctx
}

// failed splits an error into what clients are told.
func failed(err error) (code connect.Code, reason, field string, retry time.Duration) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return 0, "", "", 0
	}
	for _, d := range e.Details() {
		m, err := connectproto.UnmarshalErrorDetail(d)
		if err != nil {
			return 0, err.Error(), "", 0
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			reason = m.Reason
		case *errdetails.BadRequest:
			field = m.FieldViolations[0].Field
		case *errdetails.RetryInfo:
			retry = m.RetryDelay.AsDuration()
		}
	}
	return e.Code(), reason, field, retry
}

func TestDownloads(t *testing.T) {
	s := serve(t, nil)
	c, admin := svc.NewDownloadServiceClient(s.client), as(t, "admin")
	if _, err := c.StartDownload(admin, &pb.StartDownloadRequest{}); !is(err, connect.CodeInvalidArgument, "source") {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := c.StartDownload(admin, &pb.StartDownloadRequest{Source: "x"}); !is(err, connect.CodeInvalidArgument, "source") {
		t.Errorf("of no source: %v", err)
	}
	begun, err := c.StartDownload(admin, &pb.StartDownloadRequest{Source: "hf:x/y", Name: "m"})
	if d := begun.GetDownload(); err != nil || d.Id != "1" || d.Name != "m" || d.TotalBytes != nil || d.Files[0].GetTotalBytes() != 10 || d.EndTime != nil {
		t.Fatalf("%v, %v", begun, err)
	}
	if all, err := c.ListDownloads(admin, &pb.ListDownloadsRequest{}); err != nil || len(all.Downloads) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	watch, err := c.WatchDownload(admin, &pb.WatchDownloadRequest{Id: "1"})
	if err != nil {
		t.Fatal(err)
	}
	see := func(want pb.DownloadState, done int64) {
		t.Helper()
		res, err := watch.Receive()
		if d := res.GetDownload(); err != nil || d.State != want || d.DoneBytes != done {
			t.Fatalf("%v, %v; want %v with %d", res, err, want, done)
		}
	}
	see(pb.DownloadState_DOWNLOAD_STATE_RESOLVING, 0)
	for _, next := range []struct {
		do    func() error
		state pb.DownloadState
		done  int64
	}{
		{func() error { _, err := s.shelf.set(hub.Downloading, 5); return err }, pb.DownloadState_DOWNLOAD_STATE_DOWNLOADING, 5},
		{func() error { _, err := c.PauseDownload(admin, &pb.PauseDownloadRequest{Id: "1"}); return err }, pb.DownloadState_DOWNLOAD_STATE_PAUSED, 5},
		{func() error { _, err := c.ResumeDownload(admin, &pb.ResumeDownloadRequest{Id: "1"}); return err }, pb.DownloadState_DOWNLOAD_STATE_DOWNLOADING, 5},
		{func() error { _, err := c.CancelDownload(admin, &pb.CancelDownloadRequest{Id: "1"}); return err }, pb.DownloadState_DOWNLOAD_STATE_CANCELLED, 0},
	} {
		if err := next.do(); err != nil {
			t.Fatal(err)
		}
		see(next.state, next.done)
	}
	if _, err := watch.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := c.PauseDownload(admin, &pb.PauseDownloadRequest{Id: "1"}); !is(err, connect.CodeFailedPrecondition, "") {
		t.Errorf("to pause what has ended: %v", err)
	}
	none, err := c.WatchDownload(admin, &pb.WatchDownloadRequest{Id: "2"})
	if err == nil {
		_, err = none.Receive()
	}
	if !is(err, connect.CodeNotFound, "") {
		t.Errorf("another: %v", err)
	}
}

// is reports whether an error has a code, and blames a field.
func is(err error, code connect.Code, field string) bool {
	gotCode, reason, gotField, _ := failed(err)
	return gotCode == code && gotField == field && reason != ""
}

// TestWhatIsNotReadingNeedsAdmin goes through all calls that there are: one that is added later needs admin as long as nobody has decided.
func TestWhatIsNotReadingNeedsAdmin(t *testing.T) {
	s := serve(t, nil)
	server := connect.NewServer()
	svc.RegisterModelServiceHandler(server, models{})
	svc.RegisterInstanceServiceHandler(server, instances{})
	svc.RegisterDownloadServiceHandler(server, downloads{})
	svc.RegisterChatServiceHandler(server, chat{})
	read := map[string]bool{}
	for _, p := range reading {
		read[p] = true
	}
	asked := 0
	for spec := range server.Specs() {
		asked++
		try := func(key string) connect.Code {
			stream, err := s.client.CallServerStream(as(t, key), spec, &pb.ListModelsRequest{})
			if err == nil {
				err = stream.Receive(&pb.ListModelsResponse{})
			}
			code, _, _, _ := failed(err)
			return code
		}
		if got := try(""); got != connect.CodeUnauthenticated {
			t.Errorf("%s without a key: %v", spec.Procedure, got)
		}
		if !read[spec.Procedure] {
			if got := try("reader"); got != connect.CodePermissionDenied {
				t.Errorf("%s without admin: %v", spec.Procedure, got)
			}
		}
		delete(read, spec.Procedure)
	}
	if asked != 17 || len(read) != 0 {
		t.Errorf("%d calls were tried; not there are %v", asked, read)
	}
}

func TestCallsAreAudited(t *testing.T) {
	s := serve(t, nil)
	c := svc.NewDownloadServiceClient(s.client)
	_, _ = c.StartDownload(as(t, "admin"), &pb.StartDownloadRequest{Source: "hf:x/y"})
	_, _ = c.StartDownload(as(t, "admin"), &pb.StartDownloadRequest{Source: "x"})
	_, _ = c.CancelDownload(as(t, "reader"), &pb.CancelDownloadRequest{Id: "1"})
	_, _ = c.ListDownloads(as(t, "admin"), &pb.ListDownloadsRequest{})
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	want := `k download "hf:x/y" true|k download "x" false|k cancel "" false`
	if got := strings.Join(s.gate.lines, "|"); got != want {
		t.Errorf("noted %s, want %s", got, want)
	}
}

// TestEndlessCallsEndWithTheServer: a reload is not to wait for them.
func TestEndlessCallsEndWithTheServer(t *testing.T) {
	s := serve(t, nil)
	c := svc.NewDownloadServiceClient(s.client)
	if _, err := c.StartDownload(as(t, "admin"), &pb.StartDownloadRequest{Source: "hf:x/y"}); err != nil {
		t.Fatal(err)
	}
	watch, err := c.WatchDownload(as(t, "admin"), &pb.WatchDownloadRequest{Id: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Receive(); err != nil {
		t.Fatal(err)
	}
	s.end()
	if _, err := watch.Receive(); !is(err, connect.CodeUnavailable, "") {
		t.Errorf("it ended with %v", err)
	}
}

// TestChatErrors: what HTTP clients are told is told in gRPC's words.
func TestChatErrors(t *testing.T) {
	const stream = "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
	begin := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, stream)
	}
	answer := func(e *openai.Error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { e.WriteTo(w) }
	}
	for name, c := range map[string]struct {
		serve         http.HandlerFunc
		pieces        int
		code          connect.Code
		reason, field string
		retry         time.Duration
	}{
		"no model": {answer(openai.ModelNotFound("m")), 0, connect.CodeNotFound, "model_not_found", "model", 0},
		"a limit":  {answer(openai.KeyLimit("so many", 7*time.Second)), 0, connect.CodeResourceExhausted, "rate_limit_exceeded", "", 7 * time.Second},
		"loading":  {answer(openai.Loading("m", 1500*time.Millisecond)), 0, connect.CodeUnavailable, "model_loading", "", 1500 * time.Millisecond},
		"failed":   {answer(openai.EngineFailed("m", "no file")), 0, connect.CodeInternal, "engine_failed", "", 0},
		"crashed":  {answer(openai.EngineCrashed("m")), 0, connect.CodeUnavailable, "engine_crashed", "", 0},
		"too slow": {answer(openai.TooSlow("m", "no token", "token_timeout", time.Second)), 0, connect.CodeDeadlineExceeded, "timeout", "", 0},
		"wrong":    {answer(openai.InvalidRequest("temperature", "no")), 0, connect.CodeInvalidArgument, "invalid_request_error", "temperature", 0},
		"in between": {func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			_, _ = w.Write(openai.StreamError(openai.ShuttingDown()))
		}, 1, connect.CodeUnavailable, "shutting_down", "", 0},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) { begin(w); panic(http.ErrAbortHandler) }, 1, connect.CodeUnavailable, "engine_crashed", "", 0},
		"cut":        {func(w http.ResponseWriter, _ *http.Request) { begin(w); _, _ = io.WriteString(w, "data: {\"id\"") }, 1, connect.CodeUnavailable, "engine_crashed", "", 0},
		"silence":    {func(http.ResponseWriter, *http.Request) {}, 0, connect.CodeUnavailable, "server_error", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.serve)
			to, err := svc.NewChatServiceClient(s.client).Chat(as(t, "reader"), &pb.ChatRequest{Model: "m", Messages: []*pb.ChatMessage{{Role: "user"}}})
			if err != nil {
				t.Fatal(err)
			}
			pieces := 0
			for {
				if _, err = to.Receive(); err != nil {
					break
				}
				pieces++
			}
			code, reason, field, retry := failed(err)
			if pieces != c.pieces || code != c.code || reason != c.reason || field != c.field || retry != c.retry {
				t.Errorf("%d pieces, then %v (%s, %q, %v)", pieces, err, reason, field, retry)
			}
		})
	}
}

// TestChatAsksAsTheCaller: the request has the call's parameters and the caller's headers, and none of gRPC.
func TestChatAsksAsTheCaller(t *testing.T) {
	var got map[string]any
	var header http.Header
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		if r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, ": loading\ndata: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\",\"tool_calls\":[{\"index\":1,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\n"+
			"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n")
	})
	extra := func(values map[string]any) *structpb.Struct {
		out, err := structpb.NewStruct(values)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ask := &pb.ChatRequest{
		Model: "m", MaxTokens: new(int32(7)), Temperature: new(0.0), Stop: []string{"x"}, Extra: extra(map[string]any{"seed": 5, "top_p": 0.5}),
		Messages: []*pb.ChatMessage{
			{Role: "user", Extra: extra(map[string]any{"content": []any{map[string]any{"type": "text", "text": "Hi"}}})},
			{Role: "tool", Content: "4", Extra: extra(map[string]any{"tool_call_id": "c"})},
		},
	}
	ctx := as(t, "reader")
	info, _ := connect.CallInfoForClientContext(ctx)
	info.RequestHeader().Set("X-Request-Id", "mine")
	to, err := svc.NewChatServiceClient(s.client).Chat(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	first, err := to.Receive()
	if err != nil || first.Reasoning != "hm" || len(first.ToolCalls) != 1 || first.ToolCalls[0].Index != 1 || first.ToolCalls[0].Arguments != "{" {
		t.Errorf("%v, %v", first, err)
	}
	if last, err := to.Receive(); err != nil || last.Usage.GetPromptTokens() != 3 {
		t.Errorf("%v, %v", last, err)
	}
	if _, err := to.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	text, _ := json.Marshal(got)
	const want = `{"max_tokens":7,"messages":[{"content":[{"text":"Hi","type":"text"}],"role":"user"},{"content":"4","role":"tool","tool_call_id":"c"}],` +
		`"model":"m","seed":5,"stop":["x"],"stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.5}`
	if string(text) != want {
		t.Errorf("asked %s\nwant  %s", text, want)
	}
	if header.Get("Content-Type") != "application/json" || header.Get("Authorization") != "reader" || header.Get("X-Request-Id") != "mine" {
		t.Errorf("headers %v", header)
	}
	for name := range header {
		if ofProtocol(name) {
			t.Errorf("the header %s is gRPC's", name)
		}
	}
}
