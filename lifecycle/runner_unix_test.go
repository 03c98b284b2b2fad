//go:build unix

package lifecycle

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"assistant/internal/enginetest"
	"assistant/modeldir"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	if os.Getenv(envRouter) != "" {
		os.Exit(runRouter(os.Getenv(envRouter)))
	}
	goleak.VerifyTestMain(m)
}

// bound is how long anything here may take on a busy machine before it counts as hung.
const bound = 30 * time.Second

// report is where a runner's reports arrive.
type report struct {
	ready  chan *Running
	dying  chan error
	exited chan error
	saved  chan int

	waiting []Waiting // told to whoever asks
}

func newReport() *report {
	return &report{ready: make(chan *Running, 1), dying: make(chan error, 1), exited: make(chan error, 1), saved: make(chan int, 1)}
}

func (r *report) Ready(_ *Instance, run *Running)  { r.ready <- run }
func (r *report) Waiting(*Instance, int) []Waiting { return r.waiting }
func (r *report) Saved(_ *Instance, attempt int)   { r.saved <- attempt }
func (r *report) Dying(_ *Instance, err error)     { r.dying <- err }
func (r *report) Exited(_ *Instance, err error)    { r.exited <- err }
func (r *report) isReady(t *testing.T) *Running {
	t.Helper()
	return receive(t, r.ready, "readiness", r.exited)
}

func (r *report) hasExited(t *testing.T) (err error) {
	t.Helper()
	return receive(t, r.exited, "the exit", nil)
}

func receive[T any](t *testing.T, c <-chan T, what string, instead <-chan error) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case err := <-instead:
		t.Fatalf("waiting for %s, the instance exited: %v", what, err)
	case <-time.After(bound):
		t.Fatalf("no %s within %v", what, bound)
	}
	panic("unreachable")
}

