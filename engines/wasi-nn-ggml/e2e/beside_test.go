package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	story  = "<|im_start|>user\nTell me a long story about a lighthouse and its keeper.<|im_end|>\n<|im_start|>assistant\n"
	length = 64 // tokens of an answer
	times  = 3  // an engine is asked for it, and the best rate counts
)

// figures are what one engine was measured at.
type figures struct {
	start  time.Duration // to where it can be asked
	first  time.Duration // to the first token of a short prompt
	tokens float64       // a second, after the first
	rss    float64       // MB, after an answer
	again  time.Duration // to the first token of the second turn of a long conversation
	fresh  time.Duration // the same without the first
	apart  time.Duration // two answers one after the other
	pair   time.Duration // two answers at the same time
}

// better keeps the best of each: neighbours on the machine only make things worse.
func (f *figures) better(g figures) {
	if *f == (figures{}) {
		*f = g
		return
	}
	f.start, f.first, f.again, f.fresh = min(f.start, g.start), min(f.first, g.first), min(f.again, g.again), min(f.fresh, g.fresh)
	f.apart, f.pair = min(f.apart, g.apart), min(f.pair, g.pair)
	f.tokens, f.rss = max(f.tokens, g.tokens), min(f.rss, g.rss)
}

// BenchmarkBesideLlamaServer prints a table; make bench-wasm runs it.
func BenchmarkBesideLlamaServer(b *testing.B) {
	if os.Getenv("ASSISTANT_TEST_WASI_NN") == "" {
		b.Skip("run make bench-wasm, which fetches what this needs")
	}
	var ours, theirs figures
	rounds := 0
	for b.Loop() {
		ours.better(measurePlugin(b))
		theirs.better(measureLlamaServer(b))
		rounds++
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	row := func(what, unit string, a, b float64) {
		fmt.Printf("%-44s %8.1f %8.1f %-9s %5.2f\n", what, a, b, unit, a/b)
	}
	fmt.Printf("\n%-44s %8s %8s %-9s %s\n", fmt.Sprintf("SmolLM2-135M, one thread, best of %d", rounds), "WASI-NN", "llama-s.", "", "ratio")
	row("start to ready", "ms", ms(ours.start), ms(theirs.start))
	row("first token of a short prompt", "ms", ms(ours.first), ms(theirs.first))
	row("tokens a second", "tokens/s", ours.tokens, theirs.tokens)
	row("memory (RSS) after an answer", "MB", ours.rss, theirs.rss)
	fmt.Printf("%-44s %8.1f %8.1f %-9s %5.2f\n", "WASI-NN: first token, second turn / fresh", ms(ours.again), ms(ours.fresh), "ms", ms(ours.again)/ms(ours.fresh))
	fmt.Printf("%-44s %8.1f %8.1f %-9s %5.2f\n", "WASI-NN: two answers, together / apart", ms(ours.pair), ms(ours.apart), "ms", ms(ours.pair)/ms(ours.apart))
}

func rss(t testing.TB, pid int) (mb float64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(after, &mb); err != nil {
		t.Fatal(err)
	}
	return mb / 1024
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func measurePlugin(t testing.TB) (f figures) {
	t.Helper()
	options := fmt.Sprintf(`{"ctx-size":2048,"threads":1,"temp":0,"n-predict":%d,"parallel":1}`, length)
	if _, err := wasm(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	g := start(t, "--nn-preload", "default:GGML:AUTO:"+model(t, smollm2))
	graph, run := g.open("default", options)
	f.start = time.Since(began)

	stream := func(prompt string) answer {
		g.want(0, request{Do: "input", Handle: run, Data: prompt})
		a := g.want(endOfSequence, request{Do: "stream", Handle: run})
		g.want(0, request{Do: "fini", Handle: run})
		return a
	}
	var a answer
	for i := range times {
		a = stream(story)
		if i == 0 { // later ones have the prompt computed already
			f.first = duration(a.FirstMS)
		}
		f.tokens = max(f.tokens, float64(len(a.Pieces)-1)/(a.TotalMS-a.FirstMS)*1000)
	}
	f.rss = rss(t, g.cmd.Process.Pid)

	long := "<|im_start|>user\n" + strings.Repeat("The keeper of the lighthouse counts the ships that pass. ", 15) + "<|im_end|>\n<|im_start|>assistant\n"
	a = stream(long)
	second := long + strings.Join(a.Pieces, "") + "<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n"
	f.again = duration(stream(second).FirstMS)
	stream(story)
	f.fresh = duration(stream(second).FirstMS)
	g.want(0, request{Do: "unload", Handle: graph})

	graph, first := g.open("default", strings.Replace(options, `"parallel":1`, `"parallel":2`, 1))
	other := g.want(0, request{Do: "init", Handle: graph}).Handle
	for _, handle := range []uint32{first, other} {
		g.want(0, request{Do: "input", Handle: handle, Data: story})
		f.apart += duration(g.want(endOfSequence, request{Do: "stream", Handle: handle}).TotalMS)
		// Other words, or the second time would have the prompt's tokens from the first.
		g.want(0, request{Do: "input", Handle: handle, Data: strings.Replace(story, "Tell", "Write", 1)})
	}
	f.pair = duration(g.want(0, request{Do: "together", Handle: first, Index: other}).TotalMS)
	return f
}

func measureLlamaServer(t testing.TB) (f figures) {
	t.Helper()
	began := time.Now()
	cmd, client := startLlamaServer(t, "-m", model(t, smollm2), "-c", "2048", "-np", "1")
	f.start = time.Since(began)
	var got struct {
		Timings struct {
			PromptMS  float64 `json:"prompt_ms"`
			PerSecond float64 `json:"predicted_per_second"`
		} `json:"timings"`
	}
	for i := range times {
		post(t, client, "/completion", fmt.Sprintf(`{"prompt": %q, "n_predict": %d, "temperature": 0}`, story, length), &got)
		if i == 0 {
			f.first = duration(got.Timings.PromptMS)
		}
		// Its clock begins with the first token, but it counts that one.
		f.tokens = max(f.tokens, got.Timings.PerSecond*(length-1)/length)
	}
	f.rss = rss(t, cmd.Process.Pid)
	_ = cmd.Process.Kill()
	return f
}
