package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// processes are those this run has started and must end.
type processes struct {
	dir string
	mu  sync.Mutex
	all []*process
}

type process struct {
	pid     int
	log     string // file with its stdout and stderr
	started time.Time
	cmd     *exec.Cmd
	ended   chan struct{}
}

// start runs argv with its output in a file.
func (ps *processes) start(name string, argv ...string) (*process, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	log, err := os.Create(filepath.Join(ps.dir, fmt.Sprintf("%s-%d.log", name, len(ps.all))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// Caddy keeps its own files below these.
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+ps.dir, "XDG_CONFIG_HOME="+ps.dir)
	p := &process{log: log.Name(), started: time.Now(), cmd: cmd, ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	ps.all = append(ps.all, p)
	return p, nil
}

// stopAll ends every process, the last one first, and returns when all have ended.
func (ps *processes) stopAll() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range slices.Backward(ps.all) {
		p.stop()
	}
}

// stopLast ends the process that was started last.
func (ps *processes) stopLast() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.all[len(ps.all)-1].stop()
}

// stop asks the process to end and kills it after 10 s.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// await calls ready every 2 ms until it is true. It fails if the process ends
// before, or after 30 s.
func (p *process) await(ctx context.Context, ready func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !ready() {
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s has ended: %s", p.cmd.Path, p.lastWords())
		case <-late:
			return fmt.Errorf("%s is not ready after 30 s: %s", p.cmd.Path, p.lastWords())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// lastWords are the last lines of the process's output.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-2000):]))
}

// cpu is the processor time the process has used, in seconds. Linux counts it in
// ticks of 10 ms. Elsewhere, and for no process, it is 0.
func (p *process) cpu() float64 {
	if p == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold spaces. After it, utime and stime are the
	// 12th and 13th field (proc_pid_stat(5) numbers them 14 and 15).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// rss is the memory the process has in RAM, in KiB; 0 where there is no /proc.
func (p *process) rss() float64 { return p.status("VmRSS:") }

// peak is the most memory the process has had in RAM since its start, in KiB.
func (p *process) peak() float64 { return p.status("VmHWM:") }

// status reads a size in KiB from the process's status (proc_pid_status(5)).
func (p *process) status(field string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), field)
	kib, _ := strconv.ParseFloat(strings.Fields(after + " 0")[0], 64)
	return kib
}

// freePort returns a TCP port of the loopback address that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}
