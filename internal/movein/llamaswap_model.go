package movein

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// model translates a model.
func (s *importer) model(key, table *yaml.Node) {
	at := "models." + key.Value
	var m swapModel
	if err := table.Decode(&m); err != nil {
		s.note(key.Line, at, "it was left out: %v", err)
		return
	}
	s.noteKeys(at+".", table, modelNotes)
	t := &translation{importer: s, id: key.Value, at: at, line: key.Line, macros: s.macros(&m.Macros, s.global), m: m}
	if err := t.run(); err != nil {
		s.note(key.Line, at, "it was left out: %v", err)
		return
	}
	s.known[key.Value] = len(s.out.Entries)
	s.out.Entries = append(s.out.Entries, t.e)
}

// translation is the work on one model.
type translation struct {
	*importer
	id, at string
	line   int
	macros []macro
	m      swapModel
	e      Entry
}

func (t *translation) run() error {
	t.e = Entry{Name: t.id}
	for _, a := range t.m.Aliases {
		if alias := string(a); alias != "" && alias != t.id && !slices.Contains(t.e.Aliases, alias) {
			t.e.Aliases = append(t.e.Aliases, alias)
		}
	}
	for _, c := range []string{t.m.Name, t.m.Description} {
		if c != "" {
			t.e.Comments = append(t.e.Comments, c)
		}
	}
	argv, err := t.words("cmd", t.m.Cmd)
	if err != nil {
		return err
	}
	if len(argv) == 0 {
		return errors.New("it has no cmd")
	}
	t.environment()
	if argv[0] == "llama-server" && t.llamaServer(argv[1:]) {
		t.e.Engine = "llama-server"
	} else if err := t.command(argv); err != nil {
		return err
	}
	t.times()
	t.filters()
	return nil
}

// words are the words of a command.
func (t *translation) words(key, text string) ([]string, error) {
	expanded, err := t.expand(text, t.id, t.macros)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	argv, err := shellWords(expanded)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return argv, nil
}

func (t *translation) environment() {
	for _, pair := range t.m.Env {
		expanded, err := t.expand(pair, t.id, t.macros)
		name, v, ok := strings.Cut(expanded, "=")
		if err != nil || !ok || name == "" {
			t.note(t.line, t.at+".env", "%s: it is no NAME=VALUE", name)
			continue
		}
		if t.e.Env == nil {
			t.e.Env = map[string]string{}
		}
		t.e.Env[name] = v
	}
}

// llamaServer makes what llama-server is started with the entry's own keys. It reports false if that cannot be: then it is a command like others.
func (t *translation) llamaServer(args []string) bool {
	e := t.e
	for i := 0; i < len(args); i++ {
		flag, v, joined := strings.Cut(args[i], "=")
		next := func() string {
			if joined || i+1 >= len(args) {
				return v
			}
			i++
			return args[i]
		}
		switch flag {
		case "-m", "--model":
			e.ModelPath = t.absolute(next())
		case "-hf", "-hfr", "--hf-repo":
			e.ModelSource = "hf:" + next()
		case "-c", "--ctx-size":
			e.CtxSize, _ = strconv.Atoi(next())
		case "--port", "--host", "-a", "--alias":
			next()
		case "--embedding", "--embeddings":
			e.Kind = "embedding"
		case "--rerank", "--reranking":
			e.Kind = "rerank"
		case "--api-key", "--api-key-file":
			next()
			t.note(t.line, t.at+".cmd", "%s was left out: nobody but the server reaches its engines", flag)
		case "--mmproj", "-mm", "-md", "--model-draft", "--lora", "--chat-template-file", "--grammar-file":
			e.Args = append(e.Args, flag, t.absolute(next()))
		default:
			e.Args = append(e.Args, args[i])
		}
	}
	if (e.ModelPath == "") == (e.ModelSource == "") {
		return false
	}
	if strings.Contains(strings.Join(e.Args, " "), "{{port}}") {
		return false
	}
	t.e = e
	return true
}

// absolute makes a path start at the configuration's directory: model files have others.
func (t *translation) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) || strings.HasPrefix(path, "{{") {
		return path
	}
	return filepath.Join(t.dir, path)
}

// containers are the programs whose child is not the engine.
var containers = []string{"docker", "podman", "nerdctl"}

// command makes the entry one of a command.
func (t *translation) command(argv []string) error {
	t.e.Engine, t.e.Command, t.e.Kind = "command", argv, kindOfCommand(argv)
	if t.m.CmdStop != "" {
		text := strings.ReplaceAll(t.m.CmdStop, "${PID}", "$PID")
		stop, err := t.words("cmdStop", text)
		switch {
		case err != nil:
			return err
		case slices.Contains(stop, "$PID"):
			t.note(t.line, t.at+".cmdStop", "it was left out as it needs the engine's pid: the engine's whole process group is stopped")
		default:
			t.e.StopCommand = stop
		}
	}
	program := filepath.Base(argv[0])
	if slices.Contains(containers, program) {
		t.e.Identity = "none"
		if name := containerName(argv); name != "" {
			t.e.CleanupCommand = []string{argv[0], "rm", "--force", name}
		}
	}
	if strings.HasSuffix(program, "llama-server") {
		t.note(t.line, t.at+".cmd", "it stays a command, as it names a llama-server of its own; with engine = \"llama-server\" its slots, memory and conversations are known")
	}
	if t.m.CheckEndpoint != "none" {
		t.e.ReadyPath = cmp.Or(t.m.CheckEndpoint, "/health")
	}
	t.e.Concurrency = max(t.m.ConcurrencyLimit, 0)
	return t.upstream()
}

