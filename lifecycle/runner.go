package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"assistant/lifecycle/contexts"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/launcher"
	"assistant/modeldir"
)

// Runner carries out starts and stops on this machine: it runs the engine's process, proves that
// what answers is that process, watches it, and sees to it that nothing of it stays.
type Runner struct {
	log      *slog.Logger
	launcher *launcher.Launcher
	compiler *compiler
	records  records
	stateDir string

	mu       sync.Mutex
	sockets  string          // directory of our unix sockets, made when first needed
	contexts *contexts.Store // nil = contexts are not kept
}

// NewRunner returns a runner that notes what runs in stateDir, so that a later router can clean up
// after this one. It starts nothing and writes nothing yet.
func NewRunner(stateDir string, log *slog.Logger) *Runner {
	l := launcher.New()
	return &Runner{
		log: log, launcher: l, compiler: newCompiler(l, log), stateDir: stateDir, records: records{dir: filepath.Join(stateDir, "instances")},
	}
}

// Close gives back what the runner holds when nothing runs any more.
func (r *Runner) Close() {
	r.compiler.close()
	r.launcher.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sockets != "" {
		os.RemoveAll(r.sockets)
	}
	if r.contexts != nil {
		r.contexts.Close()
	}
}

// handle is the runner's hold on an instance.
type handle struct {
	stop   context.CancelFunc
	output *Output
	proc   atomic.Pointer[launcher.Process] // nil before it is spawned
}

// Start begins to start in; see [Reporter] for what follows.
func (r *Runner) Start(in *Instance, timeout time.Duration, to Reporter) {
	ctx, stop := context.WithCancel(context.Background()) // a start is nobody's: no request's end ends it
	in.handle = &handle{stop: stop, output: &Output{}}
	s := &start{
		runner: r, in: in, to: to, model: in.Model, id: in.ID(),
		created: in.Created, output: in.handle.output, timeout: timeout,
		log: r.log.With("model", in.Model.Name, "instance", in.ID()),
	}
	go func() {
		defer stop()
		err := s.live(ctx)
		if ctx.Err() != nil {
			err = nil // it was told to stop: however that went, it is gone
		}
		to.Exited(in, err)
	}()
}

// Stop begins to stop in.
func (r *Runner) Stop(in *Instance) { in.handle.stop() }

// Output is what the instance printed last. It is nil for one that no runner started.
func (in *Instance) Output() *Output {
	if in.handle == nil {
		return nil
	}
	return in.handle.output
}

// Processes lists the instance's processes that are alive. It may be called without the lock.
func (in *Instance) Processes() []int {
	if in.handle == nil {
		return nil
	}
	if proc := in.handle.proc.Load(); proc != nil {
		return proc.Processes()
	}
	return nil
}

// start is the life of one instance, from its command to its last process.
type start struct {
	runner  *Runner
	in      *Instance
	to      Reporter
	model   *modeldir.Model // as it was when started
	id      string
	created time.Time
	timeout time.Duration
	output  *Output
	log     *slog.Logger

	kind  engine.Kind
	place engine.Place
	plan  engine.Plan
	proc  *launcher.Process
	kept  *kept           // nil = its contexts are not kept
	drain <-chan struct{} // closed when the output was read to its end
	guest *guestServer    // nil = the engine listens by itself
}

// errPortTaken says that the port we chose went to somebody else before our engine had it.
var errPortTaken = errors.New("another process took the port")

// portTries is how often a start is tried with another port; three thefts in a row are no accident.
const portTries = 3

// live runs the instance to its end and returns why it ended.
func (s *start) live(ctx context.Context) error {
	s.kind = engine.For(s.model)
	for try := 1; ; try++ {
		err := s.once(ctx)
		if !errors.Is(err, errPortTaken) || !s.choosesPort() || try == portTries {
			return err
		}
		s.log.Warn("start again on another port", "port", s.place.Port, "error", err)
	}
}

// choosesPort reports whether the address is ours to choose, and so to choose again.
func (s *start) choosesPort() bool { return s.model.Port == 0 && s.model.Upstream == "" }

// lostPort reports whether somebody else has the port that was chosen, now that nothing of ours is left.
func (s *start) lostPort() bool {
	return s.choosesPort() && s.place.Port > 0 && portFree(s.place.Port) != nil
}

// once is one try: prepare, spawn, prove, watch, stop.
func (s *start) once(ctx context.Context) error {
	defer s.leave()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if s.place.Socket != "" {
		defer os.Remove(s.place.Socket)
	}
	defer s.closeGuest()
	if err := s.spawn(); err != nil {
		return err
	}
	s.identify(ctx)
	run, err := s.becomeReady(ctx)
	if err != nil {
		s.end()
		if errors.Is(err, errEnded) && s.lostPort() {
			err = fmt.Errorf("%w: %w", errPortTaken, err)
		}
		return s.explain(err)
	}
	s.to.Ready(s.in, run)
	s.proc.NoteGroup() // it reads all of /proc, for which no request is to wait
	if err = s.watch(ctx); err != nil {
		s.to.Dying(s.in, s.withTail(err))
	}
	s.end()
	run.close()
	if err != nil {
		return s.explain(err)
	}
	s.runner.compiler.begin(s.plan.Compile) // now that nobody waits for this model
	return nil
}

