// Package llamacoreserver tests what llama-core does, which llama-api-server is made of: what the router makes up for (docs/dialects.md)
// is seen here, so that neither the repairs nor the tests' fake engine are about habits that nobody has.
package llamacoreserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assistant/internal/realtest"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// start runs the stand-in as the router would, and returns a function that posts to it.
func start(t *testing.T, file, template string, window int) func(path, body string) (status int, answer string) {
	t.Helper()
	m := &modeldir.Model{
		Name: "m", Key: "m", Kind: modeldir.Chat, Engine: modeldir.EngineWasmEdge, Wasm: realtest.Need(t, "ASSISTANT_TEST_LLAMA_CORE_SERVER"),
		ModelPath: filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), file), PromptTemplate: template, CtxSize: window, Threads: 1,
		EmbeddingModelPath: filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), "all-minilm-l6-v2.gguf"),
		Env: map[string]string{
			"WASMEDGE_DIR":         filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASMEDGE")),
			"WASMEDGE_PLUGIN_PATH": filepath.Dir(realtest.Need(t, "ASSISTANT_TEST_WASI_NN")),
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	plan, err := engine.For(m).Plan(m, engine.Place{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(context.Background(), plan.Argv[0], plan.Argv[1:]...)
	cmd.Env = append(os.Environ(), plan.Env...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
			conn.Close()
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("it does not listen after a minute")
		}
	}
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	return func(path, body string) (int, string) {
		t.Helper()
		resp, err := client.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

const chatPath = "/v1/chat/completions"

// TestQuirks goes through those of docs/dialects.md that are llama-core's own, by their numbers there.
func TestQuirks(t *testing.T) {
	post := start(t, "tiny.gguf", "chatml", 1000) // it answers everything with " 1 2 3 … 200"
	chat := func(more string) (int, string) {
		t.Helper()
		return post(chatPath, `{"model":"m","messages":[{"role":"user","content":"Count."}]`+more+`}`)
	}
	has := func(what string, status int, answer string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(answer, want) {
				t.Errorf("%s: %d, no %s in %.2000s", what, status, want, answer)
			}
		}
	}
	lacks := func(what, answer, unwanted string) {
		t.Helper()
		if strings.Contains(answer, unwanted) {
			t.Errorf("%s: %s in %.2000s", what, unwanted, answer)
		}
	}

	_, a := chat(`,"stream":true`)
	has("a stream", 200, a, " 200", "data: [DONE]")
	lacks("1: a stream has no end", a, `"finish_reason":"`)
	lacks("2: and no counts", a, `"usage"`)
	status, a := chat(`,"max_tokens":5`)
	has("4: max_tokens is ignored", status, a, " 200", `"finish_reason":"stop"`)
	status, a = chat(`,"max_completion_tokens":5`)
	has("4: max_completion_tokens is a fifth of the context at least", status, a, " 190")
	status, a = chat(`,"stop":" 5"`)
	if status != http.StatusBadRequest {
		t.Errorf("5: a stop string: %d %.200s", status, a)
	}
	status, a = chat(`,"stop":[" 5"]`)
	has("5: stop strings are ignored", status, a, " 200")
	status, a = chat(`,"n":2,"logprobs":true,"seed":7,"response_format":{"type":"json_object"}`)
	has("6: what it cannot do is ignored", status, a, " 200", `"logprobs":null`)
	status, a = chat(`,"user":"me"`)
	has("7, 8: its own name for the model, the user for an id", status, a, `"model":"default"`, `"id":"me"`)
	status, a = post(chatPath, `{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"x"}]}]}`)
	if status != http.StatusBadRequest {
		t.Errorf("9: parts for the system: %d %.200s", status, a)
	}
	status, a = post(chatPath, `{"model":"m","messages":[]}`)
	if status != http.StatusInternalServerError || strings.HasPrefix(a, "{") {
		t.Errorf("10: errors are text and 500: %d %.200s", status, a)
	}
	status, a = post("/v1/embeddings", `{"model":"embedding","input":"x","encoding_format":"base64"}`)
	has("16: vectors are numbers only", status, a, `"embedding":[`)
	status, a = post("/v1/completions", `{"model":"m","prompt":"Hi","stream":true}`)
	has("16: text completions cannot be streamed", status, a, `"object":"text_completion"`)
	lacks("16: text completions cannot be streamed", a, "data: ")
}

// TestContextFull: what it says of a context that is full is text of the answer.
func TestContextFull(t *testing.T) {
	post := start(t, "tiny.gguf", "chatml", 150)
	_, a := post(chatPath, `{"model":"m","stream":true,"messages":[{"role":"user","content":"Count."}]}`)
	if !strings.Contains(a, "<|WASMEDGE-GGML-CONTEXT-FULL|>") {
		t.Errorf("12: no mark in %.3000s", a)
	}
}
