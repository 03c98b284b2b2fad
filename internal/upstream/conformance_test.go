package upstream

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// conformanceCase is one exchange, or some in a row over one client, that all ways must show alike.
type conformanceCase struct {
	name   string
	method string // GET when empty and without body, else POST
	target string // /v1/x when empty
	body   string
	times  int // requests in a row; 1 when 0
	set    func(r *http.Request)
	engine script

	// What was meant by "alike": a case in which all ways fail in the same manner would otherwise show nothing.
	status int  // 200 when 0
	failed bool // the client must see a broken response
	conns  int  // how many connections lean must have made; not looked at when 0

	// The engine writes more than its answer. What net/http makes of the next request on that connection is a matter of timing, so its first
	// answer is the measure, and of ours only lean is held to it each time.
	junk bool

	settle  bool // the next request waits until the engine has closed the connection of the one before
	differs bool // the engine sees another request from ours than from the reverse proxy, and a test of its own says which
}

const chunkedOK = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

var (
	twentyMB = strings.Repeat("0123456789abcdef", 20<<20/16)
	oneMB    = twentyMB[:1<<20]
)

func conformanceCases() []conformanceCase {
	cases := []conformanceCase{
		// Requests.
		{name: "query and escapes", target: "/v1/models/a%2Fb%20c?x=1&y=%26&z=a+b", engine: answer(sized("ok"))},
		{name: "post", body: `{"model":"m"}`, engine: answer(sized("ok")), times: 3, conns: 1},
		{name: "post without body", method: http.MethodPost, engine: answer(sized("ok"))},
		{name: "get with body", method: http.MethodGet, body: "x", engine: answer(sized("ok"))},
		{name: "body just over one write", body: oneMB[:joinedBody+1], engine: answer(sized("ok")), times: 2, conns: 1},
		{name: "body at the inline limit", body: oneMB[:inlineBody], engine: answer(sized("ok")), times: 2, conns: 1},
		{name: "body over the inline limit", body: oneMB[:inlineBody+1], engine: answer(sized("ok")), times: 2, conns: 1},
		{name: "20 MB up", body: twentyMB, engine: answer(sized("ok"))},
		{name: "20 MB up, spooled", body: twentyMB, set: setHeader("X-Spool", "1"), engine: answer(sized("ok"))},
		{name: "spooled small", body: "small", set: setHeader("X-Spool", "1"), engine: answer(sized("ok")), times: 2, conns: 1},
		{name: "chunked upload", body: "abc", set: func(r *http.Request) { r.ContentLength = -1 }, engine: answer(sized("ok"))},
		{name: "request trailer", differs: true, body: "abc", set: func(r *http.Request) {
			r.ContentLength = -1
			r.Trailer = http.Header{"X-Sum": {"1"}, "X-More": {"2"}}
		}, engine: answer(sized("ok")), times: 2, conns: 1},
		{name: "expect continue", body: "abc", set: setHeader("Expect", "100-continue"), engine: answer(sized("ok"))},
		{name: "te trailers", set: setHeader("Te", "trailers, deflate"), engine: answer(sized("ok"))},
		{name: "te deflate", set: setHeader("Te", "deflate"), engine: answer(sized("ok"))},
		{name: "hop-by-hop from client", set: func(r *http.Request) {
			r.Header.Set("Connection", "X-Mine, keep-alive")
			r.Header.Set("X-Mine", "1")
			r.Header.Set("Keep-Alive", "timeout=5")
			r.Header.Set("Proxy-Connection", "keep-alive")
			r.Header.Set("Proxy-Authorization", "Basic x")
			r.Header.Set("X-Kept", "1")
		}, engine: answer(sized("ok"))},
		{name: "upgrade without connection", set: setHeader("Upgrade", "websocket"), engine: answer(sized("ok"))},
		{name: "client closes", set: func(r *http.Request) { r.Close = true }, engine: answer(sized("ok")), times: 3, conns: 1},
		{name: "many values from client", set: func(r *http.Request) {
			for i := range 50 {
				r.Header.Add("X-Many", fmt.Sprint(i))
			}
		}, engine: answer(sized("ok"))},
		{name: "huge header from client", set: setHeader("X-Huge", oneMB[:200<<10]), engine: answer(sized("ok"))},
		{name: "no user agent", set: setHeader("User-Agent", ""), engine: answer(sized("ok"))},
		{name: "idempotency key", body: "x", set: setHeader("Idempotency-Key", "k"), engine: answer(sized("ok"))},

		// Heads of responses.
		{name: "hop-by-hop from engine", engine: answer("HTTP/1.1 200 OK\r\nConnection: x-mine, Keep-Alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n" +
			"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 1},
		{name: "cookies and location", status: 302, engine: answer("HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n")},
		{name: "many values from engine", engine: answer("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Many: a\r\nX-Other: b\r\n", 300) + "Content-Length: 2\r\n\r\nok"), times: 2, conns: 1},
		{name: "huge header from engine", engine: answer("HTTP/1.1 200 OK\r\nX-Huge: " + oneMB[:300<<10] + "\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 1},
		{name: "oversized head", status: 502, engine: once("HTTP/1.1 200 OK\r\nX-Huge: " + oneMB + "\r\nContent-Length: 2\r\n\r\nok")},
		{name: "no reason", engine: answer("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")},
		{name: "bare line feeds", engine: answer("HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok"), times: 2, conns: 1},
		{name: "folded value", engine: answer("HTTP/1.1 200 OK\r\nX-A: 1\r\n  2\r\n\t3\r\nContent-Length: 2\r\n\r\nok")},
		{name: "folded first line", status: 502, engine: once("HTTP/1.1 200 OK\r\n X-A: 1\r\nContent-Length: 2\r\n\r\nok")},
		{name: "no colon", status: 502, engine: once("HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok")},
		{name: "control character in value", status: 502, engine: once("HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok")},
		{name: "carriage return in value", status: 502, engine: once("HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok")},
		{name: "bytes above ascii in value", engine: answer("HTTP/1.1 200 OK\r\nX-A: \xe4\xb8\xad\r\nContent-Length: 2\r\n\r\nok")},
		{name: "garbage", status: 502, engine: once("\x16\x03\x01garbage\r\n\r\n")},
		{name: "short status", status: 502, engine: once("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok")},
		{name: "truncated head", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Le")},
		{name: "head without end", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")},
		{name: "closed without a word", status: 502, body: "x", engine: once("")},
		{name: "switched unasked", status: 502, engine: once("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")},
		{name: "gzip stays as it is", engine: answer("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b")},

		// Informational responses.
		{name: "continue unasked", body: "x", engine: answer("HTTP/1.1 100 Continue\r\n\r\n" + sized("ok")), times: 2, conns: 1},
		{name: "early hints", engine: answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + sized("ok")), times: 2, conns: 1},
		{name: "processing", engine: answer("HTTP/1.1 102 Processing\r\n\r\n" + sized("ok"))},
		{name: "hints, then nothing", status: 502, body: "x", engine: once("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")},

		// Ends of bodies.
		{name: "length zero", engine: answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), times: 2, conns: 1},
		{name: "chunked", engine: answer(chunkedOK + "\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"), times: 2, conns: 1},
		{name: "chunked empty", engine: answer(chunkedOK + "\r\n0\r\n\r\n"), times: 2, conns: 1},
		{name: "chunk extension", engine: answer(chunkedOK + "\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n"), times: 2, conns: 1},
		{name: "chunk size in capitals", engine: answer(chunkedOK + "\r\n0A\r\n0123456789\r\n0\r\n\r\n")},
		{name: "thousand chunks", engine: answer(chunkedOK + "\r\n" + strings.Repeat("1\r\nx\r\n", 1000) + "0\r\n\r\n"), times: 2, conns: 1},
		{name: "bytes one by one", engine: func(c *engineConn) {
			for c.next() {
				for _, b := range []byte(chunkedOK + "\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\n") {
					c.Write([]byte{b})
				}
			}
		}, times: 2, conns: 1},
		{name: "announced trailer", engine: answer(chunkedOK + "Trailer: X-A, x-b\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"), times: 2, conns: 1},
		{name: "unannounced trailer", engine: answer(chunkedOK + "\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nX-A: 2\r\n\r\n"), times: 2, conns: 1},
		{name: "announced and not sent", engine: answer(chunkedOK + "Trailer: X-A\r\n\r\n3\r\nabc\r\n0\r\n\r\n")},
		{name: "one announced, one not", engine: answer(chunkedOK + "Trailer: X-A\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")},
		{name: "trailer without body", engine: answer(chunkedOK + "Trailer: X-A\r\n\r\n0\r\nX-A: 1\r\n\r\n")},
		{name: "trailer named but not chunked", engine: answer("HTTP/1.1 200 OK\r\nTrailer: X-A\r\nContent-Length: 2\r\n\r\nok")},
		{name: "framing as trailer", status: 502, engine: once(chunkedOK + "Trailer: Content-Length\r\n\r\n0\r\n\r\n")},
		{name: "broken trailer", failed: true, engine: once(chunkedOK + "\r\n3\r\nabc\r\n0\r\nnonsense\r\n\r\n")},
		{name: "trailer ended by a bare line feed", failed: true, engine: once(chunkedOK + "\r\n3\r\nabc\r\n0\r\n\nX")},
		{name: "truncated trailer", failed: true, engine: once(chunkedOK + "\r\n3\r\nabc\r\n0\r\nX-A: 1\r\n")},
		{name: "truncated after last chunk", failed: true, engine: once(chunkedOK + "\r\n3\r\nabc\r\n0\r\n")},
		{name: "truncated between chunks", failed: true, engine: once(chunkedOK + "\r\n3\r\nabc\r\n")},
		{name: "truncated chunk", failed: true, engine: once(chunkedOK + "\r\n5\r\nabc")},
		{name: "bad chunk size", failed: true, engine: once(chunkedOK + "\r\nxyz\r\nabc\r\n0\r\n\r\n")},
		{name: "chunk without end", failed: true, engine: once(chunkedOK + "\r\n3\r\nabcdef\r\n0\r\n\r\n")},
		{name: "truncated length", failed: true, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")},
		{name: "truncated at once", failed: true, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")},
		{name: "truncated large", failed: true, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + oneMB)},
		{name: "connection close", engine: once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 2},
		{name: "close but not closed", engine: answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 2},
		{name: "until the end", engine: once("HTTP/1.1 200 OK\r\n\r\nall of it"), times: 2, conns: 2},
		{name: "until the end, large", engine: once("HTTP/1.1 200 OK\r\n\r\n" + oneMB)},
		{name: "http 1.0", engine: once("HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nall of it"), times: 2, conns: 2},
		{name: "http 1.0 with length", engine: once("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 2},
		{name: "http 1.0 kept alive", engine: answer("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"), times: 2, conns: 1},
		{name: "http 1.0 chunked", engine: once("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")},
		{name: "half closed by engine", engine: func(c *engineConn) {
			if c.next() {
				c.write("HTTP/1.1 200 OK\r\n\r\nall of it")
				c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				io.Copy(io.Discard, c)
			}
		}, times: 2, conns: 2},
		{name: "20 MB down", engine: answer(sized(twentyMB)), times: 2, conns: 1},
		{name: "20 MB down, chunked", engine: answer(fmt.Sprintf("%s\r\n%x\r\n%s\r\n0\r\n\r\n", chunkedOK, len(twentyMB), twentyMB)), times: 2, conns: 1},
		{name: "20 MB both ways at once", body: twentyMB, engine: func(c *engineConn) {
			c.skipHead()
			c.write("HTTP/1.1 200 OK\r\nContent-Length: 20971520\r\n\r\n")
			io.CopyN(c, c.br, 20<<20)
		}},
		{name: "event stream", engine: answer("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"9\r\ndata: a\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), times: 2, conns: 1},

		// Framing that may hide a second response.
		{name: "length and chunked", engine: answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"), times: 2, conns: 2},
		{name: "chunked and length", engine: answer(chunkedOK + "Content-Length: 3\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"), times: 2, conns: 2},
		{name: "chunked twice", status: 502, engine: once(chunkedOK + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{name: "gzip, chunked", status: 502, engine: once("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")},
		{name: "identity", status: 502, engine: once("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nabc")},
		{name: "same length twice", engine: answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")},
		{name: "two lengths", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk")},
		{name: "list of lengths", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok")},
		{name: "negative length", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok")},
		{name: "length with plus", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok")},
		{name: "empty length", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok")},
		{name: "length too large for a number", status: 502, engine: once("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok")},
		{name: "response after the response", junk: true, engine: answer(sized("ok") + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"), times: 3, conns: 3},
		{name: "junk after chunked", junk: true, engine: answer(chunkedOK + "\r\n2\r\nok\r\n0\r\n\r\njunk"), times: 2, conns: 2},
		{name: "body after 204", junk: true, status: 204, engine: answer("HTTP/1.1 204 No Content\r\n\r\npoison"), times: 2, conns: 2},
		{name: "body after 304", junk: true, status: 304, engine: answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"), times: 2, conns: 2},
		{name: "body after head", junk: true, method: http.MethodHead, engine: answer(sized("poison")), times: 2, conns: 2},

		// Connections that end.
		{name: "kept alive, died unused", settle: true, engine: once(sized("ok")), times: 3, conns: 3},
		{name: "answers before the body, closes", status: 413, body: oneMB, engine: func(c *engineConn) {
			c.skipHead()
			c.write("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			io.Copy(io.Discard, c.br) // as a careful server does, lest the reset overtake the answer
		}},
		{name: "answers before the body, reads on", body: twentyMB, engine: func(c *engineConn) {
			c.skipHead()
			c.write(sized("ok"))
			io.CopyN(io.Discard, c.br, 20<<20)
			for c.next() {
				c.write(sized("ok"))
			}
		}},
		{name: "head without body", method: http.MethodHead, engine: answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), times: 2, conns: 1},
		{name: "head chunked", method: http.MethodHead, engine: answer(chunkedOK + "\r\n"), times: 2, conns: 1},
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"} {
		raw := sized("")
		if method != http.MethodHead {
			raw = sized("ok")
		}
		cases = append(cases, conformanceCase{name: "method " + method, method: method, engine: answer(raw), times: 2, conns: 1})
	}
	for _, status := range []int{200, 201, 202, 203, 205, 206, 400, 401, 404, 418, 429, 500, 503, 599, 999} {
		cases = append(cases, conformanceCase{
			name: fmt.Sprint("status ", status), status: status, times: 2, conns: 1,
			engine: answer(fmt.Sprintf("HTTP/1.1 %d Whatever\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok", status)),
		})
	}
	for _, status := range []int{204, 304} {
		cases = append(cases, conformanceCase{
			name: fmt.Sprint("status ", status), status: status, times: 2, conns: 1,
			engine: answer(fmt.Sprintf("HTTP/1.1 %d Whatever\r\nX-A: 1\r\n\r\n", status)),
		})
	}
	return cases
}

func setHeader(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestConformance(t *testing.T) {
	for _, c := range conformanceCases() {
		t.Run(c.name, func(t *testing.T) { c.compare(t, "tcp") })
	}
}

// TestConformanceUnix runs a few of the cases over a unix socket.
func TestConformanceUnix(t *testing.T) {
	some := map[string]bool{
		"post": true, "20 MB up": true, "20 MB up, spooled": true, "20 MB down": true, "20 MB both ways at once": true, "chunked": true,
		"kept alive, died unused": true, "response after the response": true, "until the end": true, "request trailer": true,
		"truncated length": true, "closed without a word": true, "answers before the body, closes": true,
	}
	for _, c := range conformanceCases() {
		if some[c.name] {
			t.Run(c.name, func(t *testing.T) { c.compare(t, "unix") })
		}
	}
}

// compare runs a case in each way and reports where ours are not like the reverse proxy.
func (c *conformanceCase) compare(t *testing.T, network string) {
	t.Helper()
	client := map[string][]seen{}
	engine := map[string][]request{}
	for _, way := range ways {
		e := startEngine(t, network, c.engine)
		client[way] = c.run(t, way, e, front(t, way, network, e.address).URL)
		for _, r := range e.requests() {
			engine[way] = append(engine[way], forComparison(r))
		}
		if got := e.connections(); c.conns != 0 && way == "lean" && got != c.conns {
			t.Errorf("%s: %d connections, want %d", way, got, c.conns)
		}
	}
	if c.junk {
		client["reverseproxy"] = slices.Repeat(client["reverseproxy"][:1], len(client["lean"]))
		client["std"] = append(client["std"][:1], client["reverseproxy"][1:]...)
	}
	for _, way := range []string{"lean", "std"} {
		for i := range client[way] {
			forgetFlush(&client[way][i], &client["reverseproxy"][i])
		}
		if diff := cmp.Diff(client["reverseproxy"], client[way]); diff != "" {
			t.Errorf("%s: what the client sees (-reverseproxy):\n%s", way, abbreviate(diff))
		}
		if diff := cmp.Diff(engine["reverseproxy"], engine[way]); diff != "" && !c.differs && !c.junk {
			t.Errorf("%s: what the engine sees (-reverseproxy):\n%s", way, abbreviate(diff))
		}
	}
}

func (c *conformanceCase) run(t *testing.T, way string, e *engine, url string) (all []seen) {
	t.Helper()
	client := newClient(t)
	for range max(c.times, 1) {
		target := c.target
		if target == "" {
			target = "/v1/x"
		}
		method := c.method
		if method == "" && c.body != "" {
			method = http.MethodPost
		}
		r := newRequest(t, method, url+target, c.body)
		if c.set != nil {
			c.set(r)
		}
		s := ask(t, client, r)
		if c.settle {
			await(t, e.closed, "end of the connection")
		}
		status := c.status
		if status == 0 {
			status = http.StatusOK
		}
		// A response that breaks may do so before or after the client has read its head.
		judged := !c.junk || way == "lean" || len(all) == 0
		if judged && (s.Failed != c.failed || s.Status != status && !s.Failed) {
			t.Errorf("%s: status %d, failed %v; want %d, %v", way, s.Status, s.Failed, status, c.failed)
		}
		if s.Failed {
			s = seen{Failed: true}
		}
		// Differences we want: these are the front's to say.
		s.Header.Del("Date")
		s.Header.Del("Server")
		all = append(all, s)
	}
	return all
}

// forgetFlush takes out of two responses what depends on whether a stream was flushed before its end: a short one that was
// not gets a length and a guessed type from the server in front.
func forgetFlush(ours, theirs *seen) {
	for _, s := range []*seen{ours, theirs} {
		if s.Header.Get("Content-Type") == "text/plain; charset=utf-8" { // no script says this
			s.Header.Del("Content-Type")
		}
	}
	for _, pair := range [][2]*seen{{ours, theirs}, {theirs, ours}} {
		has, lacks := pair[0], pair[1]
		if lacks.Header["Content-Length"] == nil && has.Header.Get("Content-Length") == strconv.Itoa(has.Length) {
			has.Header.Del("Content-Length")
		}
	}
}

// forComparison takes out of a request what ours changes on purpose: bodies that were read already are sent with their
// length, and nothing of the client's network goes to engines.
func forComparison(r request) request {
	r.Host, r.Chunked = "", false
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer", "Expect"} {
		r.Header.Del(name)
	}
	if len(r.Trailer) == 0 {
		r.Trailer = nil
	}
	return r
}

func abbreviate(s string) string {
	if len(s) > 4000 {
		return s[:4000] + "…"
	}
	return s
}