// prepare decides where the engine listens and what is run.
func (s *start) prepare(ctx context.Context) error {
	name := strings.Map(fitForName, s.id)
	s.place = engine.Place{Instance: "assistant-" + s.runner.launcher.ID[:8] + "-" + name, Offload: s.in.Offload}
	switch {
	case s.model.Port > 0:
		s.place.Port = s.model.Port
		if err := portFree(s.model.Port); err != nil {
			return err
		}
	case s.kind.Socket && socketsWork:
		dir, err := s.runner.socketDir()
		if err != nil {
			return err
		}
		s.place.Socket = filepath.Join(dir, strconv.FormatUint(s.in.Gen, 10)+".sock")
	default:
		port, err := choosePort()
		if err != nil {
			return fmt.Errorf("choose a port: %w", err)
		}
		s.place.Port = port
	}
	s.keep()
	var err error
	if s.plan, err = s.kind.Prepare(s.model, s.place); err != nil {
		return err
	}
	if len(s.model.CleanupCommand) > 0 {
		s.command(ctx, "cleanup_command", s.model.CleanupCommand)
	}
	return ctx.Err()
}

// fitForName maps what a container's name must not hold to "-".
func fitForName(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
		return r
	default:
		return '-'
	}
}

func choosePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:errcheck,forcetypeassert // a TCP listener's address is one
}

// portFree tells early, and with a name, what an engine would tell late.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)) //nolint:gosec // checked when read
		return fmt.Errorf("port %d is held by %s: stop it, or set port = 0 to have one chosen", port, launcher.HolderOf(addr))
	}
	return fmt.Errorf("port %d: %w", port, err)
}

// socketDir is a directory that only we can enter, with a path short enough for a socket's (108
// bytes on Linux), which a state directory's need not be.
func (r *Runner) socketDir() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if info, err := os.Lstat(r.sockets); err == nil && info.IsDir() { // cleaners of temporary files may have taken it
		return r.sockets, nil
	}
	dir, err := os.MkdirTemp("", "assistant-") // mode 0700
	if err != nil {
		return "", fmt.Errorf("make a directory for sockets: %w", err)
	}
	r.sockets = dir
	return dir, nil
}

func (s *start) spawn() error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	read := s.output.follow(out, s.log.WithGroup("engine"))
	s.drain = read
	s.proc, err = s.launch(launcher.Spec{
		Instance: s.id, Argv: s.plan.Argv, Env: s.plan.Env,
		Dir: filepath.Dir(s.model.File), Output: in,
	})
	if err != nil {
		in.Close()
		<-read
		out.Close()
		return err
	}
	s.in.handle.proc.Store(s.proc)
	go func() { // the pipe is read to its end, or until nothing of the instance is left
		<-read
		out.Close()
	}()
	s.runner.records.write(s.record())
	s.log.Info("engine started", "pid", s.proc.PID, "argv", s.plan.Argv[0])
	return nil
}

// launch starts the process, and what serves in its place if it does not listen by itself.
func (s *start) launch(spec launcher.Spec) (*launcher.Process, error) {
	if s.plan.Guest == nil {
		return s.runner.launcher.Start(spec)
	}
	proc, err := s.serveGuest(spec)
	if err != nil {
		return nil, err
	}
	return proc, nil
}

func (s *start) record() record {
	rec := record{
		Router: s.runner.launcher.ID, Model: s.model.Name, Instance: s.id, Mark: s.proc.Mark,
		PID: s.proc.PID, Started: launcher.StartTime(s.proc.PID),
		RouterPID: os.Getpid(), RouterStarted: launcher.StartTime(os.Getpid()),
		Cleanup: engine.Fill(s.model.CleanupCommand, s.model, s.place), Stop: engine.Fill(s.model.StopCommand, s.model, s.place),
	}
	if s.place.Socket != "" {
		rec.Sockets = filepath.Dir(s.place.Socket)
	}
	return rec
}

// explain adds what the engine said last to an error about it.
func (s *start) explain(err error) error {
	if err == nil {
		return nil
	}
	select { // what it printed before its end may still be on its way to us
	case <-s.drain:
	case <-time.After(100 * time.Millisecond):
	}
	return s.withTail(err)
}

func (s *start) withTail(err error) error {
	tail := s.output.Tail()
	if tail == "" {
		return err
	}
	if s.kind.Explain != nil {
		if meaning := s.kind.Explain(tail); meaning != "" {
			err = fmt.Errorf("%w: %s", err, meaning)
		}
	}
	return fmt.Errorf("%w; its last output:\n%s", err, tail)
}

// command runs one of the model's own commands to its end, bounded by the stop timeout. Its
// failure is told in the log only: a container that is not there cannot be removed.
func (s *start) command(ctx context.Context, what string, argv []string) {
	ctx, cancel := context.WithTimeout(ctx, s.stopTimeout())
	defer cancel()
	argv = engine.Fill(argv, s.model, s.place)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // running what the model file says is what this is for
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		s.log.Warn(what+" failed", "error", err, "output", string(out))
	}
}

func (s *start) stopTimeout() time.Duration {
	if s.model.StopTimeout > 0 {
		return s.model.StopTimeout
	}
	return modeldir.DefaultStopTimeout
}

// address is where the engine is reached.
func (s *start) address() (network, address string) {
	if up := s.model.Upstream; up != "" {
		if path, ok := strings.CutPrefix(up, "unix/"); ok {
			return "unix", path
		}
		return "tcp", up
	}
	if s.place.Socket != "" {
		return "unix", s.place.Socket
	}
	return "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.place.Port))
}
