// Wasm measures engines in WasmEdge beside llama-server, all started and asked as the router does it: our guest, interpreted
// and compiled ahead of time, and a llama-api-server.wasm if its path is given.
//
//	make bench-wasm
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

func main() {
	var b bench
	flag.StringVar(&b.model, "model", "", "a GGUF file")
	flag.StringVar(&b.server, "wasm", "", "a llama-api-server.wasm to be measured as well")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each is started; medians count")
	flag.IntVar(&b.threads, "threads", 1, "threads to compute with")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "wasm:", err)
		os.Exit(1)
	}
}

type bench struct {
	model, server   string
	rounds, threads int
	cache           string // of what is compiled
	log             *slog.Logger
}

// contestant is an engine that is measured.
type contestant struct {
	name     string
	model    modeldir.Model
	compiled bool // ahead of time, which is waited for
}

const (
	slots  = 2
	window = 2048 // tokens of a slot
	length = 64   // tokens of an answer
)

func (b *bench) run() error {
	var err error
	if b.cache, err = os.MkdirTemp("", "bench-wasm-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.cache)
	b.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	base := modeldir.Model{Name: "m", Key: "m", Kind: modeldir.Chat, File: filepath.Join(b.cache, "m.toml"), ModelPath: b.model, Concurrency: slots, CtxSize: window, Threads: b.threads}
	native := base
	native.Engine, native.CtxSize, native.Args = modeldir.EngineLlamaServer, slots*window, []string{"--offline"}
	guest := base
	guest.Engine, guest.Wasm = modeldir.EngineWasmEdge, modeldir.WasmGuest
	all := []contestant{{"llama-server", native, false}, {"guest, interpreted", guest, false}, {"guest, compiled", guest, true}}
	if b.server != "" {
		upstream := base
		upstream.Engine, upstream.Wasm = modeldir.EngineWasmEdge, b.server
		all = append(all, contestant{"llama-api-server", upstream, false})
	}
	results := make([][]figures, len(all))
	for range b.rounds { // in turn, so that a neighbour's noise hits all
		for i, c := range all {
			f, err := b.measure(c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], f)
		}
	}
	b.print(all, results)
	return nil
}

// figures are what one start of one engine was measured at.
type figures struct {
	start    time.Duration // from the decision to start to readiness
	memory   float64       // MB resident after an answer
	first    time.Duration // to the first token of a short prompt
	rate     float64       // tokens a second after it
	apart    time.Duration // two chats one after the other
	together time.Duration // two at the same time
	fresh    time.Duration // to the first token of a long conversation's second turn, computed anew
	again    time.Duration // the same in the slot that had the first turn
}

func (b *bench) measure(c contestant) (f figures, err error) {
	if err := os.Setenv("XDG_CACHE_HOME", filepath.Join(b.cache, fmt.Sprint(c.compiled))); err != nil {
		return f, err
	}
	if c.compiled {
		if err := b.compile(c); err != nil {
			return f, err
		}
	}
	began := time.Now()
	e, err := b.begin(c.model)
	if err != nil {
		return f, err
	}
	defer e.end()
	f.start = time.Since(began)
	if f.first, _, err = e.ask(user("Tell me a long story about a lighthouse and its keeper."), length); err != nil {
		return f, err
	}
	for range 3 { // the prompt is known by now
		first, all, err := e.ask(user("Tell me a long story about a lighthouse and its keeper."), length)
		if err != nil {
			return f, err
		}
		f.rate = max(f.rate, (length-1)/(all-first).Seconds())
	}
	f.memory = e.memory()
	if f.apart, f.together, err = e.pairs(); err != nil {
		return f, err
	}
	f.fresh, f.again, err = e.turns()
	return f, err
}

// compile starts the engine once and waits until what it runs has been compiled.
func (b *bench) compile(c contestant) error {
	dir := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "assistant", "wasm")
	done := func() bool {
		found, _ := filepath.Glob(filepath.Join(dir, "compiled-*.wasm"))
		return len(found) > 0
	}
	if done() {
		return nil
	}
	e, err := b.begin(c.model)
	if err != nil {
		return err
	}
	e.runner.Stop(e.in) // which begins it
	<-e.exited          //nolint:errcheck // that it was told to stop is no error
	defer e.runner.Close()
	for began := time.Now(); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 10*time.Minute {
			return errors.New("not compiled after 10 minutes")
		}
	}
	return nil
}

// running is an engine that was started.
type running struct {
	runner *lifecycle.Runner
	in     *lifecycle.Instance
	run    *lifecycle.Running
	client *http.Client
	ready  chan *lifecycle.Running
	exited chan error
}

func (b *bench) begin(m modeldir.Model) (*running, error) {
	e := &running{runner: lifecycle.NewRunner(filepath.Join(b.cache, "state"), b.log), ready: make(chan *lifecycle.Running, 1), exited: make(chan error, 1)}
	e.in = &lifecycle.Instance{Model: &m, Gen: 1, Created: time.Now()}
	e.runner.Start(e.in, time.Minute, e)
	select {
	case e.run = <-e.ready:
	case err := <-e.exited:
		return nil, fmt.Errorf("ended: %w", err)
	}
	e.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, e.run.Network, e.run.Address)
		},
	}}
	return e, nil
}

func (e *running) end() {
	e.runner.Stop(e.in)
	<-e.exited //nolint:errcheck // that it was told to stop is no error
	e.runner.Close()
}

// memory is what the engine's processes have resident, in MB.
func (e *running) memory() (mb float64) {
	for _, pid := range e.in.Processes() {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, after, _ := strings.Cut(string(status), "VmRSS:")
		var kb float64
		_, _ = fmt.Sscan(after, &kb)
		mb += kb / 1024
	}
	return mb
}

