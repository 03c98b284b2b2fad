//go:build linux

package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"assistant/internal/enginetest"
)

// engineSeen is an engine as it is seen from outside: in /proc, and by what it notes of itself.
type engineSeen struct {
	pid     int
	key     string // the model's
	mark    string // one an instance
	started string // clock ticks since boot: with the pid it names a process for good

	first, last time.Time // when it was seen alive
	ready       bool
	open        int // requests
}

// watch looks at the engines of this process again and again.
type watch struct {
	t      *testing.T
	events string
	read   int64 // of the events file
	rest   []byte

	mu      sync.Mutex
	alive   map[int]*engineSeen
	seen    int // engines ever
	most    int // instances alive at a time
	allowed int // how many may be
	wanted  int // how many may be once that many were not exceeded: max_instances was lowered
	over    []string
}

func newWatch(t *testing.T, events string, limit int) *watch {
	return &watch{t: t, events: events, alive: map[int]*engineSeen{}, allowed: limit, wanted: limit}
}

// run looks until stop is closed.
func (w *watch) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
			w.look()
		}
	}
}

// limit changes what is allowed. More counts from now on, less as soon as it was once kept, also by the router's own count: a lowered limit
// stops nobody's answer.
func (w *watch) limit(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted, w.allowed = n, max(n, w.allowed)
}

// look takes one look. An engine counts from its exec to its end: less long than for the router.
func (w *watch) look() {
	decided := instances()
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[int]bool{}
	marks := map[string]bool{}
	for _, pid := range children() {
		p := readProcess(pid)
		if p.zombie || p.started == "" {
			continue
		}
		e := w.alive[pid]
		if e == nil || e.started != p.started {
			mark := markOf(pid)
			if mark == "" {
				continue // no engine: a guardian, a tool, or not executed yet
			}
			e = &engineSeen{pid: pid, mark: mark, key: keyOf(mark), started: p.started, first: time.Now()}
			w.alive[pid] = e
			w.seen++
		}
		found[pid], marks[e.mark], e.last = true, true, time.Now()
	}
	for pid := range w.alive {
		if !found[pid] {
			delete(w.alive, pid)
		}
	}
	w.most = max(w.most, len(marks))
	if len(marks) > w.allowed {
		var who []string
		for _, e := range w.alive {
			who = append(who, e.mark)
		}
		w.over = append(w.over, fmt.Sprintf("%d instances, %d allowed: %v", len(marks), w.allowed, who))
	}
	w.allowed = max(w.wanted, min(w.allowed, max(len(marks), decided)))
	w.readEvents()
}

// instances is how many there are for the router: one that is about to be executed, on its second port perhaps, is not seen outside.
func instances() (n int) {
	_ = withRuntime(func(rt *runtime) error { // without one there are none
		n = len(rt.act.Instances())
		return nil
	})
	return n
}

// readEvents takes in what engines noted since the last look.
func (w *watch) readEvents() {
	f, err := os.Open(w.events)
	if err != nil {
		return // no engine has been started yet
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, w.read, 1<<40))
	if err != nil {
		w.t.Errorf("events: %v", err)
		return
	}
	w.read += int64(len(b))
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return
		}
		w.rest = rest
		var e enginetest.Event
		if err := json.Unmarshal(line, &e); err != nil {
			w.t.Errorf("events: %v: %s", err, line)
			continue
		}
		engine := w.alive[e.Pid]
		if engine == nil {
			continue
		}
		switch e.Name {
		case enginetest.EventReady:
			engine.ready = true
		case enginetest.EventBegin:
			engine.open++
		case enginetest.EventEnd, enginetest.EventCancel:
			engine.open--
		}
	}
}

// engines returns the living ones for which is holds, by pid.
func (w *watch) engines(is func(engineSeen) bool) []engineSeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []engineSeen
	for _, e := range w.alive {
		if is(*e) {
			out = append(out, *e)
		}
	}
	slices.SortFunc(out, func(a, b engineSeen) int { return a.pid - b.pid })
	return out
}

// here reports whether the very process is alive.
func (e engineSeen) here() bool {
	p := readProcess(e.pid)
	return p.started == e.started && !p.zombie
}

func (e engineSeen) String() string { return fmt.Sprintf("%d (%s)", e.pid, e.mark) }

// process is what /proc tells of one.
type process struct {
	parent  int
	started string // "" = there is none
	zombie  bool
}

func readProcess(pid int) process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return process{}
	}
	parent, _ := strconv.Atoi(fields[1]) // the kernel writes numbers
	return process{parent: parent, started: fields[19], zombie: fields[0] == "Z" || fields[0] == "X"}
}

// children lists the processes that this one has started.
func children() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && readProcess(pid).parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// markOf returns the mark that the router gives to what it starts: "router:key#generation".
func markOf(pid int) string {
	env, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	for word := range bytes.SplitSeq(env, []byte{0}) {
		if mark, ok := bytes.CutPrefix(word, []byte("ASSISTANT_INSTANCE=")); ok {
			return string(mark)
		}
	}
	return ""
}

func keyOf(mark string) string {
	_, instance, _ := strings.Cut(mark, ":")
	key, _, _ := strings.Cut(instance, "#")
	return key
}

// openFiles counts the file descriptors of this process.
func openFiles() int {
	names, _ := os.ReadDir("/proc/self/fd")
	return len(names)
}