func newTestRunner(t *testing.T) *Runner {
	r := NewRunner(t.TempDir(), slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return r
}

// commandModel is a model that runs the fake engine with the given flags on a chosen port.
func commandModel(t *testing.T, flags ...string) *modeldir.Model {
	return &modeldir.Model{
		Name: "m", Key: "m", Kind: modeldir.Chat, File: filepath.Join(t.TempDir(), "m.toml"), Engine: modeldir.EngineCommand,
		Command: enginetest.Command(append([]string{"--port", "{{port}}"}, flags...)...), ReadyPath: "/health",
		StopTimeout: 5 * time.Second,
	}
}

func startInstance(t *testing.T, r *Runner, m *modeldir.Model, timeout time.Duration) (*Instance, *report) {
	t.Helper()
	in := &Instance{Model: m, Gen: 1, State: Starting, Created: time.Now()}
	to := newReport()
	r.Start(in, timeout, to)
	t.Cleanup(func() { r.Stop(in) })
	return in, to
}

func get(t *testing.T, run *Running, path string) int {
	t.Helper()
	status, err := run.Lean.Get(t.Context(), path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return status
}

func TestEngineStartsServesAndStops(t *testing.T) {
	for name, flags := range map[string][]string{
		"refuses until ready":      {"--start-delay", "150ms", "--ready", "refuse"},
		"answers 503 until ready":  {"--start-delay", "150ms", "--ready", "503"},
		"accepts and says nothing": {"--start-delay", "150ms", "--ready", "tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRunner(t)
			in, to := startInstance(t, r, commandModel(t, flags...), bound)
			run := to.isReady(t)
			if got := get(t, run, "/health"); got != http.StatusOK {
				t.Errorf("/health: %d", got)
			}
			if run.Loaded < 150*time.Millisecond {
				t.Errorf("ready after %v, before the engine was", run.Loaded)
			}
			if files, _ := os.ReadDir(r.records.dir); len(files) != 1 {
				t.Errorf("%d records of a running instance, want 1", len(files))
			}
			r.Stop(in)
			if err := to.hasExited(t); err != nil {
				t.Errorf("exit after Stop: %v, want nil", err)
			}
			if alive(run.PID) {
				t.Error("the engine is alive after its exit was reported")
			}
			if files, _ := os.ReadDir(r.records.dir); len(files) != 0 {
				t.Errorf("%d records left", len(files))
			}
		})
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestUnixSocketIsUsedWhereTheEngineCan(t *testing.T) {
	fakeLlamaServer(t)
	model := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(model, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newTestRunner(t)
	m := &modeldir.Model{
		Name: "m", Key: "m", Kind: modeldir.Chat, File: "/m.toml", Engine: modeldir.EngineLlamaServer, ModelPath: model,
		Args: []string{"-np", "3"},
	}
	in, to := startInstance(t, r, m, bound)
	run := to.isReady(t)
	if run.Network != "unix" || run.Slots != 3 {
		t.Errorf("network, slots = %s, %d, want unix, 3", run.Network, run.Slots)
	}
	if info, err := os.Stat(filepath.Dir(run.Address)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's directory: %v, %v, want mode 0700", info, err)
	}
	r.Stop(in)
	_ = to.hasExited(t)
	if _, err := os.Stat(run.Address); err == nil {
		t.Error("the socket is still there")
	}
}

// fakeLlamaServer makes this test binary pose as llama-server for programs started from here on.
func fakeLlamaServer(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LLAMA_SERVER", exe)
	t.Setenv(enginetest.EnvRun, "1")
}

func TestFailedStartsSayWhatTheEngineSaid(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	taken := held.Addr().(*net.TCPAddr).Port
	tests := map[string]struct {
		change  func(*modeldir.Model)
		flags   []string
		timeout time.Duration
		want    []string
	}{
		"exits at once": {
			flags: []string{"--stderr", "cuda: out of memory", "--exit-code", "3"},
			want:  []string{"ended before it was ready", "exit status 3", "cuda: out of memory"},
		},
		"exits at once with status 0": {
			flags: []string{"--exit-code", "0"}, want: []string{"ended before it was ready"},
		},
		"hangs": {
			flags: []string{"--hang", "--stderr", "loading"}, timeout: 300 * time.Millisecond,
			want: []string{"not ready after 300ms", "start_timeout", "loading"},
		},
		"listens elsewhere": {
			flags: []string{"--wrong-port"}, timeout: 500 * time.Millisecond, want: []string{"not ready after"},
		},
		"another process holds its port": {
			change: func(m *modeldir.Model) { m.Port = taken },
			want:   []string{"port " + strconv.Itoa(taken) + " is held by process " + strconv.Itoa(os.Getpid())},
		},
		"no such program": {
			change: func(m *modeldir.Model) { m.Command = []string{"/no/such/engine", "{{port}}"} },
			want:   []string{"/no/such/engine", "install it"},
		},
		"nobody knows where it listens": {
			change: func(m *modeldir.Model) { m.Command = []string{"true"} }, want: []string{"{{port}}"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := commandModel(t, tt.flags...)
			if tt.change != nil {
				tt.change(m)
			}
			if tt.timeout == 0 {
				tt.timeout = bound
			}
			_, to := startInstance(t, newTestRunner(t), m, tt.timeout)
			err := to.hasExited(t)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// TestForeignListenerIsNotTakenForOurs is about llama-swap's reload bug: a health check that passes against another process.
func TestForeignListenerIsNotTakenForOurs(t *testing.T) {
	foreign := &http.Server{Handler: http.NewServeMux(), ReadHeaderTimeout: time.Second}
	foreign.Handler.(*http.ServeMux).HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go foreign.Serve(l)
	defer foreign.Close()

	m := commandModel(t, "--hang")
	m.Upstream = l.Addr().String()
	_, to := startInstance(t, newTestRunner(t), m, 500*time.Millisecond)
	if err := to.hasExited(t); err == nil || !strings.Contains(err.Error(), "not what was started") {
		t.Errorf("error: %v, want one that says who listens there", err)
	}

	m.Identity = modeldir.IdentityNone // now it is what the user says it is
	r := newTestRunner(t)
	in, to := startInstance(t, r, m, bound)
	to.isReady(t)
	r.Stop(in)
	_ = to.hasExited(t)
}

func TestStopEscalates(t *testing.T) {
	t.Run("a second SIGTERM ends it", func(t *testing.T) { // as llama-server needs while it streams
		r := newTestRunner(t)
		in, to := startInstance(t, r, commandModel(t, "--ignore-term", "1"), bound)
		run := to.isReady(t)
		began := time.Now()
		r.Stop(in)
		_ = to.hasExited(t)
		if took := time.Since(began); took < secondTerm || alive(run.PID) {
			t.Errorf("ended after %v, before the second SIGTERM at %v; alive: %v", took, secondTerm, alive(run.PID))
		}
	})
	t.Run("SIGKILL ends what ignores them all", func(t *testing.T) {
		r := newTestRunner(t)
		m := commandModel(t, "--ignore-term", "-1")
		m.StopTimeout = 1500 * time.Millisecond
		in, to := startInstance(t, r, m, bound)
		run := to.isReady(t)
		r.Stop(in)
		_ = to.hasExited(t)
		if alive(run.PID) {
			t.Error("it is alive")
		}
	})
}

func TestStartIsAbortedAtOnce(t *testing.T) {
	r := newTestRunner(t)
	in, to := startInstance(t, r, commandModel(t, "--hang"), bound)
	for in.Output() == nil { // until the process is there it has nothing to abort
	}
	began := time.Now()
	r.Stop(in)
	if err := to.hasExited(t); err != nil {
		t.Errorf("exit: %v, want nil: it was told to", err)
	}
	if took := time.Since(began); took > 500*time.Millisecond+raceSlack {
		t.Errorf("aborting took %v, want 500 ms at the most", took)
	}
}

func TestDeathWhileServingIsReported(t *testing.T) {
	_, to := startInstance(t, newTestRunner(t), commandModel(t, "--stderr", "segfault ahead", "--die-on-request"), bound)
	run := to.isReady(t)
	if err := syscall.Kill(run.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := to.hasExited(t)
	if err == nil || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), "segfault ahead") {
		t.Errorf("error: %v, want one that says killed and what was printed last", err)
	}
}

// TestShellAroundAnEngineDies: the engine lives on for a while, but is told to stop and must get no more requests; and
// nothing of it stays, even if it carries no mark.
func TestShellAroundAnEngineDies(t *testing.T) {
	for name, prefix := range map[string][]string{"marked": nil, "unmarked": {"env", "-i", "PATH=" + os.Getenv("PATH")}} {
		t.Run(name, func(t *testing.T) {
			m := commandModel(t, "--ignore-term", "-1")
			m.StopTimeout = time.Second
			m.Command = slices.Concat(prefix, []string{"sh", "-c", quoted(m.Command) + "; echo over"})
			_, to := startInstance(t, newTestRunner(t), m, bound)
			run := to.isReady(t)
			if err := syscall.Kill(run.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := receive(t, to.dying, "word of its dying", to.exited); err == nil {
				t.Error("dying without a reason")
			}
			if get(t, run, "/health") != http.StatusOK {
				t.Error("the engine was gone already: this shows nothing")
			}
			if err := to.hasExited(t); err == nil || !strings.Contains(err.Error(), "died") {
				t.Errorf("exit: %v", err)
			}
			if left := processesWith(t, strings.TrimPrefix(run.Address, "127.0.0.1:")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestWhatAnEngineStartedStopsWithIt(t *testing.T) {
	tests := map[string]func(*modeldir.Model){
		"a child that holds its output open": func(m *modeldir.Model) { m.Command = append(m.Command, "--child") },
		"a daemon in a session of its own":   func(m *modeldir.Model) { m.Command = append(m.Command, "--daemonize") },
		"behind a shell": func(m *modeldir.Model) {
			m.Command = []string{"sh", "-c", quoted(m.Command) + "; echo over"}
		},
		"without the mark in its environment": func(m *modeldir.Model) {
			m.Command = append([]string{"env", "-i"}, m.Command...)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			r := newTestRunner(t)
			m := commandModel(t)
			change(m)
			in, to := startInstance(t, r, m, bound)
			run := to.isReady(t)
			if got := get(t, run, "/health"); got != http.StatusOK {
				t.Errorf("/health: %d", got)
			}
			r.Stop(in)
			_ = to.hasExited(t)
			if _, err := net.DialTimeout("tcp", run.Address, time.Second); err == nil {
				t.Error("something still listens")
			}
			if left := processesWith(t, strings.TrimPrefix(run.Address, "127.0.0.1:")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func quoted(argv []string) string {
	var b strings.Builder
	for _, arg := range argv {
		fmt.Fprintf(&b, "'%s' ", arg)
	}
	return b.String()
}

// processesWith lists fake engines that were given the port.
func processesWith(t *testing.T, port string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range dirs {
		b, _ := os.ReadFile(file)
		if bytes.Contains(b, []byte(enginetest.Word)) && bytes.Contains(b, []byte("\x00"+port+"\x00")) {
			found = append(found, string(b))
		}
	}
	return found
}

// TestContainerLike is an engine that somebody else runs for us, as docker run -d has it: our child ends at once, what
// serves is not of our making, and only commands can stop it.
func TestContainerLike(t *testing.T) {
	dir := t.TempDir()
	port, err := choosePort()
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(dir, "pid")
	// env -i and setsid: neither mark nor group leads to it.
	script := fmt.Sprintf(`env -i setsid %s & echo $! > %s`, quoted(enginetest.Command("--port", strconv.Itoa(port))), pidFile)
	m := commandModel(t)
	m.Command = []string{"sh", "-c", script}
	m.Upstream, m.Identity = "127.0.0.1:"+strconv.Itoa(port), modeldir.IdentityNone
	m.StopCommand = []string{"sh", "-c", "kill $(cat " + pidFile + ")"}
	m.CleanupCommand = []string{"sh", "-c", "echo {{instance}} >> " + filepath.Join(dir, "cleaned")}
	r := newTestRunner(t)
	in, to := startInstance(t, r, m, bound)
	run := to.isReady(t)
	if got := get(t, run, "/health"); got != http.StatusOK {
		t.Errorf("/health: %d", got)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "cleaned")); !strings.HasPrefix(string(b), "assistant-") {
		t.Errorf("cleanup_command got the instance name %q", b)
	}
	r.Stop(in)
	_ = to.hasExited(t)
	deadline := time.Now().Add(bound)
	for {
		conn, err := net.Dial("tcp", m.Upstream)
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("stop_command did not stop it")
		}
	}
}

const envRouter = "ASSISTANT_TEST_ROUTER"

// runRouter is a router in a process of its own: it starts an engine, says so, and waits to be killed.
func runRouter(stateDir string) int {
	r := NewRunner(stateDir, slog.New(slog.DiscardHandler))
	m := &modeldir.Model{
		Name: "m", Key: "m", File: "/m.toml", Engine: modeldir.EngineCommand, ReadyPath: "/health",
		Command: enginetest.Command(append([]string{"--port", "{{port}}"}, os.Args[1:]...)...),
	}
	to := newReport()
	r.Start(&Instance{Model: m, Gen: 1, Created: time.Now()}, bound, to)
	select {
	case run := <-to.ready:
		fmt.Println(run.Address)
	case err := <-to.exited:
		fmt.Println(err)
		return 1
	}
	select {}
}

// killedRouter starts a router with an engine, kills the router and whatever else is named, and returns where its engine listens.
func killedRouter(t *testing.T, stateDir string, also func(router int), flags ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, flags...)
	cmd.Env = append(os.Environ(), envRouter+"="+stateDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if also != nil {
		also(cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return strings.TrimSpace(string(buf[:n]))
}

// TestNoEngineOutlivesItsRouter kills the router with SIGKILL: no engine lives 2 s later.
func TestNoEngineOutlivesItsRouter(t *testing.T) {
	for name, flags := range map[string][]string{
		"plain":           nil,
		"ignores SIGTERM": {"--ignore-term", "-1"},
		"daemon":          {"--daemonize"},
		"with a child":    {"--child"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := killedRouter(t, t.TempDir(), nil, flags...)
			goneWithin(t, addr, 2*time.Second+raceSlack)
		})
	}
}

func goneWithin(t *testing.T, addr string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil && len(processesWith(t, strings.TrimPrefix(addr, "127.0.0.1:"))) == 0 {
			return
		}
		if err == nil {
			conn.Close()
		}
		if time.Since(began) > limit {
			t.Fatalf("an engine at %s lives %v after its router died", addr, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestReapFindsWhatTheGuardianCouldNot kills router and guardian: the next start cleans up.
func TestReapFindsWhatTheGuardianCouldNot(t *testing.T) {
	stateDir := t.TempDir()
	addr := killedRouter(t, stateDir, func(router int) {
		for _, pid := range guardiansOf(t, router) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("the engine is gone without anybody to stop it: %v", err)
	}
	conn.Close()
	began := time.Now()
	reaped, err := Reap(t.Context(), stateDir)
	if err != nil || len(reaped) != 1 || reaped[0].Processes != 1 {
		t.Errorf("Reap = %+v, %v, want one instance with one process", reaped, err)
	}
	goneWithin(t, addr, 2*time.Second+raceSlack-time.Since(began))
	if again, err := Reap(t.Context(), stateDir); err != nil || len(again) != 0 {
		t.Errorf("a second Reap = %+v, %v, want nothing", again, err)
	}
}

func guardiansOf(t *testing.T, router int) []int {
	t.Helper()
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", router))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range children {
		b, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(b)) {
			cmd, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if pid, err := strconv.Atoi(field); err == nil && bytes.HasPrefix(cmd, []byte("assistant-guardian")) {
				pids = append(pids, pid)
			}
		}
	}
	if len(pids) == 0 {
		t.Fatal("the router has no guardian")
	}
	return pids
}

func TestReapLeavesTheLivingAlone(t *testing.T) {
	stateDir := t.TempDir()
	r := NewRunner(stateDir, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	in, to := startInstance(t, r, commandModel(t), bound)
	run := to.isReady(t)
	if reaped, err := Reap(context.Background(), stateDir); err != nil || len(reaped) != 0 {
		t.Errorf("Reap = %+v, %v, want nothing: its router lives", reaped, err)
	}
	if !alive(run.PID) {
		t.Error("the engine of a living router was stopped")
	}
	r.Stop(in)
	_ = to.hasExited(t)
}

func TestStolenPortIsTriedAgainElsewhere(t *testing.T) {
	// The thief is told the port by the engine's own command line: it binds it first, and answers as if it were ready.
	dir := t.TempDir()
	stolen := filepath.Join(dir, "stolen")
	thief := quoted(enginetest.Command()) + "--port $1 --max-life 20s"
	script := fmt.Sprintf(`if [ ! -e %[1]s ]; then : > %[1]s; env -i setsid %[2]s & echo $! > %[1]s.pid; sleep 30; else exec %[3]s --port $1; fi`,
		stolen, thief, quoted(enginetest.Command()))
	m := commandModel(t)
	m.Command = []string{"sh", "-c", script, "sh", "{{port}}"}
	r := newTestRunner(t)
	in, to := startInstance(t, r, m, bound)
	run := to.isReady(t)
	t.Cleanup(func() {
		b, _ := os.ReadFile(stolen + ".pid")
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if got := get(t, run, "/health"); got != http.StatusOK {
		t.Errorf("/health: %d", got)
	}
	r.Stop(in)
	_ = to.hasExited(t)
}

func TestOutputIsBounded(t *testing.T) {
	var o Output
	line := strings.Repeat("x", 1000)
	for range 1000 {
		o.add(line)
	}
	if n := len(o.String()); n > outputKept+1001 || n < outputKept-1001 {
		t.Errorf("%d bytes kept, want about %d", n, outputKept)
	}
	if got := strings.Count(o.Tail(), "\n"); got != tailLines-1 {
		t.Errorf("the tail has %d newlines", got)
	}
}
