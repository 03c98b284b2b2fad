package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come; reaching it is a failure.
const patience = 10 * time.Second

// fake is a guest of the test's own, on the other ends of the pipes.
type fake struct {
	t    *testing.T
	host *Host
	in   *bufio.Reader // what the host sends
	out  io.WriteCloser
	url  string

	mu  sync.Mutex
	log []string
}

const readyJSON = `{"slots":2,"context":512,"plugin":"assistant","llama_commit":"abc"}`

// start starts a host and its guest, which has been configured.
func start(t *testing.T) *fake {
	t.Helper()
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	g := &fake{t: t, in: bufio.NewReader(inRead), out: outWrite}
	g.host = Start(inWrite, outRead, []byte(`{"threads":1}`), func(line string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.log = append(g.log, line)
	})
	server := httptest.NewServer(g.host)
	g.url = server.URL
	t.Cleanup(func() {
		g.host.Close()
		outWrite.Close()
		g.await(g.host.Done(), "end")
		server.Close()
		inRead.Close()
	})
	if f := g.next(); f.Kind != Configure || string(f.Payload) != `{"threads":1}` {
		t.Fatalf("first came %c %q", f.Kind, f.Payload)
	}
	return g
}

func (g *fake) await(c <-chan struct{}, what string) {
	g.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		g.t.Fatalf("no %s in %v", what, patience)
	}
}

