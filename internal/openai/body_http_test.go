package openai

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What net/http makes of a client's misbehaviour is what the errors of ReadBody rest on.
func TestReadBodyOverHTTP(t *testing.T) {
	lim := limits(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := ReadBody(r.Body, r.ContentLength, lim)
		if api := (*Error)(nil); errors.As(err, &api) {
			api.WriteTo(w)
			return
		}
		if err != nil {
			t.Errorf("got %v", err)
			return
		}
		defer body.Close()
		_, _ = w.Write(body.Bytes())
	}))
	defer server.Close()
	for _, tt := range []struct {
		name, request, want string
	}{
		{"whole", "Content-Length: 2\r\n\r\n{}", "200 OK"},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "200 OK"},
		{"no body", "\r\n", "200 OK"},
		{"less than stated", "Content-Length: 3\r\n\r\n{}", "400 Bad Request"},
		{"chunks cut", "Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "400 Bad Request"},
		{"stated too long", "Content-Length: 99999999\r\n\r\n", "413 Request Entity Too Large"},
		{"chunked too long", "Transfer-Encoding: chunked\r\n\r\n10001\r\n" + strings.Repeat("x", 0x10001) + "\r\n", "413 Request Entity Too Large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+tt.request); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 64)
			n, err := io.ReadAtLeast(conn, answer, 30)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := strings.Cut(string(answer[:n]), "\r\n"); got != "HTTP/1.1 "+tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
