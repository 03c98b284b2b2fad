package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	os.Exit(m.Run())
}

// answering serves each connection the given bytes once, in the given writes.
func answering(t *testing.T, writes ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1<<10))
			for _, w := range writes {
				_, _ = conn.Write([]byte(w))
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestClientReads(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name   string
		writes []string
		status int
		events int
		err    string
	}{
		{"plain", []string{ok + "content-length: 5\r\n\r\nhello"}, 200, 0, ""},
		{"empty", []string{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"}, 503, 0, ""},
		{"events", []string{ok + "Transfer-Encoding: chunked\r\n\r\n8\r\ndata: a\n\r\n1\r\n\n\r\n12\r\ndata: b\n\ndata: c\n\n\r\n0\r\n\r\n"}, 200, 3, ""},
		{"one chunk in two writes", []string{ok + "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n", "\n\r\n0\r\n\r\n"}, 200, 1, ""},
		{"cut in a chunk", []string{ok + "Transfer-Encoding: chunked\r\n\r\n9\r\ndata"}, 200, 0, "EOF"},
		{"cut between chunks", []string{ok + "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n"}, 200, 0, "EOF"},
		{"cut body", []string{ok + "Content-Length: 9\r\n\r\ndata"}, 200, 0, "EOF"},
		{"not HTTP", []string{"hello world, what\r\n"}, 0, 0, "invalid syntax"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client{addr: answering(t, tt.writes...), timeout: 5 * time.Second}
			defer c.close()
			got, err := c.do(get(c.addr, "/"))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.status != tt.status || got.events != tt.events {
				t.Errorf("got status %d and %d events, want %d and %d", got.status, got.events, tt.status, tt.events)
			}
		})
	}
}

func TestPostHasItsSize(t *testing.T) {
	_, body, _ := strings.Cut(string(post("h", "m1", 1<<10, answer)), "\r\n\r\n")
	if len(body) != 1<<10 {
		t.Errorf("got a body of %d bytes, want 1024: %s", len(body), body)
	}
}

// A load counts what the engine has sent, and an answer that is not as it must be is a failure.
func TestLoad(t *testing.T) {
	e := enginetest.Start(t)
	to := target{addr: strings.TrimPrefix(e.URL, "http://")}
	stream := load{request: post(to.addr, "m", 1<<10, `"stream":true,"max_tokens":200`), clients: 4, events: 203}
	m, err := stream.run(t.Context(), to, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if m.requests == 0 || m.failed != 0 || m.events != 203*m.requests || len(m.first) != m.requests {
		t.Errorf("got %d requests, %d failures and %d events", m.requests, m.failed, m.events)
	}
	stream.events = 204
	m, err = stream.run(t.Context(), to, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if m.requests != 0 || m.failed == 0 || !strings.Contains(m.failure.Error(), "203 events, want 200 and 204") {
		t.Errorf("got %d requests and %d failures, of which the first is %v, want an error about the events", m.requests, m.failed, m.failure)
	}
}

func TestForwarded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "events")
	lines := `{"event":"start","time":1,"pid":1}
{"event":"ready","time":1000,"pid":1}
{"event":"ready","time":2000,"pid":2}
{"event":"begin","time":5000,"pid":2}
{"event":"begin","time":1500,"pid":1}
{"event":"begin","time":9000,"pid":1}
`
	if err := os.WriteFile(log, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	events, err := enginetest.ReadEvents(log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(quantiles{500, 3000}, forwarded(events)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestGoals(t *testing.T) {
	r := newReport(3, 1)
	less := r.row("cpu", "s", low).atMost(0.5, caddy).atMost(0.7, caddy).atMost(0.1, "nobody")
	more := r.row("rate", "req/s", high).atLeast(2, caddy).floor(201)
	limit := r.row("memory", "KiB", low).limit(64).always(64)
	open := r.row("not measured", "ms", low).limit(1).always(1)
	for i := range 3 {
		less.add(caddy, 10+float64(i))
		less.add(ours, 6.5)
		more.add(caddy, 100)
		more.add(ours, 200)
		limit.add(ours, float64(i)*64) // a median of 64
	}
	var out strings.Builder
	r.print(&out)
	verdicts := func(w *row) (all []string) {
		for _, g := range w.Goals {
			all = append(all, g.String())
		}
		return all
	}
	for _, tt := range []struct {
		row  *row
		want []string
	}{
		{less, []string{"≤ 0.5 × caddy MISS", "≤ 0.7 × caddy PASS"}}, // and nobody is not measured
		{more, []string{"≥ 2 × caddy PASS", "≥ 201 req/s MISS"}},
		{limit, []string{"≤ 64 KiB PASS", "never > 64 KiB MISS"}},
		{open, []string{"≤ 1 ms not measured", "never > 1 ms not measured"}},
	} {
		if diff := cmp.Diff(tt.want, verdicts(tt.row)); diff != "" {
			t.Errorf("%s: want (-), got (+):\n%s", tt.row.Name, diff)
		}
	}
	for _, want := range []string{"6.500 (6.500)  0.59", "≤ 0.5 × caddy MISS; ≤ 0.7 × caddy PASS", "64 (0)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
