// Package launcher is where instances run: as processes of this machine, so far.
//
// Every process it starts carries a mark in its environment, which whatever it starts
// in turn inherits. By that mark an engine is found again, daemonized or behind
// a shell, after its own parent or the router died.
package launcher

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
)

// markVar is the environment variable that holds the mark "router:instance".
const markVar = "ASSISTANT_INSTANCE"

// Launcher starts processes for one router.
type Launcher struct {
	// ID is this router's part of the mark: random, so that no other router's
	// engines are ever taken for ours.
	ID string

	mu    sync.Mutex
	guard *guard // nil before the first start
}

// New returns a launcher with a fresh ID. It starts nothing.
func New() *Launcher {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return &Launcher{ID: hex.EncodeToString(b[:])}
}

// Spec is what to start.
type Spec struct {
	Instance string   // the instance's part of the mark, "key#generation"
	Argv     []string // Argv[0] is a path or is looked up in PATH
	Env      []string // added to the router's own, "K=V"; the last one of a name counts
	Dir      string   // working directory; "" = the router's
	Output   *os.File // gets stdout and stderr; the launcher closes none of these
	Stdin    *os.File // nil = nothing is to be read
	Stdout   *os.File // nil = Output
}

// Process is a started program and all that it started.
type Process struct {
	PID  int
	Mark string

	exited chan struct{} // closed when the program itself ended
	err    error         // how; nil = status 0

	forget func() // tells the guardian

	mu   sync.Mutex
	seen map[int]string // processes ever found by the mark, and when each began
}

// Start starts a program in a process group of its own. It is under the guardian's care
// before it runs: if the router dies, so does it.
func (l *Launcher) Start(spec Spec) (*Process, error) {
	g, err := l.guardian()
	if err != nil {
		return nil, fmt.Errorf("start the guardian process: %w", err)
	}
	p := &Process{Mark: l.ID + ":" + spec.Instance, exited: make(chan struct{}), seen: map[int]string{}}
	cmd := exec.Command(spec.Argv[0], spec.Argv[1:]...) //nolint:gosec // running what the model file says is what this is for
	cmd.Env = append(append(os.Environ(), spec.Env...), markVar+"="+p.Mark)
	cmd.Dir = spec.Dir
	cmd.Stdout, cmd.Stderr = spec.Output, spec.Output
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	if spec.Stdout != nil {
		cmd.Stdout = spec.Stdout
	}
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.PID = cmd.Process.Pid
	g.add(p.PID)
	p.forget = func() { g.remove(p.PID) }
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Close lets the guardian go. It is called when nothing runs any more.
func (l *Launcher) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guard != nil {
		l.guard.close()
		l.guard = nil
	}
}

// Exited is closed when the program itself ended. Others that it started may go on: see [Process.Alive].
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err tells how the program ended, once it has; nil means status 0.
func (p *Process) Err() error { return p.err }

// NoteGroup remembers who is in the program's group now. What a program started is found by it after the program's end even if
// it took its mark off.
func (p *Process) NoteGroup() { p.note(groupMembers(p.PID)) }

// Forget ends the guardian's care. It is called when nothing is alive any more.
func (p *Process) Forget() { p.forget() }

// Alive reports whether the program or anything it started is alive.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return anyAlive(p.members()) || p.anySeen()
	default:
		return true
	}
}

// Signal sends a signal to the program and everything it started, to each once: many programs end at once, without
// clearing up, on a second SIGTERM.
func (p *Process) Signal(sig syscall.Signal) {
	group := 0
	select {
	case <-p.exited: // the group's number may be anybody's by now
	default:
		group = p.PID
		signalGroup(group, sig)
	}
	for _, pid := range p.found() { // last, as it reads all of /proc
		if group == 0 || groupOf(pid) != group {
			signalOne(pid, sig)
		}
	}
}

// note remembers processes that were found by the mark.
func (p *Process) note(pids []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range pids {
		p.seen[pid] = StartTime(pid)
	}
}

// anySeen reports whether any process that was once found is alive: one that is about to end loses its environment, and with
// it the mark, before it closes its sockets.
func (p *Process) anySeen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, began := range p.seen {
		if Alive(pid, began) {
			return true
		}
	}
	return false
}

// found returns what carries the mark now, and what was once found and is alive.
func (p *Process) found() []int {
	_ = p.members() // notes them
	p.mu.Lock()
	defer p.mu.Unlock()
	var pids []int
	for pid, began := range p.seen {
		if Alive(pid, began) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Processes lists the program and what it started, as far as they are alive.
func (p *Process) Processes() []int {
	pids := p.found()
	if !slices.Contains(pids, p.PID) {
		pids = append(pids, p.PID)
	}
	return pids
}

// Alive reports whether the process that began then is alive.
func Alive(pid int, began string) bool {
	return began != "" && StartTime(pid) == began && anyAlive([]int{pid})
}
