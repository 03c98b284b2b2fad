//go:build unix

package lifecycle

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"assistant/internal/enginetest"
	"assistant/internal/gguf/gguftest"
	"assistant/modeldir"
)

// guestModel is a model for a guest in WasmEdge, for which this test binary poses with the given flags of the fake engine.
func guestModel(t *testing.T, flags string) *modeldir.Model {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "wasmedge")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "libwasmedgePluginWasiNN.so"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	file := new(gguftest.File).Add("general.architecture", "llama").Add("tokenizer.chat_template", "{{ messages }}")
	return &modeldir.Model{
		Name: "m", Key: "m", Kind: modeldir.Chat, File: filepath.Join(dir, "m.toml"), Engine: modeldir.EngineWasmEdge, Wasm: modeldir.WasmGuest,
		ModelPath: file.Write(t, filepath.Join(dir, "m.gguf")), Concurrency: 2,
		Env: map[string]string{"WASMEDGE_DIR": dir, "WASMEDGE_PLUGIN_PATH": dir, enginetest.EnvRun: "1", enginetest.EnvArgs: flags},
	}
}

// askGuest asks a running instance, by its socket, as the router does.
func askGuest(ctx context.Context, t *testing.T, run *Running, body string) (*http.Response, error) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, run.Network, run.Address)
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://guest/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return transport.RoundTrip(r)
}

const guestChat = `{"messages":[{"role":"user","content":"Hi"}],"stream":true}`

func TestGuestServes(t *testing.T) {
	r := newTestRunner(t)
	in, to := startInstance(t, r, guestModel(t, "--tokens 20 --start-delay 50ms"), bound)
	run := to.isReady(t)
	if run.Network != "unix" || run.Slots != 2 {
		t.Errorf("network, slots = %s, %d, want unix, 2", run.Network, run.Slots)
	}
	resp, err := askGuest(t.Context(), t, run, guestChat)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(b), "data: [DONE]\n\n") || strings.Count(string(b), "data: ") < 20 {
		t.Errorf("%d, %v: %s", resp.StatusCode, err, b)
	}
	if !strings.Contains(in.Output().String(), "a line of WasmEdge's on stdout") {
		t.Errorf("its output: %s", in.Output())
	}
	r.Stop(in)
	if err := to.hasExited(t); err != nil {
		t.Error(err)
	}
	if alive(run.PID) {
		t.Error("the guest is alive after its exit was reported")
	}
	if _, err := os.Stat(run.Address); err == nil {
		t.Error("the socket is still there")
	}
}

// TestGuestIsToldThatAClientLeft: its one slot is free for the next at once.
func TestGuestIsToldThatAClientLeft(t *testing.T) {
	m := guestModel(t, "--tokens 1000000 --token-delay 5ms")
	m.Concurrency = 1
	r := newTestRunner(t)
	in, to := startInstance(t, r, m, bound)
	run := to.isReady(t)
	for range 3 {
		ctx, leave := context.WithCancel(t.Context())
		resp, err := askGuest(ctx, t, run, guestChat)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
			t.Error(err)
		}
		leave()
		resp.Body.Close()
	}
	r.Stop(in)
	_ = to.hasExited(t)
}

func TestGuestDiesWhileItAnswers(t *testing.T) {
	r := newTestRunner(t)
	_, to := startInstance(t, r, guestModel(t, "--die-after-tokens 5"), bound)
	run := to.isReady(t)
	resp, err := askGuest(t.Context(), t, run, guestChat)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that broke off looks whole: %s", b)
	}
	if err := to.hasExited(t); err == nil || !strings.Contains(err.Error(), "died") {
		t.Errorf("exit: %v", err)
	}
}

func TestGuestIsKilled(t *testing.T) {
	r := newTestRunner(t)
	in, to := startInstance(t, r, guestModel(t, ""), bound)
	run := to.isReady(t)
	if err := syscall.Kill(run.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := to.hasExited(t); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("exit: %v, output %s", err, in.Output())
	}
}

func TestGuestThatDoesNotStart(t *testing.T) {
	for name, tt := range map[string]struct {
		flags   string
		timeout time.Duration
		want    string
	}{
		"says why":            {"--exit-code 1 --stderr no-such-graph", bound, "no-such-graph"},
		"never says anything": {"--hang", 300 * time.Millisecond, "not ready after 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRunner(t)
			_, to := startInstance(t, r, guestModel(t, tt.flags), tt.timeout)
			if err := to.hasExited(t); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("exit: %v, want %q", err, tt.want)
			}
		})
	}
}

// TestGuestThatIsNone: what speaks something else is not waited for, and what ends is never taken for ready.
func TestGuestThatIsNone(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   []string
	}{
		"speaks something else": {`printf 'hello\n\000Z\000\000\000\000\000\000\000\000'; exec sleep 100`, []string{"what is no frame", "hello"}},
		"closes its stdout":     {`exec >&-; exec sleep 100`, []string{"ended before it was ready: it closed its output"}},
		"ends a little later":   {`echo no such option >&2; exec >&-; sleep 0.2; exit 1`, []string{"ended before it was ready", "no such option"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := guestModel(t, "")
			program := filepath.Join(m.Env["WASMEDGE_DIR"], "wasmedge")
			if err := os.Remove(program); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil { //nolint:gosec // a program
				t.Fatal(err)
			}
			r := newTestRunner(t)
			_, to := startInstance(t, r, m, bound)
			err := to.hasExited(t)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("exit: %v, want %q", err, want)
				}
			}
		})
	}
}
