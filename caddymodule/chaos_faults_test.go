//go:build linux

package caddymodule

import (
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fault does something to the site, and reports whether there was something to do it to. What is left to clear up is done in the
// background, see [chaos.later].
type fault struct {
	name   string
	weight int
	strike func(*chaos, *rand.Rand) bool
}

var chaosFaults = []fault{
	{"kill -9 of an engine that starts", 4, func(c *chaos, rng *rand.Rand) bool {
		return c.kill(rng, func(e engineSeen) bool { return !e.ready })
	}},
	{"kill -9 of an idle engine", 3, func(c *chaos, rng *rand.Rand) bool {
		return c.kill(rng, func(e engineSeen) bool { return e.ready && e.open == 0 })
	}},
	{"kill -9 of an engine that answers", 5, func(c *chaos, rng *rand.Rand) bool {
		return c.kill(rng, func(e engineSeen) bool { return e.open > 0 })
	}},
	{"SIGSTOP, then SIGCONT", 5, (*chaos).freeze},
	{"a chosen port stolen", 5, (*chaos).stealChosen},
	{"a fixed port stolen", 1, (*chaos).stealFixed},
	{"state_dir not to be written to", 1, (*chaos).spoilState},
	{"a kept context damaged", 2, (*chaos).damageContext},
	{"a model's file edited", 4, (*chaos).edit},
	{"a model's file removed", 2, (*chaos).remove},
	{"a model's file renamed", 2, (*chaos).rename},
	{"a model's file broken", 2, (*chaos).breakFile},
	{"the configuration reloaded", 2, (*chaos).reload},
	{"unload", 3, func(c *chaos, rng *rand.Rand) bool {
		current(c.t).act.Unload(c.models[rng.IntN(len(c.models))].name, false)
		return true
	}},
	{"unload --force", 2, (*chaos).unloadForced},
	{"kill -9 of the guardian", 1, (*chaos).killGuardian},
}

// strikes strikes again and again.
func (c *chaos) strikes() {
	rng := rand.New(rand.NewPCG(*chaosSeed, 1<<32))
	total := 0
	for _, f := range chaosFaults {
		total += f.weight
	}
	for c.unlessStopped(time.Duration(50+rng.IntN(250)) * time.Millisecond) {
		n := rng.IntN(total)
		for _, f := range chaosFaults {
			if n -= f.weight; n < 0 {
				began := time.Now()
				if f.strike(c, rng) {
					c.mu.Lock()
					c.faults[f.name]++
					c.mu.Unlock()
					c.note(began, f.name)
				}
				break
			}
		}
	}
}

// later clears up in the background. The test waits for it, and it is not to be long.
func (c *chaos) later(f func()) { c.after.Go(f) }

// note keeps what was done, for when somebody is lost.
func (c *chaos) note(at time.Time, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const longest = 1000
	c.journal = append(c.journal[max(0, len(c.journal)-longest):], at.Format("15:04:05.000 ")+what)
}

// excuse begins a time in which requests to the model may end so. It is over when the returned function is called.
func (c *chaos) excuse(model string, status ...int) (over func()) {
	e := &excuse{model: model, status: status, from: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.excuses = append(c.excuses, e)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		e.to = time.Now()
	}
}

// one picks an engine at random.
func (c *chaos) one(rng *rand.Rand, is func(engineSeen) bool) (engineSeen, bool) {
	list := c.watch.engines(is)
	if len(list) == 0 {
		return engineSeen{}, false
	}
	return list[rng.IntN(len(list))], true
}

// hit notes that an engine will not end its answers.
func (c *chaos) hit(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.struck[pid] = time.Now()
}

// forgives waits until the engine is gone and lets its model start again: after a start that failed it would rest for longer than this test
// lasts. Then the excuse is over.
func (c *chaos) forgives(model string, gone func() bool, pause time.Duration, over func()) {
	if !within(bound, gone) {
		c.t.Errorf("%s: what was to be gone is there after %v", model, bound)
	}
	time.Sleep(pause)
	current(c.t).act.Unload(model, false)
	over()
}

func (c *chaos) kill(rng *rand.Rand, is func(engineSeen) bool) bool {
	e, ok := c.one(rng, is)
	if !ok || !e.here() {
		return false
	}
	over := c.excuse(e.key, http.StatusBadGateway)
	c.hit(e.pid)
	_ = syscall.Kill(e.pid, syscall.SIGKILL)
	c.note(time.Now(), "killed "+e.String())
	pause := time.Duration(500+rng.IntN(700)) * time.Millisecond
	c.later(func() { c.forgives(e.key, func() bool { return !e.here() }, pause, over) })
	return true
}

// freeze excuses nobody: an engine that stands still for a while answers later.
func (c *chaos) freeze(rng *rand.Rand) bool {
	e, ok := c.one(rng, func(e engineSeen) bool { return e.key != "hung" })
	if !ok || !e.here() {
		return false
	}
	_ = syscall.Kill(e.pid, syscall.SIGSTOP)
	c.note(time.Now(), "stopped "+e.String())
	pause := chaosStall/4 + time.Duration(rng.Int64N(int64(chaosStall*3/4)))
	c.later(func() {
		time.Sleep(pause)
		if e.here() {
			_ = syscall.Kill(e.pid, syscall.SIGCONT)
		}
	})
	return true
}

// stealChosen takes the port that was chosen for an engine before that listens, and pretends to be a healthy engine, or says nothing.
// Nobody is excused by it: another port is chosen. But
// nobody can help an instance whose third port is stolen as well.
func (c *chaos) stealChosen(rng *rand.Rand) bool {
	for _, e := range c.watch.engines(func(e engineSeen) bool { return !e.ready && e.key != "fixed" && e.key != "hung" }) {
		if c.robbed[e.mark] == 2 {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+argument(e.pid, "--port"))
		if err != nil {
			continue // it listens already, or on a socket
		}
		thief := c.robber(l, rng.IntN(2) == 0)
		c.robbed[e.mark]++
		c.note(time.Now(), "robbed "+e.String()+" of "+l.Addr().String())
		c.later(func() {
			if !within(bound, func() bool { return !e.here() }) {
				c.t.Errorf("engine %d of %s lives without its port", e.pid, e.key)
			}
			time.Sleep(3 * time.Second) // a probe that gets no answer takes one: only then the router looks who has the port
			thief()
		})
		return true
	}
	return false
}

// argument returns what follows a flag on a process's command line.
func argument(pid int, flag string) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	words := strings.Split(string(b), "\x00")
	for i := range len(words) - 1 {
		if words[i] == flag {
			return words[i+1]
		}
	}
	return "none"
}

