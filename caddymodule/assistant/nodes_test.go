package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"assistant/internal/enginetest"
)

// node is one Assistant of several, at an address of its own.
type node struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

// newNode makes a node, which does not run yet.
func newNode(t *testing.T, ip string, remotes []string, models map[string]string) *node {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	others := ""
	if len(remotes) > 0 {
		others = "remote_servers http://" + strings.Join(remotes, " http://")
	}
	n.write("Caddyfile", fmt.Sprintf(`{
	admin off
	persist_config off
	grace_period 5s
	assistant {
		config_dir ./models
		state_dir ./state
		max_load 0
		%s
	}
}
http://%s {
	bind %s
	assistant
}
`, others, n.addr, ip))
	for name, text := range models {
		n.write(filepath.Join("models", name), text)
	}
	t.Cleanup(n.stop)
	return n
}

func (n *node) write(name, text string) {
	n.t.Helper()
	(&server{t: n.t, dir: n.dir}).write(name, text)
}

func (n *node) start() {
	n.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command(exe, "run", "--config", "Caddyfile")
	n.cmd.Dir = n.dir
	n.cmd.Env = append(os.Environ(), envServer+"=1", "HOME="+n.dir, "XDG_DATA_HOME="+filepath.Join(n.dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(n.dir, "config"))
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	waitFor(n.t, "a node", func() bool {
		res, err := http.Get("http://" + n.addr + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// signal sends the router alone a signal; its engines go on.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Error(err)
	}
	if s == syscall.SIGKILL {
		_ = n.cmd.Wait()
	}
}

func (n *node) stop() {
	if n.cmd == nil || n.cmd.ProcessState != nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGCONT)
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(bound, func() { _ = n.cmd.Process.Kill() })
	_ = n.cmd.Wait()
	kill.Stop()
	if n.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(n.dir, "log"))
		const longest = 3000
		n.t.Logf("log of %s:\n%s", n.addr, log[max(0, len(log)-longest):])
	}
}

// load is a number of clients that ask a node one request after the other, half of them streamed, and what became of that by phase.
type load struct {
	addr   string
	phase  atomic.Int32
	client *http.Client

	mu     sync.Mutex
	phases []tally
}

// tally is what became of the requests that began in a phase.
type tally struct {
	answered []time.Duration
	broken   int // streams that had begun, and ended with an error event
	lost     []string
}

func (l *load) run(n int, stop <-chan struct{}) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					l.ask(i%2 == 0)
				}
			}
		})
	}
	all.Wait()
}

func (l *load) ask(stream bool) {
	phase, began := l.phase.Load(), time.Now()
	body := fmt.Sprintf(`{"model":"m","stream":%v,"messages":[{"role":"user","content":"Hi"}]}`, stream)
	res, err := l.client.Post("http://"+l.addr+"/v1/chat/completions", "application/json", strings.NewReader(body))
	lost, broken := "", false
	if err != nil {
		lost = err.Error()
	} else {
		said, readErr := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case res.StatusCode != http.StatusOK:
			lost = fmt.Sprintf("%d %s", res.StatusCode, said)
		case stream && bytes.Contains(said, []byte("data: [DONE]")), !stream && readErr == nil && bytes.Contains(said, []byte(`"choices"`)):
		case stream && bytes.Contains(said, []byte(`"choices"`)) && bytes.Contains(said, []byte(`"error"`)):
			broken = true
		default:
			lost = fmt.Sprintf("an improper end: %v: %s", readErr, said)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.phases) <= int(phase) {
		l.phases = append(l.phases, tally{})
	}
	t := &l.phases[phase]
	switch {
	case lost != "":
		t.lost = append(t.lost, lost)
	case broken:
		t.broken++
	default:
		t.answered = append(t.answered, time.Since(began))
	}
}

// TestNodesComeAndGo has one Assistant that sends requests on to three others, under load, of which one is slow, one is killed, and one falls silent
// as if its cable was cut: every request that had not begun to stream is answered.
func TestNodesComeAndGo(t *testing.T) {
	engine := enginetest.Binary(t)
	model := func(delay string) map[string]string {
		return map[string]string{"m.toml": fakeModelOf(engine, "--tokens", "10", "--token-delay", delay) + "preload = true\n"}
	}
	killed := newNode(t, "127.0.0.2", nil, model("5ms"))
	silent := newNode(t, "127.0.0.3", nil, model("5ms"))
	slow := newNode(t, "127.0.0.4", nil, model("50ms"))
	front := newNode(t, "127.0.0.1", []string{killed.addr, silent.addr, slow.addr}, nil)
	for _, n := range []*node{killed, silent, slow, front} {
		n.start()
	}
	waitFor(t, "the model to be listed", func() bool {
		res, err := http.Get("http://" + front.addr + "/v1/models")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return strings.Contains(string(b), `"m"`)
	})
	l := &load{addr: front.addr, client: &http.Client{Timeout: bound, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { l.run(16, stop); close(ended) }()
	steps := []struct {
		name string
		do   func()
		time time.Duration
	}{
		{"before", func() {}, 2 * time.Second},
		{"one is killed", func() { killed.signal(syscall.SIGKILL) }, 3 * time.Second},
		{"it is back", func() { killed.start() }, 2 * time.Second},
		{"one falls silent", func() { silent.signal(syscall.SIGSTOP) }, 9 * time.Second},
		{"it is back too", func() { silent.signal(syscall.SIGCONT) }, 2 * time.Second},
	}
	for i, s := range steps {
		s.do()
		l.phase.Store(int32(i))
		time.Sleep(s.time) // how long the load goes on: nothing is right because of it
	}
	close(stop)
	<-ended
	l.client.CloseIdleConnections()
	for i, s := range steps {
		p := l.phases[i]
		slices.Sort(p.answered)
		at := func(q float64) time.Duration {
			if len(p.answered) == 0 {
				return 0
			}
			return p.answered[int(q*float64(len(p.answered)-1))].Round(time.Millisecond)
		}
		t.Logf("%-18s %5d answered, p50 %v, p99 %v, longest %v; %d streams broke off with an error, %d lost", s.name, len(p.answered), at(0.5), at(0.99), at(1), p.broken, len(p.lost))
		if len(p.lost) > 0 {
			t.Errorf("%s: %d requests were lost, such as %s", s.name, len(p.lost), p.lost[0])
		}
		if len(p.answered) == 0 {
			t.Errorf("%s: nothing was answered", s.name)
		}
	}
}

// fakeModelOf is a model of the fake engine, which answers any number of requests at a time.
func fakeModelOf(engine string, flags ...string) string {
	argv := append([]string{engine, "--port", "{{port}}"}, flags...)
	return fmt.Sprintf("command = [\"%s\"]\nready_path = \"/health\"\n", strings.Join(argv, `", "`))
}