// Ready and the others are [lifecycle.Reporter].
func (e *running) Ready(_ *lifecycle.Instance, run *lifecycle.Running)  { e.ready <- run }
func (e *running) Waiting(*lifecycle.Instance, int) []lifecycle.Waiting { return nil }
func (e *running) Saved(*lifecycle.Instance, int)                       {}
func (e *running) Dying(*lifecycle.Instance, error)                     {}
func (e *running) Exited(_ *lifecycle.Instance, err error)              { e.exited <- err }

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func user(text string) []message { return []message{{"user", text}} }

// ask streams an answer and returns how long its first token took, and all of it.
func (e *running) ask(messages []message, most int) (first, all time.Duration, err error) {
	first, all, _, err = e.answer(messages, most)
	return first, all, err
}

func (e *running) answer(messages []message, most int) (first, all time.Duration, text string, err error) {
	body, err := json.Marshal(map[string]any{
		"model": "m", "messages": messages, "max_tokens": most, "max_completion_tokens": most, "temperature": 0, "stream": true,
	})
	if err != nil {
		return 0, 0, "", err
	}
	began := time.Now()
	resp, err := e.client.Post("http://engine/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body)
		return 0, 0, "", fmt.Errorf("%s: %s", resp.Status, said)
	}
	pieces := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var chunk struct {
			Choices []struct {
				Delta struct{ Content string }
			}
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || json.Unmarshal([]byte(data), &chunk) != nil || len(chunk.Choices) == 0 || chunk.Choices[0].Delta.Content == "" {
			continue
		}
		if pieces++; pieces == 1 {
			first = time.Since(began)
		}
		text += chunk.Choices[0].Delta.Content
		if pieces == most { // llama-api-server would go on
			break
		}
	}
	if pieces < most/2 {
		return 0, 0, "", fmt.Errorf("only %d pieces of text", pieces)
	}
	return first, time.Since(began), text, nil
}

// pairs asks two questions one after the other, and two others of the same length at the same time.
func (e *running) pairs() (apart, together time.Duration, err error) {
	ask := func(what string) error {
		_, _, err := e.ask(user("Tell me a long story about a "+what+" and its keeper."), length)
		return err
	}
	began := time.Now()
	if err := errors.Join(ask("river"), ask("bridge")); err != nil {
		return 0, 0, err
	}
	apart = time.Since(began)
	began = time.Now()
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i, what := range []string{"garden", "castle"} {
		both.Go(func() { errs[i] = ask(what) })
	}
	both.Wait()
	return apart, time.Since(began), errors.Join(errs...)
}

// turns asks for the second turn of a long conversation, in the slot that had the first and anew.
func (e *running) turns() (fresh, again time.Duration, err error) {
	long := func(what string) []message {
		return user(strings.Repeat("The keeper of the "+what+" counts the ships that pass. ", 40) + "What does he do?")
	}
	second := func(first []message, said string) []message {
		return append(slices.Clone(first), message{"assistant", said}, message{"user", "And what does he do in the evening?"})
	}
	_, _, said, err := e.answer(long("lighthouse"), 16)
	if err != nil {
		return 0, 0, err
	}
	if again, _, err = e.ask(second(long("lighthouse"), said), 4); err != nil {
		return 0, 0, err
	}
	fresh, _, err = e.ask(second(long("harbour"), said), 4)
	return fresh, again, err
}

func (b *bench) print(all []contestant, results [][]figures) {
	info, err := os.Stat(b.model)
	if err != nil {
		return
	}
	fmt.Printf("%s (%.0f MB), %d slots of %d tokens, %d threads, medians of %d starts\n\n%-28s", filepath.Base(b.model), float64(info.Size())/1e6, slots, window, b.threads, b.rounds, "")
	for _, c := range all {
		fmt.Printf("%20s", c.name)
	}
	fmt.Println()
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for _, row := range []struct {
		name string
		of   func(f figures) float64
		goal string
	}{
		{"start to ready, ms", func(f figures) float64 { return milliseconds(f.start) }, "≤ 1.2 × llama-server"},
		{"memory (RSS), MB", func(f figures) float64 { return f.memory }, ""},
		{"first token, ms", func(f figures) float64 { return milliseconds(f.first) }, ""},
		{"tokens a second", func(f figures) float64 { return f.rate }, "≥ 0.95 × llama-server"},
		{"two chats, together ÷ apart", func(f figures) float64 { return f.together.Seconds() / f.apart.Seconds() }, "≤ 0.75"},
		{"second turn, ms", func(f figures) float64 { return milliseconds(f.again) }, ""},
		{"second turn ÷ anew", func(f figures) float64 { return f.again.Seconds() / f.fresh.Seconds() }, "≤ 0.3"},
	} {
		fmt.Printf("%-28s", row.name)
		var first float64
		for i := range all {
			var values []float64
			for _, f := range results[i] {
				values = append(values, row.of(f))
			}
			slices.Sort(values)
			median := values[len(values)/2]
			if i == 0 {
				first = median
				fmt.Printf("%20.2f", median)
			} else {
				fmt.Printf("%12.2f (%4.2fx)", median, median/first)
			}
		}
		fmt.Println("  " + row.goal)
	}
	fmt.Println("\nwasmedge:", wasmEdgeVersion())
}

func wasmEdgeVersion() string {
	parts, err := engine.FindWasmParts(nil)
	if err != nil {
		return err.Error()
	}
	return engine.Version(parts.Program)
}
