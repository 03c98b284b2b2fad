package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // what the binary has

	"assistant/internal/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	if len(os.Args) == 4 && os.Args[1] == oddWord {
		serveOddly(os.Args[2], os.Args[3])
	}
	os.Exit(runTests(m))
}

// runTests keeps what Caddy writes within a directory of its own.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddymodule")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	return m.Run()
}

// oddWord makes the test binary an engine that does what the fake engine does not.
const oddWord = "odd-engine"

// engineHeaders are of what an engine is, allows and calls a request: nothing of it is a client's business.
var engineHeaders = map[string]string{
	requestIDHeader: "the engine's", "Server": "engine/1", "X-Powered-By": "engine", "Via": "1.1 engine", "X-Ratelimit-Limit-Requests": "7",
	"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*", "Access-Control-Expose-Headers": "*", "Access-Control-Allow-Credentials": "true",
}

// oddStream is a stream of one token.
const oddStream = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

// serveOddly answers POSTs with half a body, "sized" or "chunked", and ends; or with "headers" that are ours to set.
func serveOddly(port, how string) {
	err := http.ListenAndServe(net.JoinHostPort("127.0.0.1", port), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method != http.MethodPost:
			return
		case how == "headers":
			for name, value := range engineHeaders {
				w.Header().Set(name, value)
			}
			w.Header().Set("Vary", "Accept")
			body, _ := io.ReadAll(r.Body)
			if bytes.Contains(body, []byte(`"stream":true`)) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, oddStream)
				return
			}
			_, _ = io.WriteString(w, `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}`)
			return
		case how == "sized":
			w.Header().Set("Content-Length", "1000")
		}
		_, _ = w.Write([]byte(`{"choices":[`))
		_ = http.NewResponseController(w).Flush()
		os.Exit(0)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
