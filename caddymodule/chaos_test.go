//go:build linux

package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/internal/enginetest"
	"assistant/internal/openai"
)

var (
	chaosTime = flag.Duration("chaos.time", 20*time.Second, "how long TestChaos goes on (make soak)")
	chaosSeed = flag.Uint64("chaos.seed", 1, "what TestChaos draws its requests and faults from")
)

// Limits of the site that chaos strikes. Faults change max_instances and queue within these.
const (
	chaosMaxWait   = 2 * time.Second
	chaosPlaces    = 4 // max_instances, the most
	chaosFewPlaces = 3
	chaosQueue     = 6 // the least
	chaosClients   = 24

	chaosSlowest = 1500 * time.Millisecond // start delay, the longest
	chaosStall   = 2 * time.Second         // SIGSTOP, the longest

	// chaosLongest is how long a request may wait for its answer's head: for room, for others' last answers and for a slot, max_wait each
	// (docs/scheduling.md), and the starts between. Chaos may end one start by an edit, and one by a kill, and stop a third.
	chaosLongest = 3*chaosMaxWait + 3*(chaosSlowest+chaosStall)
)

// chaos is a site under clients and faults. What comes of each request is judged from outside.
type chaos struct {
	t     *testing.T
	s     *site
	watch *watch
	stop  chan struct{}
	after sync.WaitGroup // what faults have to clear up

	asking map[string]*atomic.Int64 // by model: requests that clients wait for; the map does not change
	models []chaosModel             // as their files have them unless edited

	robbed map[string]int // thefts by instance

	reloading sync.Mutex

	mu       sync.Mutex
	faults   map[string]int
	excuses  []*excuse
	struck   map[int]time.Time // engines that were killed, or told to stop whatever they do
	outcomes map[string]int
	lost     []string
	journal  []string      // what was done last
	waits    time.Duration // the longest for an answer's head
	waited   string        // by whom
	thefts   atomic.Int64  // requests that came to somebody who had stolen a port
	whole    atomic.Int64
}

// excuse is a time in which requests to a model may end in one of the statuses, for what was done to it.
type excuse struct {
	model    string
	status   []int // 0 = no answer at all
	from, to time.Time
}

// allModels is the excuse for something that was done to the server.
const allModels = ""

// chaosModel is a model of the site. Its file is written by [chaos.define].
type chaosModel struct {
	name  string
	kind  string   // "command" or "llama-server"
	more  string   // of its file
	flags []string // of its engine
	delay time.Duration
	fails bool // it never starts
}

func chaosModels(port string) []chaosModel {
	const command, llama = "command", "llama-server"
	return []chaosModel{
		{name: "quick", kind: command, more: "concurrency = 2\nmax_instances = 3", flags: []string{"--slots", "2"}, delay: 20 * time.Millisecond},
		{name: "slow", kind: command, more: "concurrency = 1\nmax_instances = 2", flags: []string{"--slots", "1", "--ready", "503"}, delay: 800 * time.Millisecond},
		{name: "wide", kind: command, more: "concurrency = 4\nmax_instances = 2", flags: []string{"--slots", "4"}, delay: 300 * time.Millisecond},
		{name: "fixed", kind: command, more: "concurrency = 2\nport = " + port, flags: []string{"--slots", "2"}, delay: 100 * time.Millisecond},
		{name: "kept", kind: command, more: "concurrency = 1\nmin_instances = 1\nmax_instances = 2", flags: []string{"--slots", "1"}, delay: 50 * time.Millisecond},
		{name: "stubborn", kind: command, more: "concurrency = 1\nstop_timeout = \"1500ms\"", flags: []string{"--slots", "1", "--ignore-term", "-1"}, delay: 100 * time.Millisecond},
		{name: "talk", kind: llama, more: "concurrency = 2\nmax_instances = 2\nkeep_context = true", delay: 100 * time.Millisecond},
		{name: "plain", kind: llama, more: "concurrency = 3", flags: []string{"--no-cancel"}, delay: 200 * time.Millisecond},
		{name: "broken", kind: command, flags: []string{"--exit-code", "3"}, fails: true},
		{name: "hung", kind: command, more: "start_timeout = \"1s\"\nstop_timeout = \"1s\"", flags: []string{"--hang"}, fails: true},
	}
}

