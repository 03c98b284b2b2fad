package enginetest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options is what the engine's flags say.
type Options struct {
	// llama-server's own flags.
	Model      string // -m, --model: must exist if given, as for llama-server
	Host       string // --host: an address, or the path of a unix socket if it ends in .sock; default 127.0.0.1
	Port       int    // --port: 0 = chosen, printed on stderr; default 8080
	Alias      string // -a, --alias: the name of the model; default "fake"
	Ctx        int    // -c, --ctx-size
	Slots      int    // -np, --parallel, --slots: requests served at a time, the others wait; 0 or less = unlimited
	Embeddings bool   // --embeddings: without it /v1/embeddings is 501
	Metrics    bool   // --metrics: without it /metrics is 501
	SlotDir    string // --slot-save-path: slots then hold what they computed, and can be saved and restored; see kv

	Version bool // --version: say the build and end

	// Speaking as another engine.
	Dialect  string // --dialect: "" = llama-server, or llama-api-server, see [edge]
	Template string // --prompt-template, of llama-api-server; default chatml
	Text     string // --text: what that says, token by token; default " 1 2 3 …" of --tokens tokens

	// Starting.
	StartDelay time.Duration // --start-delay
	Ready      string        // --ready: during the start delay refuse connections (refuse), answer 503 (503), or accept and say nothing (tcp)
	Hang       bool          // --hang: never listen
	WrongPort  bool          // --wrong-port: listen on another port than told
	Daemonize  bool          // --daemonize: serve from a grandchild in a session of its own, while this process exits 0
	Child      bool          // --child: leave a child that holds stdout and stderr open and sleeps
	Stderr     lines         // --stderr: a line to print first; may be repeated

	// Answering.
	Tokens      int           // --tokens: how many an answer has unless max_tokens is less; default 200
	TokenDelay  time.Duration // --token-delay: before each token
	PromptDelay time.Duration // --prompt-delay: for each token of the prompt that the slot does not hold
	AnswerDelay time.Duration // --answer-delay: before the first byte
	AnswerTail  float64       // --answer-tail: with it the answer delay is the mean of a lognormal distribution of this sigma, see [tailed]; 0 = always the same
	NoCancel    bool          // --no-cancel: a non-streaming request goes on after its client left, as with llama-server
	Echo        bool          // --echo: every API POST is answered with what came in, see [Echo]

	// Devices. Without a directory the engine has none. See [NewGPUs].
	GPUDir       string // --gpu-dir
	GPUMemory    int64  // --gpu-memory: MiB to hold with all layers on devices, divided by -ts, else evenly
	GPULayers    int    // --gpu-all: the number of layers at which all of it is held; 0 = whatever -ngl says above 0
	GPULoadExtra int64  // --gpu-load-extra: MiB more on each device while it loads
	Layers       string // -ngl, --n-gpu-layers; "" = auto: the engine fits itself to what is free, and is slow if that is less
	Device       string // -dev, --device: names, comma separated; none; "" = all that are visible
	TensorSplit  string // -ts, --tensor-split
	Fit          string // -fit, --fit: off = do as told or fail
	List         bool   // --list-devices: print them and end

	// Ending.
	IgnoreTerm     int           // --ignore-term: how many SIGTERMs to ignore; -1 = all
	ExitCode       int           // --exit-code: the status with which the engine ends by itself; default -1 = it does not
	ExitAfter      time.Duration // --exit-after: when it does; 0 = at once
	DieAfterTokens int           // --die-after-tokens: SIGKILL itself once it has sent so many of one stream
	DieOnRequest   bool          // --die-on-request: SIGKILL itself when a request arrives
	MaxLife        time.Duration // --max-life: end anyway after this; default 10m

	// Events is a file that gets a line for each [Event]. --events
	Events string

	daemonStage int      // how many forks of --daemonize lie behind
	args        []string // as given, for the engine's children
	guest       bool     // it poses as WasmEdge with a guest
}

type lines []string

func (l *lines) String() string     { return strings.Join(*l, "\n") }
func (l *lines) Set(s string) error { *l = append(*l, s); return nil }