// kindOfCommand is what a command is for, as far as it shows; "" = chats.
func kindOfCommand(argv []string) string {
	switch filepath.Base(argv[0]) {
	case "whisper-server":
		return "transcription"
	case "sd-server":
		return "image"
	}
	for _, arg := range argv {
		switch arg {
		case "--embedding", "--embeddings":
			return "embedding"
		case "--rerank", "--reranking":
			return "rerank"
		}
	}
	return ""
}

// containerName is the name that a container is run by.
func containerName(argv []string) string {
	for i, arg := range argv {
		if name, ok := strings.CutPrefix(arg, "--name="); ok {
			return name
		}
		if arg == "--name" && i+1 < len(argv) {
			return argv[i+1]
		}
	}
	return ""
}

// upstream is where the command listens, if not on our port.
func (t *translation) upstream() error {
	if t.m.Proxy == "" {
		return nil
	}
	proxy, err := t.expand(t.m.Proxy, t.id, t.macros)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	at, plain := strings.CutPrefix(proxy, "http://")
	at, path, _ := strings.Cut(at, "/")
	switch {
	case !plain:
		return fmt.Errorf("proxy: %s is not http: name it as a remote server", proxy)
	case path != "":
		t.note(t.line, t.at+".proxy", "its path /%s was left out: engines are asked under /v1", path)
	}
	host, port, ok := strings.Cut(at, ":")
	if !ok {
		port = "80"
	}
	if port == "{{port}}" && slices.Contains([]string{"localhost", "127.0.0.1"}, host) {
		return nil
	}
	t.e.Upstream = host + ":" + port
	if port == "{{port}}" {
		return fmt.Errorf("proxy: %s: a port that is chosen is one of this machine", proxy)
	}
	return nil
}

func seconds(n int) string { return strconv.Itoa(n) + "s" }

func (t *translation) times() {
	ttl := t.config.GlobalTTL
	if t.m.TTL != nil && *t.m.TTL >= 0 {
		ttl = *t.m.TTL
		if ttl == 0 {
			t.e.IdleTimeout = "0"
		}
	}
	if ttl > 0 {
		t.e.IdleTimeout = seconds(ttl)
	}
	const shortest = 15 // seconds, as llama-swap has it
	if n := t.config.HealthCheckTimeout; n > 0 {
		t.e.StartTimeout = seconds(max(n, shortest))
	}
	if n := cmp.Or(t.m.UnloadTimeout, t.config.UnloadTimeout); n > 0 {
		t.e.StopTimeout = seconds(n)
	}
	if n := t.m.Timeouts.ResponseHeader; n > 0 {
		t.e.FirstByte = seconds(n)
	}
}

func (t *translation) filters() {
	f := t.m.Filters
	forced := map[string]any{}
	maps.Copy(forced, f.Set)
	if t.m.UseModelName != "" {
		forced["model"] = t.m.UseModelName
	}
	for param := range strings.SplitSeq(f.Strip+","+f.OldStrip, ",") {
		param = strings.TrimSpace(param)
		if _, set := forced[param]; param == "" || set {
			continue
		}
		t.note(t.line, t.at+".filters.stripParams", "%s is not taken out of requests: put what it is to be into forced", param)
	}
	for _, name := range slices.Sorted(maps.Keys(f.SetByID)) {
		id, err := t.expand(name, t.id, t.macros)
		if err != nil {
			t.note(t.line, t.at+".filters.setParamsByID", "%v", err)
			continue
		}
		if id == t.id {
			maps.Copy(forced, f.SetByID[name])
			continue
		}
		t.e.Aliases = slices.DeleteFunc(t.e.Aliases, func(a string) bool { return a == id })
		t.e.Variants = append(t.e.Variants, Variant{id, f.SetByID[name]})
	}
	for _, params := range append([]map[string]any{forced}, variantsOf(t.e.Variants)...) {
		maps.DeleteFunc(params, func(name string, v any) bool {
			if v != nil {
				return false
			}
			t.note(t.line, t.at+".filters", "%s was left out: it has no value", name)
			return true
		})
	}
	if len(forced) > 0 {
		t.e.Forced = forced
	}
}

func variantsOf(all []Variant) (params []map[string]any) {
	for _, v := range all {
		params = append(params, v.Forced)
	}
	return params
}