// robber sits on a port: it says that it is healthy, or takes connections and says nothing. No request may come to it.
func (c *chaos) robber(l net.Listener, friendly bool) (leave func()) {
	stay := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			c.thefts.Add(1)
		}
		if !friendly {
			<-stay
		}
	})}
	go func() { _ = server.Serve(l) }()
	return func() {
		close(stay)
		server.Close()
	}
}

func (c *chaos) stealFixed(rng *rand.Rand) bool {
	port := ""
	for _, m := range c.models {
		if m.name == "fixed" {
			_, port, _ = strings.Cut(m.more, "port = ")
		}
	}
	over := c.excuse("fixed", http.StatusBadGateway)
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		over()
		return false // its engine has it
	}
	thief := c.robber(l, rng.IntN(2) == 0)
	pause := time.Duration(300+rng.IntN(1200)) * time.Millisecond
	c.later(func() {
		time.Sleep(pause)
		thief()
		// An engine that was on its way may yet find the port taken.
		gone := func() bool {
			return len(c.watch.engines(func(e engineSeen) bool { return e.key == "fixed" && !e.ready })) == 0
		}
		c.forgives("fixed", gone, 300*time.Millisecond, over)
	})
	return true
}

// spoilState puts files where the router has directories, and a full device where it writes what it learnt. It is to go on without.
func (c *chaos) spoilState(rng *rand.Rand) bool {
	state := filepath.Join(c.s.root, "state")
	learnt := filepath.Join(state, "learnt.json.new")
	_ = os.Symlink("/dev/full", learnt)
	moved := 0
	names := []string{"instances", "contexts"}
	for _, name := range names {
		dir := filepath.Join(state, name)
		if os.Rename(dir, dir+".away") == nil && os.WriteFile(dir, nil, 0o600) == nil {
			moved++
		}
	}
	time.Sleep(time.Duration(200+rng.IntN(1000)) * time.Millisecond)
	for _, name := range names {
		dir := filepath.Join(state, name)
		_ = os.RemoveAll(dir)
		_ = os.Rename(dir+".away", dir)
	}
	_ = os.Remove(learnt)
	return moved > 0
}

