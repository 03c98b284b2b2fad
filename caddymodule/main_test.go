package caddymodule

import (
	"fmt"
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

// serveOddly answers POSTs with half a body, "sized" or "chunked", and ends; or with "headers" that are ours to set.
func serveOddly(port, how string) {
	err := http.ListenAndServe(net.JoinHostPort("127.0.0.1", port), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method != http.MethodPost:
			return
		case how == "headers":
			w.Header().Set("X-Request-Id", "the engine's")
			w.Header().Set("Access-Control-Allow-Origin", "*")
			_, _ = w.Write([]byte(`{}`))
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