// define writes a model's file.
func (c *chaos) define(m chaosModel) {
	flags := append(slices.Clone(m.flags), "--start-delay", m.delay.String())
	if m.kind == "command" {
		c.s.model(m.name, m.more, flags...)
		return
	}
	args, err := json.Marshal(flags)
	if err != nil {
		c.t.Error(err)
	}
	c.s.file(m.name, fmt.Sprintf("engine = \"llama-server\"\nmodel_path = %q\nargs = %s\n%s\n", filepath.Join(c.s.root, "model.gguf"), args, m.more))
}

// TestChaos has clients ask a router for more than it has room for while its engines are killed, stopped, robbed of their ports and
// started slowly, its files edited, moved and damaged and its configuration reloaded. No request may be lost: each ends once, and is
// answered unless what was done to its very model or engine, or a documented bound, explains why not.
func TestChaos(t *testing.T) {
	c := newChaos(t)
	goroutines, files := c.baseline()
	c.s.load()
	var all sync.WaitGroup
	began := time.Now()
	for i := range chaosClients {
		all.Go(func() { c.client(i) })
	}
	all.Go(func() { c.watch.run(c.stop) })
	all.Go(c.strikes)
	time.Sleep(*chaosTime)
	close(c.stop)
	all.Wait()
	c.after.Wait()
	c.report(time.Since(began))
	c.quiet()

	if err := caddy.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if !within(bound, func() bool { c.watch.look(); return len(c.watch.alive) == 0 }) {
		t.Errorf("engines are left: %v", c.watch.engines(func(engineSeen) bool { return true }))
	}
	visitor.CloseIdleConnections()
	if !within(bound, func() bool { return goruntime.NumGoroutine() <= goroutines && openFiles() <= files }) {
		t.Errorf("%d goroutines and %d open files in the end, %d and %d in the beginning", goruntime.NumGoroutine(), openFiles(), goroutines, files)
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Log(stacks.String())
	}
	c.checkEvents()
	c.s.events = filepath.Join(c.s.root, "none") // they were looked after by their marks: numbers of processes come again
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	c := &chaos{
		t: t, s: newSite(t), stop: make(chan struct{}), faults: map[string]int{}, struck: map[int]time.Time{},
		outcomes: map[string]int{}, robbed: map[string]int{}, asking: map[string]*atomic.Int64{},
	}
	t.Setenv("LLAMA_SERVER", c.s.engine)
	t.Setenv(enginetest.EnvArgs, strings.Join([]string{
		"--token-delay 15ms --events", c.s.events, "--max-life", (*chaosTime + 10*time.Minute).String(),
	}, " "))
	if err := os.WriteFile(filepath.Join(c.s.root, "model.gguf"), []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	maps.Copy(c.s.app, map[string]any{
		"max_instances": chaosPlaces, "max_wait": chaosMaxWait.String(), "queue": chaosQueue, "idle_timeout": "700ms", "start_timeout": "20s",
	})
	c.models = chaosModels(freePort(t))
	for _, m := range c.models {
		c.asking[m.name] = new(atomic.Int64)
	}
	c.watch = newWatch(t, c.s.events, chaosPlaces)
	return c
}

// baseline lets the server start once and end, and returns what is left of that.
func (c *chaos) baseline() (goroutines, files int) {
	c.t.Helper()
	for _, m := range c.models {
		c.define(m)
	}
	c.s.load()
	c.s.chat("quick")
	c.s.chat("talk")
	if err := caddy.Stop(); err != nil {
		c.t.Fatal(err)
	}
	visitor.CloseIdleConnections()
	least := func() (int, int) { return goruntime.NumGoroutine(), openFiles() }
	goroutines, files = least()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		g, f := least() // what ends in the background has a second
		goroutines, files = min(goroutines, g), min(files, f)
	}
	return goroutines, files
}

// outcome is what came of a request.
type outcome struct {
	model       string
	began, head time.Time // head: zero = there was none
	ended       time.Time
	left        bool // the client went away
	asked       int64
	answered
	stream bool
	tokens int // asked for
}