// damageContext changes, shortens or removes a file of a kept context.
func (c *chaos) damageContext(rng *rand.Rand) bool {
	files, _ := filepath.Glob(filepath.Join(c.s.root, "state", "contexts", "kept", "*"))
	if len(files) == 0 {
		return false
	}
	file := files[rng.IntN(len(files))]
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return false
	}
	switch rng.IntN(3) {
	case 0:
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return os.WriteFile(file, b, 0o600) == nil
	case 1:
		return os.Truncate(file, rng.Int64N(int64(len(b)))) == nil
	default:
		return os.Remove(file) == nil
	}
}

// edit gives a model another start delay, which is another launch, or another priority, which is not.
func (c *chaos) edit(rng *rand.Rand) bool {
	m := c.models[rng.IntN(len(c.models))]
	switch rng.IntN(3) {
	case 0:
		m.more += "\npriority = " + strconv.Itoa(rng.IntN(9))
	case 1:
		m.delay = time.Duration(rng.Int64N(int64(chaosSlowest)))
	}
	c.define(m)
	return true
}

// some picks a model that can answer.
func (c *chaos) some(rng *rand.Rand) chaosModel {
	for {
		if m := c.models[rng.IntN(len(c.models))]; !m.fails {
			return m
		}
	}
}

// without has a model's file gone for a while.
func (c *chaos) without(rng *rand.Rand, m chaosModel, vanish func(file string) error) bool {
	over := c.excuse(m.name, http.StatusNotFound)
	if err := vanish(filepath.Join(c.s.models, m.name+".toml")); err != nil {
		c.t.Errorf("%s: %v", m.name, err)
	}
	if !within(bound, func() bool { return !resolves(c.t, m.name) }) {
		c.t.Errorf("%s: its file is gone and it is served", m.name)
	}
	time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
	_ = os.Remove(filepath.Join(c.s.models, m.name+"-renamed.toml"))
	c.define(m)
	if !within(bound, func() bool { return resolves(c.t, m.name) }) {
		c.t.Errorf("%s: its file is back and it is not served", m.name)
	}
	over()
	return true
}

func (c *chaos) remove(rng *rand.Rand) bool { return c.without(rng, c.some(rng), os.Remove) }

func (c *chaos) rename(rng *rand.Rand) bool {
	return c.without(rng, c.some(rng), func(file string) error {
		return os.Rename(file, strings.TrimSuffix(file, ".toml")+"-renamed.toml")
	})
}

// breakFile writes what is no model. The last good version stays in force, so nobody is excused.
func (c *chaos) breakFile(rng *rand.Rand) bool {
	m := c.some(rng)
	c.s.file(m.name, "engine = ")
	time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
	c.define(m)
	return true
}

// reload changes limits, in the background: Caddy waits for requests of the old configuration. Connections whose request no handler has
// seen may be dropped by it.
func (c *chaos) reload(rng *rand.Rand) bool {
	if !c.reloading.TryLock() {
		return false
	}
	places := chaosFewPlaces + rng.IntN(chaosPlaces-chaosFewPlaces+1)
	c.s.app["max_instances"] = places
	c.s.app["queue"] = chaosQueue + rng.IntN(20)
	c.s.app["idle_timeout"] = strconv.Itoa(300+rng.IntN(1500)) + "ms"
	over := c.excuse(allModels, 0)
	c.watch.limit(chaosPlaces)
	c.later(func() {
		defer c.reloading.Unlock()
		defer over()
		if err := c.s.tryLoad(); err != nil {
			c.t.Errorf("reload: %v", err)
		}
		c.watch.limit(places)
	})
	return true
}

func (c *chaos) unloadForced(rng *rand.Rand) bool {
	m := c.some(rng)
	over := c.excuse(m.name, http.StatusBadGateway)
	mine := c.watch.engines(func(e engineSeen) bool { return e.key == m.name })
	for _, e := range mine {
		c.hit(e.pid)
	}
	current(c.t).act.Unload(m.name, true)
	c.later(func() {
		gone := func() bool {
			for _, e := range mine {
				if e.here() {
					return false
				}
			}
			return true
		}
		c.forgives(m.name, gone, 0, over)
	})
	return len(mine) > 0
}

// killGuardian kills the process that would clear up after us. The next start has another.
func (c *chaos) killGuardian(*rand.Rand) bool {
	for _, pid := range guardians() {
		return syscall.Kill(pid, syscall.SIGKILL) == nil
	}
	return false
}
