package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"assistant/internal/guest"
)

// posesAsWasmEdge reports whether the command line is one of WasmEdge's, to run a guest with models.
func posesAsWasmEdge(args []string) bool { return slices.Contains(args, "--nn-preload") }

// serveGuest answers as the guest in WasmEdge does: by frames on stdin and stdout instead of HTTP. It returns only with an error,
// io.EOF at the end of stdin.
func serveGuest(o Options, events *eventLog) error {
	in := bufio.NewReader(os.Stdin)
	first, err := guest.Read(in, nil)
	if err != nil {
		return err
	}
	var configuration struct {
		Chat *struct{ Parallel, Context int }
	}
	if err := json.Unmarshal(first.Payload, &configuration); err != nil || first.Kind != guest.Configure {
		return errors.Join(errors.New("not configured"), err)
	}
	o.Slots = 1
	if c := configuration.Chat; c != nil {
		o.Slots, o.Ctx = max(1, c.Parallel), c.Context
	}
	g := &guestServer{server: newServer(o, events), cancels: map[uint32]context.CancelFunc{}}
	fmt.Println("a line of WasmEdge's on stdout")
	if err := g.server.load(); err != nil {
		g.send(guest.Failed, 0, []byte(err.Error()))
		return err
	}
	g.server.setReady()
	events.add(Event{Name: EventReady})
	g.send(guest.Ready, 0, fmt.Appendf(nil, `{"slots":%d,"context":%d,"plugin":"fake"}`, o.Slots, o.Ctx))
	for {
		f, err := guest.Read(in, nil)
		if err != nil {
			return err
		}
		g.take(f)
	}
}

type guestServer struct {
	server *server

	mu      sync.Mutex
	cancels map[uint32]context.CancelFunc
}

func (g *guestServer) send(kind byte, stream uint32, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = guest.Write(os.Stdout, guest.Frame{Kind: kind, Stream: stream, Payload: payload})
}

func (g *guestServer) take(f guest.Frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.Kind == guest.Cancel {
		if cancel := g.cancels[f.Stream]; cancel != nil {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancels[f.Stream] = cancel
	go g.answer(ctx, f)
}

// answer has the fake's HTTP server answer, and sends that in frames.
func (g *guestServer) answer(ctx context.Context, f guest.Frame) {
	path, body, _ := bytes.Cut(f.Payload, []byte("\n"))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, string(path), bytes.NewReader(body))
	if err == nil {
		w := &frameWriter{to: g, stream: f.Stream, header: http.Header{}}
		g.server.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK)
	}
	g.mu.Lock()
	g.cancels[f.Stream]()
	delete(g.cancels, f.Stream)
	g.mu.Unlock()
	g.send(guest.End, f.Stream, nil)
}

// frameWriter is a response that leaves in frames.
type frameWriter struct {
	to     *guestServer
	stream uint32
	header http.Header
	begun  bool
}

func (w *frameWriter) Header() http.Header { return w.header }
func (w *frameWriter) Flush()              {}

func (w *frameWriter) WriteHeader(status int) {
	if !w.begun {
		w.begun = true
		kind, _, _ := strings.Cut(w.header.Get("Content-Type"), ";")
		w.to.send(guest.Head, w.stream, fmt.Appendf(nil, "%d %s", status, kind))
	}
}

func (w *frameWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.to.send(guest.Data, w.stream, b)
	return len(b), nil
}