// client asks again and again.
func (c *chaos) client(number int) {
	rng := rand.New(rand.NewPCG(*chaosSeed, uint64(number)))
	models := chaosModels("1")
	key := fmt.Sprintf("key-%d", number%2)
	turns := 0
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Duration(rng.IntN(60)) * time.Millisecond):
		}
		m := models[rng.IntN(len(models))]
		if m.fails && rng.IntN(4) > 0 {
			continue // they cost nothing, so they are asked more often than others anyway
		}
		if turns++; rng.IntN(4) == 0 {
			turns = 0
		}
		o := outcome{model: m.name, stream: rng.IntN(2) == 0, tokens: 1 + rng.IntN(30)}
		ctx, leave := context.WithCancel(context.Background())
		var stay *time.Timer
		if rng.IntN(10) == 0 {
			stay = time.AfterFunc(time.Duration(rng.IntN(400))*time.Millisecond, leave)
		}
		header := []string{"Authorization", "Bearer " + key}
		if number%3 == 0 {
			header = nil
		}
		c.ask(ctx, &o, chaosBody(o, number, turns), header...)
		o.left = ctx.Err() != nil
		if stay != nil {
			stay.Stop()
		}
		leave()
		c.judge(o)
	}
}

// chaosBody is a turn of a conversation that is long enough to be kept.
func chaosBody(o outcome, client, turns int) string {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	opening := fmt.Sprintf("I am client %d.%s", client, strings.Repeat(" And I have much to say.", 20))
	messages := []message{{"user", opening}}
	for i := range turns {
		messages = append(messages, message{"assistant", " 1 2 3"}, message{"user", fmt.Sprintf("This is turn %d.", i)})
	}
	b, _ := json.Marshal(map[string]any{"model": o.model, "stream": o.stream, "max_tokens": o.tokens, "messages": messages})
	return string(b)
}

// ask sends a request. One whose connection broke without an answer while the server was reloaded is sent again, as the official SDKs do.
func (c *chaos) ask(ctx context.Context, o *outcome, body string, header ...string) {
	asking := c.asking[o.model]
	o.began, o.asked = time.Now(), asking.Add(1)
	defer func() {
		o.asked = max(o.asked, asking.Load())
		asking.Add(-1)
		o.ended = time.Now()
	}()
	for range 5 {
		c.try(ctx, o, body, header...)
		if o.err == nil || !o.head.IsZero() || ctx.Err() != nil || !c.excused(allModels, 0, o.began) {
			return
		}
		c.count("sent again: dropped by a reload")
	}
}

func (c *chaos) try(ctx context.Context, o *outcome, body string, header ...string) {
	o.answered = answered{}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.s.url+chatPath, strings.NewReader(body))
	if err != nil {
		o.err = err
		return
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := visitor.Do(req)
	if err != nil {
		o.err = err
		return
	}
	defer res.Body.Close()
	o.head = time.Now()
	o.status, o.header = res.StatusCode, res.Header
	b, err := io.ReadAll(res.Body)
	o.body, o.err = string(b), err
}

