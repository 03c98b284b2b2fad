// Contexts measures what keeping contexts is worth: a long conversation whose engine was stopped goes on, once
// computed anew and once restored, from the spawn of the next engine to the first token of its answer.
//
//	make bench-contexts
package main

import (
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
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"assistant/internal/openai"
	"assistant/lifecycle/contexts"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

func main() {
	var b bench
	flag.IntVar(&b.tokens, "tokens", 6000, "tokens of the conversation, about")
	flag.IntVar(&b.runs, "runs", 5, "times that it is restored; the median counts")
	threads := flag.String("threads", "2", "the engine's threads")
	flag.BoolVar(&b.quick, "quick", false, "take the first turn, which is a little shorter, for the one computed anew")
	model := flag.String("model", "", "a GGUF file")
	flag.Parse()
	b.model = &modeldir.Model{
		Name: "model", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer, KeepContext: true,
		ModelPath: *model, CtxSize: 2 * (b.tokens + 1000), Concurrency: 2, Args: []string{"-t", *threads, "--offline"},
	}
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "contexts:", err)
		os.Exit(1)
	}
}

type bench struct {
	model        *modeldir.Model
	tokens, runs int
	quick        bool
	dir          string
	store        *contexts.Store
}

// outcome is one turn by one engine.
type outcome struct {
	start    time.Duration // spawn to ready
	restored time.Duration // ready to restored
	first    time.Duration // sent to first token
	save     time.Duration
	saved    contexts.Saved
	text     string
	reuse    openai.Reuse
}

func (o outcome) total() time.Duration { return o.start + o.restored + o.first }

func (b *bench) run() (err error) {
	if b.dir, err = os.MkdirTemp("", "contexts"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.store, err = contexts.Open(filepath.Join(b.dir, "s"), 16<<30, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))); err != nil {
		return err
	}
	turn := []message{
		{"system", words(b.tokens)},
		{"user", "What was that about?"},
	}
	first, err := b.once(turn, false, true)
	if err != nil {
		return err
	}
	if b.store.Close(); b.store.Stats().Files != 1 {
		return fmt.Errorf("not kept: %+v", b.store.Stats())
	}
	follow := slices.Concat(turn, []message{{"assistant", first.text}, {"user", "And what else?"}})
	var again []outcome
	for range b.runs {
		o, err := b.once(follow, true, false)
		if err != nil {
			return err
		}
		if o.text != "" && o.reuse.Cached < first.reuse.Computed {
			return fmt.Errorf("restored, but only %d tokens of %d reused", o.reuse.Cached, first.reuse.Computed)
		}
		again = append(again, o)
	}
	anew := first
	if !b.quick {
		if anew, err = b.once(follow, false, false); err != nil {
			return err
		}
	}
	slices.SortFunc(again, func(a, b outcome) int { return int(a.total() - b.total()) })
	median := again[len(again)/2]
	fmt.Printf("saved: %d tokens, %.1f MB in %s\n", first.saved.Tokens, float64(first.saved.Bytes)/1e6, ms(first.save))
	fmt.Println("\nturn           start   restore  first token     total  cache_n  prompt_n")
	for _, row := range []struct {
		name string
		outcome
	}{{"first", first}, {"computed", anew}, {"restored", median}} {
		fmt.Printf("%-10s%10s%10s%13s%10s%9d%10d\n", row.name, ms(row.start), ms(row.restored), ms(row.first), ms(row.total()), row.reuse.Cached, row.reuse.Computed)
	}
	fmt.Printf("\nrestored ÷ computed, starts included: %.4f (best %.4f, worst %.4f of %d)\n",
		ratio(median, anew), ratio(again[0], anew), ratio(again[len(again)-1], anew), len(again))
	if !b.quick {
		fmt.Println("the same text:", median.text == anew.text)
	}
	return nil
}

// words is a text of about so many tokens that does not repeat itself.
func words(tokens int) string {
	list := strings.Fields("stone river light winter garden engine letter window music paper mountain cloud silver harbor bread story")
	var text strings.Builder
	for i := range tokens {
		text.WriteString(list[(i*i+i/7)%len(list)] + " ")
	}
	return strings.TrimSpace(text.String())
}

func ratio(a, b outcome) float64 { return float64(a.total()) / float64(b.total()) }

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// once starts an engine, has it answer a turn, and stops it.
func (b *bench) once(turn []message, restore, save bool) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	at := contexts.Endpoint{Network: "unix", Address: filepath.Join(b.dir, "e.sock")}
	if at.Dir, err = b.store.Place(); err != nil {
		return o, err
	}
	defer b.store.Leave(at.Dir)
	plan, err := engine.For(b.model).Plan(b.model, engine.Place{Socket: at.Address, ContextDir: at.Dir})
	if err != nil {
		return o, err
	}
	cmd := exec.Command(plan.Argv[0], plan.Argv[1:]...)
	cmd.Env = append(os.Environ(), plan.Env...)
	defer os.Remove(at.Address)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return o, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}()
	id, err := b.store.Identify(ctx, contexts.Launch{Argv: plan.Argv, Env: plan.Env, ModelPath: b.model.ModelPath})
	if err != nil {
		return o, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, at.Network, at.Address)
		},
	}}
	if err := ready(ctx, client); err != nil {
		return o, err
	}
	o.start = time.Since(began)
	body, err := json.Marshal(map[string]any{"messages": turn, "max_tokens": 16, "temperature": 0, "stream": true, "ignore_eos": true})
	if err != nil {
		return o, err
	}
	var given []contexts.Restored
	if restore {
		began = time.Now()
		if given, err = b.store.Restore(ctx, at, id, []contexts.Request{{Path: chat, Body: body}}); err != nil || len(given) != 1 {
			return o, fmt.Errorf("restored %v: %w", given, err)
		}
		o.restored = time.Since(began)
	}
	if err := o.ask(ctx, client, body); err != nil {
		return o, err
	}
	if restore && !b.store.Verify(given[0], o.reuse.Cached) {
		return o, errors.New("restored in vain")
	}
	if save {
		began = time.Now()
		o.saved, err = b.store.Save(ctx, at, id, nil)
		o.save = time.Since(began)
	}
	return o, err
}

const chat = "/v1/chat/completions"

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func ready(ctx context.Context, client *http.Client) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/health", http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the engine does not become ready: %w", ctx.Err())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// ask sends the request and reads its stream.
func (o *outcome) ask(ctx context.Context, client *http.Client, body []byte) error {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine"+chat, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var tap openai.UsageTap
	events := openai.NewEventReader(io.TeeReader(res.Body, &tap))
	for {
		event, err := events.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		if json.Unmarshal(event, &chunk) != nil || len(chunk.Choices) == 0 {
			continue
		}
		if text := chunk.Choices[0].Delta.Content; text != "" {
			if o.first == 0 {
				o.first = time.Since(began)
			}
			o.text += text
		}
	}
	var ok bool
	if o.reuse, ok = tap.Reuse(); !ok || o.first == 0 {
		return fmt.Errorf("status %d, no timings or no token", res.StatusCode)
	}
	return nil
}
