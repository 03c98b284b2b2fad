// Command bench measures this server beside plain Caddy and beside no router at
// all, in one interleaved run on one machine, all as separate processes against
// the same fake engine, and says which of the project's goals are met.
//
//	go run ./bench [-caddy ./caddy] [-rounds 5] [-seconds 2] [-only warm1,cold]
//	LLAMA_SWAP=/path/llama-swap LLAMA_SERVER=/path/llama-server go run ./bench -peers
//
// With -peers it measures the rivals too whose binaries the environment names, in
// suites of their own beside most of the others.
//
// Client, router and engine share the machine's CPUs, and neighbours disturb
// them: compare figures of one run only, and ratios rather than figures.
// Another server is measured by adding it to the table in rivals.go.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A suite measures one thing for all peers and adds its rows to the report.
type suite struct {
	name string
	run  func(*bench) error
	when occasion
}

// all suites, and whether they run when none is named: without the rivals, and with them.
var suites = []suite{
	{"warm1", warm1, alone | against},
	{"warm64", warm64, alone | against},
	{"chain", chain, alone},
	{"body200k", body200k, alone | against},
	{"body2m", body2m, against},
	{"stream", stream64, alone | against},
	{"memory", memory, alone},
	{"cold", cold, alone},
	{"coldpeers", coldPeers, against},
	{"herd", herd, alone | against},
	{"room", crowdedRoom, against},
	{"tail", heavyTail, against},
	{"abandon", abandon, against},
	{"scale", scale, alone | against},
	{"edit", edit, against},
	{"real", realEngine, against},
}

// occasion is a set of the ways to run without naming suites.
type occasion int

const (
	alone   occasion = 1 << iota // beside plain Caddy
	against                      // beside the rivals
)

// bench is one run.
type bench struct {
	ctx     context.Context // ends on Ctrl-C
	caddy   string          // the built product
	hasOurs bool            // whether it has our module in it
	engine  string          // the fake engine
	dir     string          // for configurations, logs and sockets; removed at the end
	rounds  int
	seconds time.Duration // a peer's share of a round
	streams int           // open at a time where memory is measured
	procs   *processes
	report  *report

	rivals   []rival           // those that are there
	bin      map[string]string // their binaries, by name
	nextPort int               // see reservePorts
	crowd    time.Duration     // how long clients crowd a room in a round
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	caddy := flag.String("caddy", "./caddy", "the `binary` to measure; plain Caddy is the same one with reverse_proxy alone")
	rounds := flag.Int("rounds", 5, "how often each peer is measured, in turns")
	peers := flag.Bool("peers", false, "measure the rivals too, whose binaries these name: "+rivalVariables())
	crowd := flag.Duration("crowd", 20*time.Second, "how long 20 clients ask 10 models in room for 2, in each of two rounds")
	streams := flag.Int("streams", 1000, "how many streams are open where the memory of one is measured; each takes two files of the router")
	seconds := flag.Float64("seconds", 2, "how long each peer is measured in a round")
	only := flag.String("only", "", "comma-separated `suites` to run: "+suiteNames())
	out := flag.String("out", "bench/results", "`directory` for the figures as JSON; empty = don't write")
	flag.Parse()
	when := alone
	if *peers {
		when = against
	}
	chosen, err := choose(*only, when)
	if err != nil {
		return err
	}
	if *rounds < 1 || *seconds <= 0 || *streams < 1 || flag.NArg() > 0 {
		flag.Usage()
		return fmt.Errorf("nothing to do with these arguments: %q", os.Args[1:])
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "assistant-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{
		ctx: ctx, dir: dir, rounds: *rounds, seconds: time.Duration(*seconds * float64(time.Second)),
		procs: &processes{dir: dir}, report: newReport(*rounds, *seconds), crowd: *crowd, streams: *streams,
	}
	defer b.procs.stopAll()
	if err := b.build(*caddy); err != nil {
		return err
	}
	if *peers {
		b.findRivals()
	}
	for _, s := range chosen {
		fmt.Fprintf(os.Stderr, "%s…\n", s.name)
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.procs.stopAll()
	}
	b.report.print(os.Stdout)
	if *out == "" {
		return nil
	}
	return b.report.save(*out)
}

// build finds the product and builds the fake engine.
func (b *bench) build(caddy string) (err error) {
	if b.caddy, err = filepath.Abs(caddy); err != nil {
		return err
	}
	modules, err := exec.CommandContext(b.ctx, b.caddy, "list-modules").Output()
	if err != nil {
		return fmt.Errorf("%s list-modules: %w (make build makes the binary)", caddy, err)
	}
	b.hasOurs = strings.Contains(string(modules), "http.handlers.assistant\n")
	if !b.hasOurs {
		fmt.Fprintf(os.Stderr, "%s has no module http.handlers.assistant: only its reverse_proxy is measured\n", caddy)
	}
	if version, err := exec.CommandContext(b.ctx, b.caddy, "version").Output(); err == nil {
		b.report.Versions[filepath.Base(caddy)] = strings.TrimSpace(string(version))
	}
	b.engine = filepath.Join(b.dir, "fakeengine")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-o", b.engine, "assistant/internal/enginetest/fakeengine")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// choose finds the suites named, or with none those of the occasion.
func choose(only string, when occasion) ([]suite, error) {
	if only == "" {
		return slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return s.when&when == 0 }), nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no suite %q; there are %s", name, suiteNames())
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}

func suiteNames() string {
	var names []string
	for _, s := range suites {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}
