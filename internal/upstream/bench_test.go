//go:build unix

package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The benchmarks drive each way to an engine as a handler whose client throws everything away: what is measured is the
// way itself and an engine that costs next to nothing. "direct" is a client that only writes and reads, the floor of
// the measurement. cpu-µs/op is the time of the whole process, user and system.

const tokens = 200

var benchCases = []struct {
	name    string
	request int // bytes
	stream  bool
}{
	{"1K", 1 << 10, false},
	{"200K", 200 << 10, false},
	{"stream", 1 << 10, true},
}

func BenchmarkForwardLean(b *testing.B)         { benchForward(b, "lean") }
func BenchmarkForwardStd(b *testing.B)          { benchForward(b, "std") }
func BenchmarkForwardReverseProxy(b *testing.B) { benchForward(b, "reverseproxy") }
func BenchmarkForwardDirect(b *testing.B)       { benchForward(b, "direct") }

func benchForward(b *testing.B, way string) {
	b.Helper()
	for _, c := range benchCases {
		for _, network := range []string{"tcp", "unix"} {
			b.Run(c.name+"/"+network+"/serial", func(b *testing.B) {
				forward := benchWay(b, way, network, c.request, c.stream)
				b.ReportAllocs()
				cpu := cpuTime()
				for b.Loop() {
					forward()
				}
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			})
			b.Run(c.name+"/"+network+"/parallel", func(b *testing.B) {
				forward := benchWay(b, way, network, c.request, c.stream)
				b.SetParallelism(32)
				b.ReportAllocs()
				cpu := cpuTime()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						forward()
					}
				})
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// BenchmarkRatio takes turns between the ways, so that a busy machine is busy for all of them, and reports CPU time as
// shares of the reverse proxy's: as it is, and above the floor that "direct" is.
func BenchmarkRatio(b *testing.B) {
	for _, c := range benchCases {
		for _, network := range []string{"tcp", "unix"} {
			b.Run(c.name+"/"+network, func(b *testing.B) {
				ways := []string{"direct", "lean", "std", "reverseproxy"}
				var forward [4]func()
				var cpu [4]float64
				for i, way := range ways {
					forward[i] = benchWay(b, way, network, c.request, c.stream)
				}
				for b.Loop() {
					for i, f := range forward {
						before := cpuTime()
						for range 50 {
							f()
						}
						cpu[i] += float64(cpuTime() - before)
					}
				}
				floor, full := cpu[0], cpu[3]
				b.ReportMetric(cpu[1]/full, "lean/rp")
				b.ReportMetric(cpu[2]/full, "std/rp")
				if !c.stream { // whose floor is nearly all of it: the kernel's part in 200 small writes and reads
					b.ReportMetric((cpu[1]-floor)/(full-floor), "lean/rp-added")
					b.ReportMetric((cpu[2]-floor)/(full-floor), "std/rp-added")
				}
			})
		}
	}
}

// BenchmarkDownload is 20 MB through a real server to a client that throws them away.
func BenchmarkDownload(b *testing.B) {
	for _, kind := range []string{sized(twentyMB), fmt.Sprintf("%s\r\n%x\r\n%s\r\n0\r\n\r\n", chunkedOK, len(twentyMB), twentyMB)} {
		for _, way := range ways {
			b.Run(way, func(b *testing.B) {
				raw := []byte(kind)
				e := startEngine(b, "tcp", func(c *engineConn) {
					for c.next() {
						c.Write(raw)
					}
				})
				s, client := front(b, way, "tcp", e.address), newClient(b)
				cpu := cpuTime()
				for b.Loop() {
					resp, err := client.Get(s.URL)
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				b.SetBytes(int64(len(twentyMB)))
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

// benchWay starts an engine and gives a function that forwards one request to it.
func benchWay(tb testing.TB, way, network string, size int, stream bool) func() {
	tb.Helper()
	address := benchEngine(tb, network, stream)
	body := bytes.Repeat([]byte("x"), size)
	in := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: "/v1/chat/completions"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host: "models.example", RemoteAddr: "192.0.2.1:1234", ContentLength: int64(size),
		Header: http.Header{
			"Accept": {"*/*"}, "User-Agent": {"bench"}, "Content-Type": {"application/json"}, "Authorization": {"Bearer x"},
			"Accept-Encoding": {"gzip, deflate"}, "Connection": {"keep-alive"}, "Content-Length": {strconv.Itoa(size)},
		},
	}
	// A server's contexts can be canceled, so ours can.
	begin := func() (*http.Request, context.CancelFunc) {
		ctx, cancel := context.WithCancel(tb.Context())
		return in.WithContext(ctx), cancel
	}
	var t Transport
	switch way {
	case "direct":
		return benchDirect(tb, network, address, in, body, stream)
	case "reverseproxy":
		rp := newReverseProxy(tb, network, address)
		return func() {
			r, cancel := begin()
			defer cancel()
			r.Body = io.NopCloser(bytes.NewReader(body))
			rp.ServeHTTP(null{}, r)
		}
	case "lean":
		t = NewPool(network, address)
	case "std":
		t = NewStd(network, address)
	}
	tb.Cleanup(t.Close)
	return func() {
		r, cancel := begin()
		defer cancel()
		if _, err := t.Forward(r.Context(), null{}, &Request{In: r, Body: body}, Hooks{}); err != nil {
			tb.Error(err)
		}
	}
}

// benchDirect writes prepared bytes and reads the answer without looking at it.
func benchDirect(tb testing.TB, network, address string, in *http.Request, body []byte, stream bool) func() {
	tb.Helper()
	out, err := NewPool(network, address).appendHead(nil, &Request{In: in, Body: body}, framing{length: int64(len(body))})
	if err != nil {
		tb.Fatal(err)
	}
	out = append(out, body...)
	var conns sync.Pool
	return func() {
		c, ok := conns.Get().(*benchConn)
		if !ok {
			nc, err := net.Dial(network, address)
			if err != nil {
				tb.Error(err)
				return
			}
			tb.Cleanup(func() { nc.Close() })
			c = &benchConn{Conn: nc}
		}
		c.Write(out)
		want := len(benchPlain)
		if stream {
			want = len(benchHead) + tokens*len(benchToken) + len(benchEnd)
		}
		for want > 0 {
			n, err := c.Read(c.buf[:])
			if err != nil {
				tb.Error(err)
				return
			}
			want -= n
		}
		conns.Put(c)
	}
}

type benchConn struct {
	net.Conn
	buf [4096]byte
}

// null is a client that throws away.
type null struct{}

func (null) Header() http.Header         { return http.Header{} }
func (null) WriteHeader(int)             {}
func (null) Write(b []byte) (int, error) { return len(b), nil }
func (null) FlushError() error           { return nil }
func (null) Flush()                      {}

var (
	benchPlain = []byte("HTTP/1.1 200 OK\r\nServer: engine\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n" +
		"Access-Control-Allow-Origin: *\r\n\r\n" + strings.Repeat("y", 1024))
	benchHead  = []byte("HTTP/1.1 200 OK\r\nServer: engine\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	benchToken = []byte("40\r\ndata: " + strings.Repeat("t", 56) + "\n\n\r\n")
	benchEnd   = []byte("0\r\n\r\n")
)

// benchEngine answers each request with 1 KiB, or with tokens.
func benchEngine(tb testing.TB, network string, stream bool) (address string) {
	tb.Helper()
	ln := listen(tb, network)
	tb.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReaderSize(c, 64<<10)
				for skipRequest(br) {
					if !stream {
						c.Write(benchPlain)
						continue
					}
					c.Write(benchHead)
					for range tokens {
						c.Write(benchToken)
						runtime.Gosched()
					}
					c.Write(benchEnd)
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// skipRequest reads one sized request.
func skipRequest(br *bufio.Reader) bool {
	length := 0
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return false
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
		}
		if len(line) == 2 {
			_, err := br.Discard(length)
			return err == nil
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
