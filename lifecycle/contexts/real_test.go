package contexts

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"assistant/internal/realtest"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// realBound is how long anything of the real engine may take on a busy machine before it counts as hung.
const realBound = 2 * time.Minute

// realEngine is a real llama-server with a real model, planned as the router does.
type realEngine struct {
	Endpoint
	launch Launch
	cmd    *exec.Cmd
}

// startReal starts one and waits until it is ready. One thread: more would wait for each other on a busy machine.
func startReal(t *testing.T, s *Store, args ...string) *realEngine {
	t.Helper()
	t.Setenv("LLAMA_SERVER", realtest.Need(t, "ASSISTANT_TEST_LLAMA_SERVER"))
	m := &modeldir.Model{
		Name: "smol", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer, KeepContext: true, CtxSize: 4096,
		ModelPath: filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), "smollm2-135m-instruct.gguf"),
		Args:      append([]string{"-t", "1", "--offline"}, args...),
	}
	r := &realEngine{Endpoint: Endpoint{"unix", filepath.Join(t.TempDir(), "e.sock"), place(t, s)}}
	plan, err := engine.For(m).Plan(m, engine.Place{Socket: r.Address, ContextDir: r.Dir})
	if err != nil {
		t.Fatal(err)
	}
	r.launch = Launch{plan.Argv, plan.Env, m.ModelPath}
	r.cmd = exec.Command(plan.Argv[0], plan.Argv[1:]...)
	r.cmd.Env = append(os.Environ(), plan.Env...)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), realBound)
	defer cancel()
	for {
		var reply map[string]string
		err := newClient(r.Endpoint).ask(ctx, "/health", nil, &reply)
		if err == nil {
			return r
		}
		if ctx.Err() != nil {
			t.Fatalf("not ready: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *realEngine) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("engine: %v", err)
	}
}

// The whole way on the real engine: two conversations saved, the engine stopped and started, one of them goes on.
func TestRealEngine(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<30)
	first := startReal(t, s)
	id, err := s.Identify(t.Context(), first.launch)
	if err != nil {
		t.Fatal(err)
	}
	rivers, stones := chat("rivers", 600), chat("stones", 90)
	follow := next(rivers, ask(t, first.Endpoint, rivers).text)
	ask(t, first.Endpoint, stones)
	saved := save(t, s, first.Endpoint, id, nil)
	if saved.Contexts != 2 || s.Stats().Files != 2 {
		t.Fatalf("saved %+v, %+v; want both conversations", saved, s.Stats())
	}
	hot := ask(t, first.Endpoint, follow)
	first.stop(t)
	s.Leave(first.Dir)

	second := startReal(t, s)
	given := restore(t, s, second.Endpoint, id, follow)
	if len(given) != 1 {
		t.Fatalf("restored %+v", given)
	}
	got := ask(t, second.Endpoint, follow)
	t.Logf("hot: %d tokens reused, %d computed; restored: %d and %d", hot.reuse.Cached, hot.reuse.Computed, got.reuse.Cached, got.reuse.Computed)
	if got.reuse.Cached != given[0].Common || got.reuse.Cached != hot.reuse.Cached || got.reuse.Cached < 550 || got.reuse.Computed > 50 {
		t.Errorf("reused %+v, want what was restored, %d, and as hot, %+v", got.reuse, given[0].Common, hot.reuse)
	}
	if got.text != hot.text {
		t.Errorf("restored: %q, hot: %q", got.text, hot.text)
	}
	if !s.Verify(given[0], got.reuse.Cached) {
		t.Error("held to be of no use")
	}
	otherArgs := first.launch
	otherArgs.Argv = slices.Concat(otherArgs.Argv, []string{"--rope-freq-base", "20000"})
	if other, err := s.Identify(t.Context(), otherArgs); err != nil || s.Offers(other, 0) || !s.Offers(id, 0) {
		t.Errorf("other arguments are offered the files of these: %v", err)
	}
	t.Run("damaged", func(t *testing.T) { realDamage(t, second, s, id, given[0].File, follow) })
	second.stop(t)
}

// realDamage gives the engine every kind of damaged file, and asks whether it lives.
func realDamage(t *testing.T, r *realEngine, from *Store, id Identity, name string, follow []message) {
	state, err := os.ReadFile(from.path(keptDir, name+stateExt))
	if err != nil {
		t.Fatal(err)
	}
	sidecar, err := os.ReadFile(from.path(keptDir, name+sidecarExt))
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at, n int) []byte {
		b := append([]byte(nil), state...)
		for i := range n {
			b[at+i] ^= 0xff
		}
		return b
	}
	for what, b := range map[string][]byte{
		"short by 1": state[:len(state)-1], "short by 10": state[:len(state)-10], "short by 4096": state[:len(state)-4096],
		"half": state[:len(state)/2], "100 bytes": state[:100], "5 bytes": state[:5], "empty": nil,
		"last 64 flipped": flipped(len(state)-64, 64), "one flipped": flipped(len(state)/2, 1),
		"200 kB flipped": flipped(len(state)/2, 200_000), "token count": flipped(8, 4), "a token": flipped(40, 4),
		"random": []byte(strings.Repeat("x", len(state))),
	} {
		dir := filepath.Join(t.TempDir(), "s")
		s := open(t, dir, 1<<30)
		for ext, text := range map[string][]byte{stateExt: state, sidecarExt: sidecar} {
			if err := os.WriteFile(s.path(keptDir, name+ext), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, dir, 1<<30) // it finds a whole one, which is damaged then
		if s.Stats().Files != 1 {
			t.Fatalf("%s: %+v", what, s.Stats())
		}
		if err := os.WriteFile(s.path(keptDir, name+stateExt), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if given := restore(t, s, r.Endpoint, id, follow); len(given) != 0 {
			t.Errorf("%s: restored %+v", what, given)
		}
		if st := s.Stats(); st.Files != 0 || st.Dropped[Damaged] != 1 {
			t.Errorf("%s: %+v", what, st)
		}
	}
	alive(t, r.Endpoint)
	if got := ask(t, r.Endpoint, follow); got.text == "" {
		t.Error("no answer after that")
	}
}