// judge says what a request's end was, and whether it was true.
func (c *chaos) judge(o outcome) {
	what, err := c.verdict(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[what]++
	const enough = 100
	if err != nil && len(c.lost) < enough {
		c.lost = append(c.lost, fmt.Sprintf("%s, asked at %s, head after %v, end after %v, engine %d: %v",
			o.model, o.began.Format("15:04:05.000"), o.head.Sub(o.began).Round(time.Millisecond), o.ended.Sub(o.began).Round(time.Millisecond), o.pid(), err))
	}
	if o.left || o.head.IsZero() || !o.stream && o.status == http.StatusOK {
		return // its head says nothing of its wait
	}
	if wait := o.head.Sub(o.began); wait > c.waits {
		c.waits, c.waited = wait, fmt.Sprintf("%s, which got %d", o.model, o.status)
	}
}

// verdict names the end of a request. The error tells that it was lost.
func (c *chaos) verdict(o outcome) (string, error) {
	switch {
	case o.left:
		return "client left", nil
	case o.head.IsZero():
		return "no answer", fmt.Errorf("no answer: %w", o.err)
	case o.status == http.StatusOK:
		return c.verdictOn200(o)
	}
	var e struct {
		Error *struct {
			Message, Type string
			Param, Code   *string
		}
	}
	if err := json.Unmarshal([]byte(o.body), &e); err != nil || e.Error == nil || e.Error.Code == nil || e.Error.Type == "" {
		return "no error object", fmt.Errorf("status %d without an error object: %q", o.status, o.body)
	}
	code := *e.Error.Code
	what := fmt.Sprintf("%d %s", o.status, code)
	retry := o.header.Get("Retry-After") != ""
	switch waited := o.head.Sub(o.began); {
	case what == "429 rate_limit_exceeded" && retry && o.asked > chaosQueue:
		return what, nil
	case what == "503 model_loading" && retry && waited >= chaosMaxWait:
		return what, nil
	case what == "404 model_not_found" && c.excused(o.model, o.status, o.began):
		return what, nil
	case what == "502 engine_failed" && (o.model == "broken" || o.model == "hung"):
		return what + " of what never starts", nil
	case (what == "502 engine_failed" || what == "502 engine_crashed") && c.excused(o.model, o.status, o.began):
		return what, nil
	}
	return what, fmt.Errorf("%s with %d asking, Retry-After %q: %s", what, o.asked, o.header.Get("Retry-After"), e.Error.Message)
}

func (c *chaos) verdictOn200(o outcome) (string, error) {
	text, done, told, err := o.read()
	switch want := numbers(o.tokens); {
	case err != nil:
		return "no valid answer", err
	case done && o.err == nil && text == want:
		c.whole.Add(1)
		return "answered", nil
	case done:
		return "a wrong answer", fmt.Errorf("answered %q, %s, want %q", text, fmt.Sprint(o.err), want)
	case o.stream && told != openai.CodeEngineCrashed:
		return "cut without a word", fmt.Errorf("a stream ended with %q and no error: %s", told, fmt.Sprint(o.err))
	case !c.wasStruck(o.pid(), o.began, o.ended):
		return "cut", fmt.Errorf("broken off after %q, %s: nobody touched its engine", text, fmt.Sprint(o.err))
	}
	return "cut, as its engine was killed", nil
}

// numbers is the text of the fake engine's answers.
func numbers(n int) string {
	var text strings.Builder
	for i := range n {
		text.WriteString(" " + strconv.Itoa(i+1))
	}
	return text.String()
}

// read returns an answer's text, whether it ended properly, and the code of the error that it ended with if not.
func (o *outcome) read() (text string, done bool, told string, err error) {
	type piece struct {
		Choices []struct {
			Message, Delta struct{ Content *string }
			Finish         *string `json:"finish_reason"`
		}
		Error *struct{ Code string }
	}
	if !o.stream {
		var p piece
		if o.err == nil {
			err = json.Unmarshal([]byte(o.body), &p)
		}
		if o.err != nil || err != nil || len(p.Choices) == 0 || p.Choices[0].Message.Content == nil {
			return o.body, false, "", err
		}
		return *p.Choices[0].Message.Content, true, "", nil
	}
	finished := false
	for lines := bufio.NewScanner(strings.NewReader(o.body)); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var p piece
		switch {
		case !ok:
			continue
		case done, told != "":
			return text, done, told, fmt.Errorf("%q after the end", data)
		case data == "[DONE]":
			done = finished
			continue
		case json.Unmarshal([]byte(data), &p) != nil:
			continue // cut off in its middle
		case p.Error != nil:
			told = p.Error.Code
			continue
		}
		for _, choice := range p.Choices {
			if choice.Delta.Content != nil {
				text += *choice.Delta.Content
			}
			finished = finished || choice.Finish != nil
		}
	}
	return text, done, told, nil
}

func (c *chaos) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes[what]++
}

// excused reports whether something that was done since then explains such a status now.
func (c *chaos) excused(model string, status int, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.excuses {
		if e.model == model && slices.Contains(e.status, status) && (e.to.IsZero() || !e.to.Before(since)) {
			return true
		}
	}
	return false
}

func (c *chaos) wasStruck(pid int, from, to time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.struck[pid]
	return ok && at.After(from.Add(-time.Second)) && at.Before(to) // noted a moment before it is done
}