func (g *fake) next() Frame {
	g.t.Helper()
	f, err := Read(g.in, func(line string) { g.t.Errorf("the host sent %q", line) })
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

func (g *fake) send(kind byte, stream uint32, payload string) {
	g.t.Helper()
	if err := Write(g.out, Frame{kind, stream, []byte(payload)}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *fake) ready() {
	g.t.Helper()
	g.send(Ready, 0, readyJSON)
	g.await(g.host.Ready(), "readiness")
}

// ask sends a request, and returns the answer once its head is there.
func (g *fake) ask(ctx context.Context, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(r)
}

func TestAnswers(t *testing.T) {
	g := start(t)
	if resp, err := g.ask(t.Context(), "{}"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("before it is ready: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	g.ready()
	if got := g.host.Info(); got != (Info{Slots: 2, Context: 512, Plugin: "assistant", Commit: "abc"}) {
		t.Errorf("info %+v", got)
	}

	var wait sync.WaitGroup
	answers := make([]string, 2)
	for i := range answers {
		wait.Go(func() {
			resp, err := g.ask(t.Context(), fmt.Sprintf(`{"n":%d}`, i))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			answers[i] = fmt.Sprint(resp.StatusCode, resp.Header.Get("Content-Type"), string(b), err)
		})
	}
	// Two at a time, their frames mixed, and the guest's own log between them.
	first, second := g.next(), g.next()
	g.send(Head, second.Stream, "400 application/json")
	_, _ = io.WriteString(g.out, "llama: loaded ...")
	g.send(Head, first.Stream, "200 text/event-stream")
	g.send(Data, first.Stream, "data: ")
	_, _ = io.WriteString(g.out, " done\nanother line\n")
	g.send(Data, second.Stream, `{"error":1}`)
	g.send(End, second.Stream, "")
	g.send(Data, first.Stream, "a\n\n")
	g.send(End, first.Stream, "")
	wait.Wait()
	for i, want := range []string{"200text/event-streamdata: a\n\n<nil>", `400application/json{"error":1}<nil>`} {
		if body := fmt.Sprintf("/v1/chat/completions\n{\"n\":%d}", i); !slices.ContainsFunc([]Frame{first, second}, func(f Frame) bool { return string(f.Payload) == body }) {
			t.Errorf("the guest did not get %q", body)
		}
		if !slices.Contains(answers, want) {
			t.Errorf("answers %q, want %q", answers, want)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if got := strings.Join(g.log, "|"); got != "llama: loaded ...| done|another line" {
		t.Errorf("log %q", got)
	}
}

func TestTokensLeaveAtOnce(t *testing.T) {
	g := start(t)
	g.ready()
	begun, body := make(chan struct{}), make(chan string)
	go func() {
		defer close(body)
		resp, err := g.ask(t.Context(), "{}")
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		close(begun)
		for {
			b := make([]byte, 100)
			n, err := resp.Body.Read(b)
			body <- string(b[:n])
			if err != nil {
				return
			}
		}
	}()
	id := g.next().Stream
	g.send(Head, id, "200 text/event-stream")
	g.await(begun, "head alone")
	for range 20 {
		g.send(Data, id, "data: a\n\n")
		if got := <-body; got != "data: a\n\n" {
			t.Fatalf("%q", got)
		}
	}
	g.send(End, id, "")
	if got := <-body; got != "" {
		t.Errorf("after the last: %q", got)
	}
}

func TestClientLeaves(t *testing.T) {
	for _, begun := range []bool{false, true} {
		g := start(t)
		g.ready()
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			resp, err := g.ask(ctx, "{}")
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			left <- err
		}()
		id := g.next().Stream
		if begun {
			g.send(Head, id, "200 text/event-stream")
			g.send(Data, id, "data: a\n\n")
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client saw %v", err)
		}
		if f := g.next(); f.Kind != Cancel || f.Stream != id {
			t.Errorf("the guest was told %c of stream %d, not of %d", f.Kind, f.Stream, id)
		}
		g.send(Data, id, "data: b\n\n") // what was on its way
		g.send(End, id, "")
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := g.ask(t.Context(), "{}"); err != nil {
				t.Error(err)
			} else {
				resp.Body.Close()
			}
		}()
		next := g.next().Stream
		if next == id {
			t.Error("a number was used again")
		}
		g.send(Head, next, "200 application/json")
		g.send(End, next, "")
		<-done
	}
}

func TestGuestDies(t *testing.T) {
	for _, sent := range []string{"", "200 text/event-stream"} {
		g := start(t)
		g.ready()
		got := make(chan error)
		go func() {
			resp, err := g.ask(t.Context(), "{}")
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			got <- err
		}()
		id := g.next().Stream
		if sent != "" {
			g.send(Head, id, sent)
			g.send(Data, id, "data: a\n\n")
		}
		g.out.Close()
		if err := <-got; err == nil {
			t.Errorf("after %q: an answer that broke off looked whole", sent)
		}
		g.await(g.host.Done(), "end")
	}
}

func TestFailsToStart(t *testing.T) {
	g := start(t)
	g.send(Failed, 0, "no such graph")
	g.await(g.host.Done(), "end")
	if err := g.host.Err(); err == nil || err.Error() != "no such graph" {
		t.Errorf("error %v", err)
	}
}

func TestNonsenseEndsIt(t *testing.T) {
	for name, sent := range map[string]string{
		"unknown kind":   "\x00Z\x00\x00\x00\x00\x00\x00\x00\x00",
		"too long":       "\x00D\x00\x00\x00\x00\xff\xff\xff\xff",
		"no readiness":   "\x00R\x00\x00\x00\x00\x02\x00\x00\x00{}",
		"no JSON at all": "\x00R\x00\x00\x00\x00\x01\x00\x00\x00x",
	} {
		g := start(t)
		_, _ = io.WriteString(g.out, sent)
		g.await(g.host.Done(), "end")
		if err := g.host.Err(); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowClientHoldsUpNobody: what one does not read is kept while others are answered.
func TestSlowClientHoldsUpNobody(t *testing.T) {
	g := start(t)
	g.ready()
	go func() {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}") // and never reads
	}()
	slow := g.next().Stream
	g.send(Head, slow, "200 text/event-stream")
	for range 100 {
		g.send(Data, slow, strings.Repeat("x", 100_000))
	}
	got := make(chan error)
	go func() {
		resp, err := g.ask(t.Context(), "{}")
		if err == nil {
			resp.Body.Close()
		}
		got <- err
	}()
	id := g.next().Stream
	g.send(Head, id, "200 application/json")
	g.send(End, id, "")
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func FuzzFrames(f *testing.F) {
	var seed bytes.Buffer
	_ = Write(&seed, Frame{Head, 1, []byte("200 application/json")})
	f.Add(append([]byte("log\nmore"), seed.Bytes()...))
	f.Add([]byte("\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var again bytes.Buffer
		for {
			fr, err := Read(r, func(line string) {
				if len(line) > maxLine || strings.ContainsAny(line, "\n\x00") {
					t.Errorf("line %q", line)
				}
			})
			if err != nil {
				break
			}
			again.Reset()
			if err := Write(&again, fr); err != nil {
				t.Fatal(err)
			}
			if back, err := Read(bufio.NewReader(&again), nil); err != nil || back.Kind != fr.Kind || back.Stream != fr.Stream || !bytes.Equal(back.Payload, fr.Payload) {
				t.Errorf("%+v became %+v, %v", fr, back, err)
			}
		}
	})
}
