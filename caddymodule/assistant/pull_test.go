package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/hub/hubtest"
	"assistant/internal/realtest"
)

// command runs the binary's own command against the server, and returns what it printed.
func (s *server) command(args ...string) (string, error) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"assistant", "--address", strings.TrimPrefix(s.admin, "http://")}, args...)...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), envServer+"=1", "HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is command for what must work.
func (s *server) run(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...)
	if err != nil {
		s.t.Fatalf("caddy assistant %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// publishSmollm2 is a hub with a real model in a repository.
func publishSmollm2(t *testing.T) (hub *hubtest.Hub, repo string) {
	t.Helper()
	weights, err := os.ReadFile(filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), "smollm2-135m-instruct.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	hub, repo = hubtest.NewHub(t), "tests/SmolLM2-135M-Instruct-GGUF"
	hub.Repo(repo).Licence = "apache-2.0"
	hub.Add(repo, "SmolLM2-135M-Instruct-Q4_K_M.gguf", weights)
	return hub, repo
}

// TestPulledModelAnswers brings a real model from a hub by its name, chats with it, and removes it.
func TestPulledModelAnswers(t *testing.T) {
	hub, repo := publishSmollm2(t)
	s := startServer(t, nil, "HF_ENDPOINT="+hub.URL)
	src := "hf:" + repo + ":Q4_K_M"
	if out := s.run("pull", src, "--dry-run"); !strings.Contains(out, "apache-2.0") || !strings.Contains(out, "Q4_K_M") {
		t.Errorf("--dry-run says:\n%s", out)
	}
	if out := s.run("pull", src, "--name", "smol"); !strings.Contains(out, "is here") || !strings.Contains(out, "apache-2.0") {
		t.Errorf("pull says:\n%s", out)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "models", "smol.toml"))
	if err != nil || !strings.Contains(string(text), src) {
		t.Errorf("%v:\n%s", err, text)
	}
	if status, body, err := s.ask("smol", 8); status != 200 || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
	if out := s.run("downloads"); !strings.Contains(out, "completed") {
		t.Errorf("downloads says:\n%s", out)
	}
	if out, err := s.command("pull", "hf:tests/nothing"); err == nil || !strings.Contains(out, "hf:tests/nothing") {
		t.Errorf("a pull of nothing: %v\n%s", err, out)
	}
	if out := s.run("prune"); !strings.Contains(out, "freed") || strings.Contains(out, src) {
		t.Errorf("prune says:\n%s", out)
	}
	// A file that only names the source needs nothing more.
	s.write("models/named.toml", "model_source = \""+src+"\"\n")
	waitFor(t, "the model to be listed", func() bool { return strings.Contains(s.run("models"), "named") })
	if status, body, err := s.ask("named", 8); status != 200 || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
}

// TestScannedModelsAnswer has real files found where they lie, which then serve.
func TestScannedModelsAnswer(t *testing.T) {
	s := startServer(t, nil)
	out := s.run("scan", realtest.Need(t, "ASSISTANT_TEST_MODELS"), "--config-dir", filepath.Join(s.dir, "models"))
	if !strings.Contains(out, "embedding") || !strings.Contains(out, "smollm2-135m-instruct") {
		t.Errorf("scan says:\n%s", out)
	}
	waitFor(t, "the models to be listed", func() bool { return strings.Contains(s.run("models"), "smollm2-135m-instruct") })
	if status, body, err := s.ask("smollm2-135m-instruct", 8); status != 200 || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
}
