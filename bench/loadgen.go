package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// get is a GET request as it goes over the wire.
func get(addr, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr)
}

// post is a chat request for a model whose body has the given size, the
// conversation before the model as SDKs send it, then the members in extra.
func post(addr, model string, size int, extra string, header ...string) []byte {
	const head = `{"messages":[{"role":"user","content":"`
	tail := fmt.Sprintf(`"}],"model":%q,%s}`, model, extra)
	body := head + strings.Repeat("x", max(1, size-len(head)-len(tail))) + tail
	more := strings.Join(append(header, ""), "\r\n")
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		addr, more, len(body), body)
}

// client is one kept-alive HTTP/1.1 connection. It does no more than the
// measurement needs, so that what it costs hides little of what a router costs.
type client struct {
	addr    string
	timeout time.Duration // for one request; 0 = none
	conn    net.Conn
	r       *bufio.Reader
}

// reply is what came back.
type reply struct {
	status int
	events int           // of an SSE body
	first  time.Duration // from sending to the first byte of the body
	whole  time.Duration // from sending to its last
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// do sends a request and reads the whole answer. After an error the next
// request goes over a new connection.
func (c *client) do(request []byte) (reply, error) {
	r, err := c.try(request, nil)
	if err != nil {
		c.close()
	}
	return r, err
}

// try is do; started, if given, is called at the first byte of the body.
func (c *client) try(request []byte, started func()) (r reply, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.addr); err != nil {
			return r, err
		}
		c.r = bufio.NewReaderSize(c.conn, 16<<10)
	}
	if c.timeout > 0 {
		_ = c.conn.SetDeadline(time.Now().Add(c.timeout))
	}
	sent := time.Now()
	if _, err := c.conn.Write(request); err != nil {
		return r, err
	}
	status, length, last, err := c.head()
	if err != nil {
		return r, err
	}
	r.status = status
	body := bodyReader{r: c.r, begun: func() {
		r.first = time.Since(sent)
		if started != nil {
			started()
		}
	}}
	if err := body.read(length); err != nil {
		return r, err
	}
	r.whole, r.events = time.Since(sent), body.events
	if last {
		c.close()
	}
	return r, nil
}

// head reads the status line and the header. A length of -1 means chunked.
func (c *client) head() (status, length int, last bool, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, 0, false, err
	}
	if len(line) < 12 {
		return 0, 0, false, fmt.Errorf("not a status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, false, err
	}
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return status, length, last, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, 0, false, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length = -1
		case bytes.EqualFold(name, []byte("Connection")):
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
}

// bodyReader throws a body away and counts its events.
type bodyReader struct {
	r      *bufio.Reader
	begun  func()
	events int
	seen   bool
	ended  bool // the last byte was a line's end
}

func (b *bodyReader) read(length int) error {
	if length >= 0 {
		return b.skip(length)
	}
	for {
		line, err := b.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return err
		}
		if err := b.skip(int(size)); err != nil {
			return err
		}
		if line, err = b.r.ReadSlice('\n'); err != nil {
			return err
		}
		if len(bytes.TrimRight(line, "\r\n")) > 0 {
			return errors.New("a chunk is longer than it says, or there is a trailer")
		}
		if size == 0 {
			return nil
		}
	}
}

func (b *bodyReader) skip(n int) error {
	for n > 0 {
		if _, err := b.r.Peek(1); err != nil {
			return err
		}
		if !b.seen {
			b.seen = true
			b.begun()
		}
		p, err := b.r.Peek(min(n, b.r.Buffered()))
		if err != nil {
			return err
		}
		if b.ended && p[0] == '\n' { // an event's end is split
			b.events++
		}
		b.events += bytes.Count(p, []byte("\n\n"))
		b.ended = p[len(p)-1] == '\n' && !bytes.HasSuffix(p, []byte("\n\n"))
		n -= len(p)
		if _, err := b.r.Discard(len(p)); err != nil {
			return err
		}
	}
	return nil
}

// load is one measurement: so many clients, each sending the next request when
// the answer to the last is complete.
type load struct {
	request []byte
	clients int
	events  int // that each answer must have
}

type measured struct {
	requests int // answered as they must be
	failed   int
	failure  error // the first
	events   int
	seconds  float64
	cpu      float64   // seconds of the router
	whole    quantiles // of all requests
	first    quantiles
}

// run measures t for about d. Every client has sent one request before it begins.
// A request that fails is counted; it is an error only of those to whom it matters.
func (l load) run(ctx context.Context, t target, d time.Duration) (measured, error) {
	var warm, done sync.WaitGroup
	begin := make(chan struct{})
	of := make([]measured, l.clients)
	var end time.Time // written before begin is closed
	for i := range l.clients {
		warm.Add(1)
		done.Go(func() {
			c := client{addr: t.addr, timeout: 30 * time.Second}
			defer c.close()
			of[i].count(l.once(&c))
			of[i] = measured{failed: of[i].failed, failure: of[i].failure}
			warm.Done()
			<-begin
			for ctx.Err() == nil && time.Now().Before(end) {
				of[i].count(l.once(&c))
			}
		})
	}
	warm.Wait()
	cpu, start := t.router.cpu(), time.Now()
	end = start.Add(d)
	close(begin)
	done.Wait()
	m := measured{seconds: time.Since(start).Seconds(), cpu: t.router.cpu() - cpu}
	for _, one := range of {
		m.join(one)
	}
	slices.Sort(m.whole)
	slices.Sort(m.first)
	return m, ctx.Err()
}

// politeness is how long a client waits after an error, so that refusing is not
// what a server is measured at.
const politeness = 10 * time.Millisecond

// count adds an answer, or a failure.
func (m *measured) count(r reply, err error) {
	if err != nil {
		if m.failed++; m.failure == nil {
			m.failure = err
		}
		time.Sleep(politeness)
		return
	}
	m.requests++
	m.events += r.events
	m.whole = append(m.whole, r.whole)
	m.first = append(m.first, r.first)
}

// join adds what another client has counted.
func (m *measured) join(of measured) {
	m.requests += of.requests
	m.failed += of.failed
	m.events += of.events
	if m.failure == nil {
		m.failure = of.failure
	}
	m.whole = append(m.whole, of.whole...)
	m.first = append(m.first, of.first...)
}

// once sends the request, and fails unless the answer is as it must be.
func (l load) once(c *client) (reply, error) {
	r, err := c.do(l.request)
	if err == nil && (r.status != 200 || r.events != l.events) {
		err = fmt.Errorf("status %d and %d events, want 200 and %d", r.status, r.events, l.events)
	}
	return r, err
}

// ask sends a model one request over a new connection.
func ask(addr, model string) error {
	c := client{addr: addr, timeout: patience}
	defer c.close()
	_, err := load{request: post(addr, model, small, answer)}.once(&c)
	return err
}

// small is the size of a body, in bytes, where it does not matter. Tokens are few
// enough for a real engine's shortest context.
const small = 128

// patience is how long a client waits for an answer that may take long: more than
// our max_wait, and less than anybody's who would call it a hang.
const patience = 2 * time.Minute

// quantiles are durations in ascending order.
type quantiles []time.Duration

// at returns the value that the share p of all do not exceed, in microseconds.
func (q quantiles) at(p float64) float64 {
	if len(q) == 0 {
		return 0
	}
	i := min(int(p*float64(len(q))), len(q)-1)
	return float64(q[i]) / float64(time.Microsecond)
}
