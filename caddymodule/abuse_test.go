package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"assistant/internal/enginetest"
)

// A body of a gigabyte is refused by its length, or when it is too long, and takes no memory.
func TestAGigabyteIsRefused(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	before := residentMB(t)
	const gigabyte = 1 << 30
	for name, head := range map[string]string{
		"sized":   fmt.Sprintf("Content-Length: %d\r\n", gigabyte),
		"chunked": "Transfer-Encoding: chunked\r\n",
	} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(bound))
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s\r\n", chatPath, head)
		go func() { // until the server has had enough
			piece := []byte("10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n")
			for sent := 0; sent < gigabyte; sent += len(piece) {
				if _, err := conn.Write(piece); err != nil {
					return
				}
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: status %d, want 413", name, res.StatusCode)
		}
	}
	const most = 400 // the longest body that is taken is 32 MB, twice while a buffer grows; the rest is the race detector's
	if grown := residentMB(t) - before; grown > most {
		t.Errorf("it took %d MB", grown)
	}
}

func residentMB(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// Whatever the framing, the engine sees one request or none, and the client is answered.
func TestOddFramingIsNoSecondRequest(t *testing.T) {
	body := question("m")
	hidden := "POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for name, c := range map[string]struct {
		head, body string
		status     int
	}{
		"two lengths":          {fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n", len(body)), body, 400},
		"two equal lengths":    {strings.Repeat(fmt.Sprintf("Content-Length: %d\r\n", len(body)), 2), body, 200},
		"length and chunks":    {fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", len(chunked)), chunked, 200},
		"negative length":      {"Content-Length: -1\r\n", body, 400},
		"length with a plus":   {fmt.Sprintf("Content-Length: +%d\r\n", len(body)), body, 400},
		"chunks by two names":  {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked, 501},
		"chunks, oddly":        {"Transfer-Encoding: xchunked\r\n", chunked, 501},
		"a header in two":      {fmt.Sprintf("X-A: b\r\n c\r\nContent-Length: %d\r\n", len(body)), body, 200},
		"space before a colon": {fmt.Sprintf("Content-Length : %d\r\n", len(body)), body, 400},
		"a NUL in a header":    {fmt.Sprintf("X-A: b\x00c\r\nContent-Length: %d\r\n", len(body)), body, 400},
		"a request behind it":  {fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n", len(body)), body + hidden, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.model("m", "", "--echo")
			s.start()
			a := s.dispatch("POST " + chatPath + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + c.head + "\r\n" + c.body)
			asked := len(s.happened(enginetest.EventBegin))
			if a.status != c.status || asked > 1 || (a.status == http.StatusOK) != (asked == 1) {
				t.Errorf("status %d, want %d; the engine was asked %d times: %s", a.status, c.status, asked, a.body)
			}
			if a.status == http.StatusOK {
				if e := a.echo(t); e.Body != body {
					t.Errorf("the engine was asked %q", e.Body)
				}
			}
		})
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	const deep = 100_000
	for name, c := range map[string]struct {
		raw    string
		status int
	}{
		"headers without end": {"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 2000) + "\r\n", 431},
		"invalid UTF-8":       {raw(`{"model":"` + "\xff\xfe" + `","messages":[]}`), 400},
		"half a surrogate":    {raw(`{"model":"\ud800","messages":[]}`), 400},
		"deep arrays":         {raw(`{"model":"m","messages":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`), 400},
		"deep objects":        {raw(`{"model":"m","a":` + strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep) + `}`), 400},
		"a NUL":               {raw("{\"model\":\"m\x00\"}"), 400},
		"no HTTP":             {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		"a huge number":       {raw(`{"model":"m","messages":[],"max_tokens":1` + strings.Repeat("0", 1000) + `}`), 400},
	} {
		if a := s.dispatch(c.raw); a.status != c.status {
			t.Errorf("%s: status %d, want %d: %.200s", name, a.status, c.status, a.body)
		}
	}
	s.chat("m")
}

// raw is a chat request with that body.
func raw(body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		chatPath, len(body), body)
}

// dribble is a body that comes a byte at a time, with a pause before each.
type dribble struct {
	pause    time.Duration
	deadline *time.Time
}

func (d dribble) Read(p []byte) (int, error) {
	time.Sleep(min(d.pause, time.Until(*d.deadline)))
	if !time.Now().Before(*d.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	p[0] = ' '
	return 1, nil
}

// deadliner is a client whose connection has a deadline.
type deadliner struct {
	http.ResponseWriter
	deadline *time.Time
}

func (d deadliner) SetReadDeadline(t time.Time) error {
	*d.deadline = t
	return nil
}

// A client that sends its request a byte at a time is given up, one that is only slow is not.
func TestSlowUploadsEnd(t *testing.T) {
	for pause, ends := range map[time.Duration]time.Duration{
		time.Hour:              uploadPause,     // nothing at all
		time.Second:            uploadPause,     // 30 bytes have not earned a second
		time.Second / 1024 / 2: 24 * time.Hour,  // 2 KiB a second
		10 * time.Second:       uploadPause + 1, // at last
	} {
		synctest.Test(t, func(t *testing.T) {
			var deadline time.Time
			began := time.Now()
			r, end := bounded(deadliner{httptest.NewRecorder(), &deadline}, dribble{pause, &deadline})
			const enough = 1 << 20
			_, err := io.Copy(io.Discard, io.LimitReader(r, enough))
			took := time.Since(began)
			if slow := err != nil; slow != (ends < time.Hour) || slow && (took < uploadPause || took > uploadPause+time.Second) {
				t.Errorf("a byte each %v: %v after %v", pause, err, took)
			}
			if end(); !deadline.IsZero() {
				t.Errorf("the deadline outlasts the body: %v", deadline)
			}
		})
	}
}
