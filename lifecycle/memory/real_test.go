package memory

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// script runs a script of the repository and returns the path it prints.
func script(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join("..", "..", "scripts", name))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// TestEstimateAgainstRealEngine starts the real llama-server on the real models, and compares what was estimated with what it
// takes once it is ready: all of it, and what cannot be paged out. -v prints the table of docs/memory.md.
func TestEstimateAgainstRealEngine(t *testing.T) {
	server, models := script(t, "get-engine.sh"), script(t, "get-models.sh")
	// The estimate is to be no less than a twentieth below what is measured and no more than this factor above it.
	const below, above = 0.95, 1.7
	t.Logf("%-24s %-16s %10s %10s %10s %10s %6s", "model", "args", "hard est.", "measured", "all est.", "measured", "ratio")
	for _, c := range []struct {
		file  string
		kind  modeldir.Kind
		ctx   int
		slots int
		args  []string
	}{
		{"smollm2-135m-instruct.gguf", modeldir.Chat, 4096, 2, nil},
		{"smollm2-135m-instruct.gguf", modeldir.Chat, 0, 0, nil},
		{"smollm2-135m-instruct.gguf", modeldir.Chat, 8192, 4, []string{"-ctk", "q8_0", "-ctv", "q8_0"}},
		{"smollm2-135m-instruct.gguf", modeldir.Chat, 2048, 1, []string{"-lm", "none"}},
		{"all-minilm-l6-v2.gguf", modeldir.Embedding, 0, 0, nil},
		{"tiny.gguf", modeldir.Chat, 0, 0, nil},
	} {
		m := &modeldir.Model{
			Name: "m", Kind: c.kind, Engine: modeldir.EngineLlamaServer, ModelPath: filepath.Join(models, c.file),
			CtxSize: c.ctx, Concurrency: c.slots, Args: c.args,
		}
		n, err := Estimate(t.Context(), m, Here{})
		if err != nil {
			t.Fatal(err)
		}
		hardEst, soft := n.Host(0)
		hard, all := measure(t, server, m)
		ratio := float64(hardEst+soft) / float64(all)
		t.Logf("%-24s %-16s %10s %10s %10s %10s %6.2f", strings.TrimSuffix(c.file, ".gguf"),
			strings.Join(append([]string{strconv.Itoa(c.ctx), strconv.Itoa(c.slots)}, c.args...), " "),
			machine.GiB(hardEst), machine.GiB(hard), machine.GiB(hardEst+soft), machine.GiB(all), ratio)
		if ratio < below || ratio > above {
			t.Errorf("%s %+v: estimated %d, measured %d", c.file, c, hardEst+soft, all)
		}
		if float64(hardEst) < below*float64(hard) {
			t.Errorf("%s %+v: estimated %d that cannot be paged out, measured %d", c.file, c, hardEst, hard)
		}
	}
}

// measure starts the engine as the router would and returns what it takes when it has answered once.
func measure(t *testing.T, server string, m *modeldir.Model) (hard, all int64) {
	t.Helper()
	argv := []string{"-m", m.ModelPath, "--host", "127.0.0.1", "--port", "0", "-t", "1", "--offline"}
	if m.Kind == modeldir.Embedding {
		argv = append(argv, "--embeddings")
	}
	if m.CtxSize > 0 {
		argv = append(argv, "-c", strconv.Itoa(m.CtxSize))
	}
	if m.Concurrency > 0 {
		argv = append(argv, "-np", strconv.Itoa(m.Concurrency))
	}
	cmd := exec.Command(server, append(argv, m.Args...)...)
	stderr, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not ready", m.ModelPath)
		}
		time.Sleep(20 * time.Millisecond)
		out, _ := os.ReadFile(stderr.Name())
		if strings.Contains(string(out), "error: ") {
			t.Fatalf("%s: %s", m.ModelPath, out)
		}
		_, rest, ok := strings.Cut(string(out), "listening on ")
		if !ok || !strings.Contains(rest, "\n") {
			continue
		}
		url, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		resp, err := http.Get(strings.TrimSpace(url) + "/health")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			break
		}
	}
	hard, _, err = machine.Usage([]int{cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	return hard, hard + residentFiles(t, cmd.Process.Pid)
}

// residentFiles is what of files a process has in memory: not its share, as another engine on this machine may have mapped the
// same ones.
func residentFiles(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