// parse reads the flags. Those of llama-server that mean nothing here are
// accepted and ignored; other unknown ones are errors unless --lenient is given.
func parse(args []string) (Options, error) {
	o := Options{args: args}
	fs := flag.NewFlagSet("fakeengine", flag.ContinueOnError)
	fs.SetOutput(io.Discard)

	names := func(def func(name string), names ...string) {
		for _, n := range names {
			def(n)
		}
	}
	names(func(n string) { fs.StringVar(&o.Model, n, "", "") }, "m", "model")
	fs.StringVar(&o.Host, "host", "127.0.0.1", "")
	fs.IntVar(&o.Port, "port", 8080, "")
	names(func(n string) { fs.StringVar(&o.Alias, n, "fake", "") }, "a", "alias", "model-name")
	fs.StringVar(&o.Dialect, "dialect", "", "")
	fs.StringVar(&o.Template, "prompt-template", "chatml", "")
	fs.StringVar(&o.Text, "text", "", "")
	names(func(n string) { fs.IntVar(&o.Ctx, n, 4096, "") }, "c", "ctx-size")
	names(func(n string) { fs.IntVar(&o.Slots, n, 0, "") }, "np", "parallel", "slots")
	names(func(n string) { fs.BoolVar(&o.Embeddings, n, false, "") }, "embeddings", "embedding")
	fs.BoolVar(&o.Metrics, "metrics", false, "")
	fs.StringVar(&o.SlotDir, "slot-save-path", "", "")
	fs.BoolVar(&o.Version, "version", false, "")
	names(func(n string) { fs.String(n, "", "") }, "b", "batch-size", "ub", "ubatch-size", "t", "threads",
		"sm", "split-mode", "mg", "main-gpu", "pooling", "mmproj", "chat-template")
	names(func(n string) { fs.Bool(n, false, "") }, "offline", "no-webui", "jinja", "no-warmup", "reranking", "rerank")

	fs.StringVar(&o.GPUDir, "gpu-dir", "", "")
	fs.Int64Var(&o.GPUMemory, "gpu-memory", 0, "")
	fs.IntVar(&o.GPULayers, "gpu-all", 0, "")
	fs.Int64Var(&o.GPULoadExtra, "gpu-load-extra", 0, "")
	names(func(n string) { fs.StringVar(&o.Layers, n, "", "") }, "ngl", "gpu-layers", "n-gpu-layers")
	names(func(n string) { fs.StringVar(&o.Device, n, "", "") }, "dev", "device")
	names(func(n string) { fs.StringVar(&o.TensorSplit, n, "", "") }, "ts", "tensor-split")
	names(func(n string) { fs.StringVar(&o.Fit, n, "on", "") }, "fit")
	fs.BoolVar(&o.List, "list-devices", false, "")

	fs.DurationVar(&o.StartDelay, "start-delay", 0, "")
	fs.StringVar(&o.Ready, "ready", "refuse", "")
	fs.BoolVar(&o.Hang, "hang", false, "")
	fs.BoolVar(&o.WrongPort, "wrong-port", false, "")
	fs.BoolVar(&o.Daemonize, "daemonize", false, "")
	fs.IntVar(&o.daemonStage, "daemon-stage", 0, "")
	fs.BoolVar(&o.Child, "child", false, "")
	fs.Var(&o.Stderr, "stderr", "")

	fs.IntVar(&o.Tokens, "tokens", 200, "")
	fs.DurationVar(&o.TokenDelay, "token-delay", 0, "")
	fs.DurationVar(&o.PromptDelay, "prompt-delay", 0, "")
	fs.DurationVar(&o.AnswerDelay, "answer-delay", 0, "")
	fs.Float64Var(&o.AnswerTail, "answer-tail", 0, "")
	fs.BoolVar(&o.NoCancel, "no-cancel", false, "")
	fs.BoolVar(&o.Echo, "echo", false, "")

	fs.IntVar(&o.IgnoreTerm, "ignore-term", 0, "")
	fs.IntVar(&o.ExitCode, "exit-code", -1, "")
	fs.DurationVar(&o.ExitAfter, "exit-after", 0, "")
	fs.IntVar(&o.DieAfterTokens, "die-after-tokens", 0, "")
	fs.BoolVar(&o.DieOnRequest, "die-on-request", false, "")
	fs.DurationVar(&o.MaxLife, "max-life", 10*time.Minute, "")
	fs.StringVar(&o.Events, "events", "", "")
	fs.Bool("lenient", false, "")

	if slices.Contains(args, "--lenient") {
		args = known(fs, args)
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.VisitAll(func(f *flag.Flag) { fmt.Printf("--%s N\n", f.Name) })
		}
		return o, err
	}
	if o.SlotDir != "" && o.Slots <= 0 {
		o.Slots = 4 // llama-server's own default
	}
	return o, o.check(fs.Args())
}

func (o *Options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("invalid argument: %s", rest[0])
	}
	if !slices.Contains([]string{"refuse", "503", "tcp"}, o.Ready) {
		return fmt.Errorf("--ready is %q, want refuse, 503 or tcp", o.Ready)
	}
	if !slices.Contains([]string{"", DialectLlamaAPIServer}, o.Dialect) {
		return fmt.Errorf("--dialect is %q, want %s", o.Dialect, DialectLlamaAPIServer)
	}
	if o.Model != "" {
		if _, err := os.Stat(o.Model); err != nil {
			return fmt.Errorf("failed to load model, '%s'\nmain: exiting due to model loading error", o.Model)
		}
	}
	return nil
}

// known drops the flags that fs lacks, each with the values that follow it.
func known(fs *flag.FlagSet, args []string) []string {
	var kept []string
	keep := true
	for _, a := range args {
		if name := strings.TrimLeft(a, "-"); name != a && !isNumber(a) {
			name, _, _ = strings.Cut(name, "=")
			keep = fs.Lookup(name) != nil
		}
		if keep {
			kept = append(kept, a)
		}
	}
	return kept
}

// isNumber tells the value -1 from a flag.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// without returns the flags as given less those named, none of which takes a value.
func (o *Options) without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(o.args), func(a string) bool {
		return slices.Contains(names, strings.TrimLeft(a, "-"))
	})
}
