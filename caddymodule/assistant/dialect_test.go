package main

import (
	"fmt"
	"strings"
	"testing"

	"assistant/internal/enginetest"
)

// TestLlamaAPIServersDialectByOpenAIPython: the official client can't tell an engine with all of llama-api-server's
// quirks from what it was made for.
func TestLlamaAPIServersDialectByOpenAIPython(t *testing.T) {
	engine := enginetest.Binary(t)
	edge := func(name, more string, flags ...string) string {
		argv := append([]string{engine, "--port", "{{port}}", "--dialect", enginetest.DialectLlamaAPIServer, "-c", "{{ctx_size}}"}, flags...)
		return fmt.Sprintf("name = %q\ncommand = [\"%s\"]\ndialect = \"llama-api-server\"\nctx_size = 500\n%s\n", name, strings.Join(argv, `", "`), more)
	}
	s := startServer(t, map[string]string{
		"m.toml":    edge("m", "", "--tokens", "200", "--prompt-template", "chatml-tool"),
		"bare.toml": edge("bare", "", "--tokens", "20"),
		"e.toml":    edge("e", `kind = "embedding"`, "--embeddings"),
	})
	var got struct {
		Checks int
		Failed []string
	}
	s.python("dialect.py", &got)
	if got.Checks < 20 || len(got.Failed) > 0 {
		t.Errorf("%d checks, of which failed:\n%s", got.Checks, strings.Join(got.Failed, "\n"))
	}
}
