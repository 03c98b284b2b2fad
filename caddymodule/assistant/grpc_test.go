package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"assistant/internal/hub/hubtest"
	"assistant/internal/realtest"
)

// protos is where the .proto files are.
const protos = "../../internal/rpc/proto"

// TestAModelsLifeByGRPC: a client in Python, generated from the .proto files, has a real model by TLS from Caddy.
func TestAModelsLifeByGRPC(t *testing.T) {
	python, weights := realtest.Need(t, "ASSISTANT_TEST_PYTHON_GRPC"), realtest.Need(t, "ASSISTANT_TEST_MODELS")
	text, err := os.ReadFile(filepath.Join(weights, "tiny.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.NewHub(t)
	hub.Add("tests/tiny", "tiny.gguf", text)
	s := startServer(t, nil, "HF_ENDPOINT="+hub.URL)
	cmd := exec.Command(python, filepath.Join("testdata", "grpc_life.py"))
	cmd.Env = append(os.Environ(), "PROTOS="+protos, "ADDRESS="+strings.TrimPrefix(s.https, "https://"), "CA="+s.ca(),
		"SOURCE=hf:tests/tiny:tiny.gguf")
	var got struct {
		File, Text, Finish, TOML string
		Twice, Stale, Gone       []string
		Phases                   []string
		Pulled                   []any
		Backwards                bool
		Pieces, Tokens, Left     int
	}
	out, err := cmd.Output()
	s.decode("grpc_life.py", out, err, &got)
	file := filepath.Join(s.dir, "models", "life.toml")
	if got.File != file || !slices.Equal(got.Twice, []string{"ALREADY_EXISTS", "model_exists"}) {
		t.Errorf("created in %s, and again: %v", got.File, got.Twice)
	}
	if size := float64(len(text)); got.Backwards || !slices.Equal(got.Pulled, []any{"DOWNLOAD_STATE_COMPLETED", size, size}) {
		t.Errorf("pulled %v of %d bytes, backwards: %v", got.Pulled, len(text), got.Backwards)
	}
	if n := len(got.Phases); n < 2 || got.Phases[n-2] != "LOAD_PHASE_STARTING" || got.Phases[n-1] != "LOAD_PHASE_READY" {
		t.Errorf("phases %q", got.Phases)
	}
	if got.Text == "" || got.Pieces < 2 || got.Tokens < 2 || got.Finish == "" {
		t.Errorf("answered %q in %d pieces and %d tokens, %q", got.Text, got.Pieces, got.Tokens, got.Finish)
	}
	if !strings.Contains(got.TOML, "idle_timeout = '1h'") || strings.Contains(got.TOML, "threads") || !slices.Equal(got.Stale, []string{"ABORTED", "stale_etag"}) {
		t.Errorf("changed to %q, and again: %v", got.TOML, got.Stale)
	}
	if _, err := os.Stat(file); got.Left != 0 || !slices.Equal(got.Gone, []string{"NOT_FOUND", "model_not_found"}) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%d instances left, the model: %v, its file: %v", got.Left, got.Gone, err)
	}
}

// TestBufCurlByReflection: a tool that knows nothing of ours finds the services and calls them.
func TestBufCurlByReflection(t *testing.T) {
	buf := realtest.Need(t, "ASSISTANT_TEST_BUF")
	s := startServer(t, map[string]string{"tiny.toml": tiny(t)})
	curl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(buf, append([]string{"curl", "--cacert", s.ca(), "--protocol", "grpc"}, args...)...)
		cmd.Dir = t.TempDir() // where there are no .proto files to look at instead
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				out = append(out, exit.Stderr...)
			}
			t.Fatalf("buf curl %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	methods := curl("--list-methods", s.https)
	for _, want := range []string{"assistant.v1.ChatService/Chat", "assistant.v1.DownloadService/WatchDownload", "grpc.health.v1.Health/Check"} {
		if !strings.Contains(methods, want) {
			t.Errorf("%s is not among\n%s", want, methods)
		}
	}
	var list struct {
		Models []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(curl("--data", "{}", s.https+"/assistant.v1.ModelService/ListModels")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Models) != 1 || list.Models[0].Name != "tiny" || list.Models[0].State != "MODEL_STATE_COLD" {
		t.Errorf("models %+v", list)
	}
	chat := curl("--data", `{"model":"tiny","max_tokens":3,"messages":[{"role":"user","content":"Count."}]}`, s.https+"/assistant.v1.ChatService/Chat")
	if !strings.Contains(chat, `"finishReason"`) || !strings.Contains(chat, `"completionTokens"`) {
		t.Errorf("the chat: %s", chat)
	}
}
