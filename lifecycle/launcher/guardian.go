package launcher

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The guardian is a second process of our own binary that holds the end of a pipe to the
// router. When the router is gone, however it went, the pipe ends, and the guardian
// stops every engine that carries the router's mark or is in a group it was told of.
// A parent-death signal would not do: it comes when the forking *thread* ends, and does
// not reach grandchildren (golang/go#27505).

// guardianName is the guardian's argv[0]; by it the binary knows what it is to be.
const guardianName = "assistant-guardian"

// killAfter is how long the guardian waits between SIGTERM and SIGKILL. With it no engine
// outlives its router by 2 s.
const killAfter = time.Second

// init turns the process into a guardian before anything else of the binary is set up: so it
// is small, and any binary that links this package, a test's too, can be one.
func init() {
	if len(os.Args) == 2 && filepath.Base(os.Args[0]) == guardianName {
		watch(os.Stdin, os.Args[1])
		os.Exit(0)
	}
}

// guard is the router's end of the guardian.
type guard struct {
	mu   sync.Mutex
	pipe *os.File
	done chan struct{} // closed when the guardian process ended
}

// guardian returns the guardian, started if it is not there yet or was killed.
func (l *Launcher) guardian() (*guard, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guard != nil && !l.guard.dead() {
		return l.guard, nil
	}
	if l.guard != nil {
		l.guard.close()
	}
	var err error
	l.guard, err = startGuardian(l.ID)
	return l.guard, err
}

func startGuardian(router string) (*guard, error) {
	path, err := self()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command(path) //nolint:gosec // our own binary
	cmd.Args = []string{guardianName, router}
	cmd.Dir = string(filepath.Separator)
	cmd.Stdin = r
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	g := &guard{pipe: w, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(g.done)
	}()
	return g, nil
}

func (g *guard) dead() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

func (g *guard) add(pgid int)    { g.tell("+", pgid) }
func (g *guard) remove(pgid int) { g.tell("-", pgid) }

// tell may fail if the guardian was killed; the state files are there for that case.
func (g *guard) tell(sign string, pgid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = fmt.Fprintf(g.pipe, "%s%d\n", sign, pgid)
}

// close ends the guardian in peace and waits for it.
func (g *guard) close() {
	g.pipe.Close()
	<-g.done
}

// watch is the guardian's life: it keeps the list of groups until the pipe ends.
func watch(pipe io.Reader, router string) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	groups := map[int]bool{}
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		line := lines.Text()
		pgid, err := strconv.Atoi(strings.TrimLeft(line, "+-"))
		if err != nil || pgid <= 1 {
			continue
		}
		if line[0] == '+' {
			groups[pgid] = true
		} else {
			delete(groups, pgid)
		}
	}
	end(router, groups)
}

// end stops what is left.
func end(router string, groups map[int]bool) {
	sweep(
		func(sig syscall.Signal) { signalAll(router, groups, sig) },
		func() bool { return anyLeft(router, groups) },
	)
}

func signalAll(router string, groups map[int]bool, sig syscall.Signal) {
	pids := marked(router+":", true)
	for pgid := range groups {
		signalGroup(pgid, sig)
	}
	for _, pid := range pids {
		if !groups[groupOf(pid)] { // to each once
			signalOne(pid, sig)
		}
	}
}

func anyLeft(router string, groups map[int]bool) bool {
	for pgid := range groups {
		if groupAlive(pgid) {
			return true
		}
	}
	return anyAlive(marked(router+":", true))
}

// Sweep stops everything that carries the mark of an instance whose router is no more, and returns how
// many processes that were.
func Sweep(mark string) int {
	p := &Process{Mark: mark, exited: make(chan struct{}), seen: map[int]string{}}
	close(p.exited) // to us it is nobody's child
	found := len(p.members())
	sweep(p.Signal, p.Alive)
	return found
}

// SweepGroup does the same for a process group.
func SweepGroup(pgid int) {
	sweep(
		func(sig syscall.Signal) { signalGroup(pgid, sig) },
		func() bool { return groupAlive(pgid) },
	)
}

// sweep sends SIGTERM, and SIGKILL after a second to what is left then.
func sweep(send func(syscall.Signal), left func() bool) {
	if !left() {
		return
	}
	send(syscall.SIGTERM)
	for deadline := time.Now().Add(killAfter); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if !left() {
			return
		}
	}
	send(syscall.SIGKILL)
}