// report tells what happened, and fails the test over what must not.
func (c *chaos) report(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests := 0
	for what, n := range c.outcomes {
		if !strings.HasPrefix(what, "sent again") {
			requests += n
		}
	}
	list := func(counts map[string]int) string {
		var lines strings.Builder
		for _, what := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(&lines, "\n\t%6d %s", counts[what], what)
		}
		return lines.String()
	}
	c.t.Logf("seed %d, %v: %d requests, %d engines, at most %d instances at a time; lost: %d\nrequests:%s\nfaults:%s\nlongest wait for an answer's head %v (%s), bound %v",
		*chaosSeed, took.Round(time.Second), requests, c.watch.seen, c.watch.most, len(c.lost), list(c.outcomes), list(c.faults),
		c.waits.Round(time.Millisecond), c.waited, chaosLongest)
	const most = 20
	for _, lost := range c.lost[:min(len(c.lost), most)] {
		c.t.Errorf("lost: %s", lost)
	}
	if len(c.lost) > 0 {
		c.t.Logf("what was done before:\n\t%s", strings.Join(c.journal, "\n\t"))
	}
	for _, over := range c.watch.over[:min(len(c.watch.over), most)] {
		c.t.Errorf("the limit was passed: %s", over)
	}
	if n := c.thefts.Load(); n > 0 {
		c.t.Errorf("%d requests were sent to somebody who had stolen a port", n)
	}
	if c.waits > chaosLongest {
		c.t.Errorf("somebody waited %v, more than %v", c.waits, chaosLongest)
	}
	if c.whole.Load() == 0 || c.watch.seen == 0 {
		c.t.Error("nobody was answered: this shows nothing")
	}
}

// quiet sees that nobody is waited for or waits any more.
func (c *chaos) quiet() {
	var metrics strings.Builder
	if !within(bound, func() bool {
		metrics.Reset()
		current(c.t).writeMetrics(&metrics)
		for line := range strings.Lines(metrics.String()) {
			if (strings.HasPrefix(line, "assistant_in_flight{") || strings.HasPrefix(line, "assistant_queued{")) && !strings.HasSuffix(line, " 0\n") {
				return false
			}
		}
		return true
	}) {
		c.t.Errorf("the clients are gone and somebody is still served:\n%s", metrics.String())
	}
}

// checkEvents sees by the engines' own notes that none was told to stop while it answered, unless that was forced. An answer's last
// bytes are out before its engine notes that: it has a moment.
func (c *chaos) checkEvents() {
	const moment = 250 * time.Millisecond
	all, err := enginetest.ReadEvents(c.s.events)
	if err != nil {
		c.t.Fatal(err)
	}
	type request struct {
		pid int
		id  int64
	}
	open := map[request]enginetest.Event{}
	told := map[int]int64{} // when an engine was first told to stop
	terms := 0
	for _, e := range all {
		r := request{e.Pid, e.Request}
		switch e.Name {
		case enginetest.EventStart: // another engine may have had this number
			delete(told, e.Pid)
			maps.DeleteFunc(open, func(r request, _ enginetest.Event) bool { return r.pid == e.Pid })
		case enginetest.EventBegin:
			open[r] = e
		case enginetest.EventTerm:
			if _, again := told[e.Pid]; !again {
				told[e.Pid] = e.Time
				terms++
			}
		case enginetest.EventEnd:
			at, was := told[e.Pid]
			if _, struck := c.struck[e.Pid]; was && !struck && e.Time-at > int64(moment) && open[r].Time < at {
				c.t.Errorf("engine %d of %s was told to stop %v before the end of an answer", e.Pid, e.Alias, time.Duration(e.Time-at))
			}
			delete(open, r)
		case enginetest.EventCancel:
			delete(open, r)
		}
	}
	if terms == 0 {
		c.t.Error("no engine was told to stop: this shows nothing")
	}
}

// unlessStopped sleeps, and reports false if the test ends before.
func (c *chaos) unlessStopped(d time.Duration) bool {
	select {
	case <-c.stop:
		return false
	case <-time.After(d):
		return true
	}
}
