//go:build clients

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"assistant/internal/realtest"
)

// agent is a program that people run on their own machines, and how it is told of the server: as docs/clients.md says.
type agent struct {
	name    string
	command []string
	env     []string
	files   map[string]string // in its working directory
}

// agents are answered by the model "count", which says " 1 2 3 … 200" to everything, so that what reaches the terminal is known. Its context
// holds 8,192 tokens: less than some agents' own instructions and tools, which are cut down here.
func agents(t *testing.T, s *server) []agent {
	t.Helper()
	modules := filepath.Join(realtest.Need(t, "ASSISTANT_TEST_AGENTS"), "node_modules")
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	return []agent{
		{
			name:    "Claude Code",
			command: []string{"node", filepath.Join(modules, "@anthropic-ai", "claude-code", "cli-wrapper.cjs"), "--tools", "Read", "--system-prompt", "Count.", "-p", "Count."},
			env: []string{
				"ANTHROPIC_BASE_URL=" + s.https, "ANTHROPIC_AUTH_TOKEN=unused", "ANTHROPIC_MODEL=count", "ANTHROPIC_SMALL_FAST_MODEL=count",
				"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
			},
		},
		{
			name:    "opencode",
			command: []string{filepath.Join(modules, "opencode-linux-"+arch, "bin", "opencode"), "run", "Count."},
			files: map[string]string{"opencode.json": fmt.Sprintf(`{
	"$schema": "https://opencode.ai/config.json",
	"provider": {"assistant": {
		"npm": "@ai-sdk/openai-compatible",
		"name": "Assistant",
		"options": {"baseURL": %q, "apiKey": "unused"},
		"models": {"count": {"name": "Count", "limit": {"context": 8192, "output": 1024}}}
	}},
	"model": "assistant/count",
	"small_model": "assistant/count",
	"agent": {"build": {"prompt": "Count.", "tools": {"*": false}}}
}`, s.https+"/v1")},
		},
		{
			name:    "Continue", // which makes 127.0.0.1 of localhost, also where the certificate is for the one only
			command: []string{"node", filepath.Join(modules, "@continuedev", "cli", "dist", "cn.js"), "--config", "continue.yaml", "-p", "Count."},
			files: map[string]string{"continue.yaml": fmt.Sprintf(`name: assistant
version: 0.0.1
schema: v1
models:
  - name: Count
    provider: openai
    model: count
    apiBase: %s/v1
    apiKey: unused
    roles: [chat, edit]
`, strings.Replace(s.https, "localhost", "127.0.0.1", 1))},
		},
		{
			name: "aider",
			command: []string{
				realtest.Need(t, "ASSISTANT_TEST_PYTHON_AIDER"), "-m", "aider", "--model", "openai/count", "--no-show-model-warnings", "--no-check-update",
				"--analytics-disable", "--yes-always", "--no-git", "--message", "Count.",
			},
			env: []string{"OPENAI_API_BASE=" + s.https + "/v1", "OPENAI_API_KEY=unused", "LITELLM_LOCAL_MODEL_COST_MAP=True"},
		},
	}
}

// TestAgents has each program print an answer of the real engine, and the server see no request of it that failed.
func TestAgents(t *testing.T) {
	s := startServer(t, map[string]string{"count.toml": fmt.Sprintf(
		"engine = \"llama-server\"\nmodel_path = %q\nctx_size = 32768\n", filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), tinyFile),
	)})
	for _, a := range agents(t, s) {
		t.Run(a.name, func(t *testing.T) {
			out := a.run(t, s)
			if !strings.Contains(strings.Join(strings.Fields(out), " "), "1 2 3 4 5 6 7 8 9 10") || !strings.Contains(out, "200") {
				t.Errorf("it printed:\n%s", out)
			}
		})
	}
	for line := range strings.Lines(s.metrics()) {
		if strings.HasPrefix(line, "assistant_requests_total{") && !strings.Contains(line, `code="200"`) {
			t.Errorf("a request failed: %s", line)
		}
	}
}

// run runs the program in a home of its own, where nothing is set, and returns what it printed.
func (a agent) run(t *testing.T, s *server) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range a.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, a.command[0], a.command[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NODE_EXTRA_CA_CERTS=" + s.ca(), "SSL_CERT_FILE=" + s.ca()}, a.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
	return string(out)
}
