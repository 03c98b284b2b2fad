package enginetest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// run is the life of the process. It returns its exit status.
func run(o Options) int {
	if o.Daemonize && o.daemonStage < 2 {
		return fork(o)
	}
	events, err := openEvents(o.Events, o.Alias)
	if err != nil {
		return fail(err)
	}
	terms := make(chan os.Signal, 16)
	signal.Notify(terms, syscall.SIGTERM, os.Interrupt) // before anybody is told that there is somebody to signal
	events.add(Event{Name: EventStart, Args: o.args, Visible: os.Getenv("CUDA_VISIBLE_DEVICES")})
	for _, l := range o.Stderr {
		fmt.Fprintln(os.Stderr, l)
	}
	end := func(status int) int {
		events.add(Event{Name: EventStop})
		return status
	}
	if o.ExitCode >= 0 && o.ExitAfter == 0 {
		return end(o.ExitCode)
	}
	if o.Child {
		pid, err := leaveChild()
		if err != nil {
			return fail(err)
		}
		events.add(Event{Name: EventChild, Child: pid})
	}

	life := time.After(o.MaxLife)
	var exit <-chan time.Time
	if o.ExitCode >= 0 {
		exit = time.After(o.ExitAfter)
	}
	served := make(chan error, 1)
	if !o.Hang {
		go func() {
			if o.guest {
				served <- serveGuest(o, events)
			} else {
				served <- serve(o, events)
			}
		}()
	}
	for ignored := 0; ; {
		select {
		case <-terms:
			events.add(Event{Name: EventTerm})
			if o.IgnoreTerm < 0 || ignored < o.IgnoreTerm {
				ignored++
				continue
			}
			return end(0)
		case <-exit:
			return end(o.ExitCode)
		case <-life:
			return end(fail(fmt.Errorf("still here after %s", o.MaxLife)))
		case err := <-served:
			if errors.Is(err, io.EOF) {
				return end(0) // a guest whose stdin was closed
			}
			return end(fail(err))
		}
	}
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}

// serve listens and answers; it returns only with an error.
func serve(o Options, events *eventLog) error {
	s := newServer(o, events)
	if o.Ready == "refuse" {
		if err := s.load(); err != nil {
			return err
		}
	}
	l, err := listen(o)
	if err != nil {
		return err
	}
	ready := func() {
		now := time.Now().UnixNano()
		s.setReady()
		events.add(Event{Name: EventReady, Time: now})
	}
	if o.Ready == "refuse" {
		ready()
	} else {
		go func() {
			if err := s.load(); err != nil {
				os.Exit(fail(err))
			}
			ready()
		}()
	}
	fmt.Fprintf(os.Stderr, "main: server is listening on %s\n", address(l))
	var handler http.Handler = s
	if o.Dialect == DialectLlamaAPIServer {
		handler = newEdge(s)
	}
	return (&http.Server{Handler: handler}).Serve(l)
}

// listen binds as llama-server does, down to what it says when it can't.
func listen(o Options) (net.Listener, error) {
	network, addr := "tcp", net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	switch {
	case strings.HasSuffix(o.Host, ".sock"):
		network, addr = "unix", o.Host
	case o.WrongPort:
		addr = net.JoinHostPort(o.Host, "0")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("couldn't bind HTTP server socket, hostname: %s, port: %d\n%w", o.Host, o.Port, err)
	}
	return l, nil
}

// address is what a client dials: http://host:port or unix:/path.
func address(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// fork starts the next stage of a daemon and returns: first a child in a
// session of its own, then its child, which serves and is nobody's leader.
func fork(o Options) int {
	args := o.without("daemonize")
	if o.daemonStage == 0 {
		args = append(args, "--daemonize", "--daemon-stage", "1")
	}
	cmd := self(args...)
	if o.daemonStage == 0 {
		ownSession(cmd)
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	return 0
}

// leaveChild starts a child that shares our output and process group, and sleeps.
func leaveChild() (pid int, err error) {
	cmd := self("--hang")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// self is this program as another fake engine.
func self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{Word}, args...)...)
	if exe, err := os.Executable(); err == nil {
		cmd.Path = exe
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// What the environment says was read into our flags already.
	cmd.Env = append(os.Environ(), EnvRun+"=", EnvArgs+"=")
	return cmd
}

// die ends the process as SIGKILL does, with nothing flushed or closed.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {} // until the signal is delivered
}
