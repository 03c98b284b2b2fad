package movein

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Imported is what a rival's configuration becomes.
type Imported struct {
	Entries []Entry
	Remotes []Remote // for remote_servers of a config.toml
	Notes   []Note   // what has no counterpart, or another one than may be thought
}

// Remote is another server.
type Remote struct {
	URL    string
	APIKey string
	Models []string
}

// Note is what could not be translated, and what to do about it.
type Note struct {
	Line int    `json:"line"` // from 1; 0 = it is about no line
	Key  string `json:"key"`  // such as models.qwen.metadata
	Text string `json:"text"`
}

// Render is the remote_servers of a config.toml.
func (r Remote) Render() string {
	text := "[[remote_servers]]\nurl = " + quote(r.URL) + "\n"
	if r.APIKey != "" {
		text += "api_key = " + quote(r.APIKey) + "\n"
	}
	if len(r.Models) > 0 {
		text += "models = " + value(r.Models) + "\n"
	}
	return text
}

// swapConfig is a configuration of llama-swap (https://github.com/mostlygeek/llama-swap, config-schema.json), as far as it means something here.
type swapConfig struct {
	HealthCheckTimeout int                  `yaml:"healthCheckTimeout"` // seconds
	UnloadTimeout      int                  `yaml:"unloadTimeout"`      // seconds
	GlobalTTL          int                  `yaml:"globalTTL"`          // seconds; 0 = for ever
	Macros             yaml.Node            `yaml:"macros"`
	Models             yaml.Node            `yaml:"models"`
	Groups             map[string]swapGroup `yaml:"groups"`
	Hooks              struct {
		OnStartup struct {
			Preload []string `yaml:"preload"`
		} `yaml:"on_startup"`
	} `yaml:"hooks"`
	Peers   map[string]swapPeer `yaml:"peers"`
	Routing struct {
		Router struct {
			Settings struct {
				Groups map[string]swapGroup `yaml:"groups"`
			} `yaml:"settings"`
		} `yaml:"router"`
	} `yaml:"routing"`
}

type swapGroup struct {
	Persistent bool     `yaml:"persistent"`
	Members    []string `yaml:"members"`
}

type swapPeer struct {
	Proxy  string   `yaml:"proxy"`
	APIKey string   `yaml:"apiKey"`
	Models []string `yaml:"models"`
}

type swapModel struct {
	Macros           yaml.Node   `yaml:"macros"`
	Cmd              string      `yaml:"cmd"`
	CmdStop          string      `yaml:"cmdStop"`
	Name             string      `yaml:"name"`
	Description      string      `yaml:"description"`
	Env              []string    `yaml:"env"`
	Proxy            string      `yaml:"proxy"`
	CheckEndpoint    string      `yaml:"checkEndpoint"`
	TTL              *int        `yaml:"ttl"` // seconds; 0 = for ever, -1 = globalTTL
	UseModelName     string      `yaml:"useModelName"`
	Filters          swapFilters `yaml:"filters"`
	Aliases          []swapAlias `yaml:"aliases"`
	ConcurrencyLimit int         `yaml:"concurrencyLimit"`
	UnloadTimeout    int         `yaml:"unloadTimeout"` // seconds
	Timeouts         struct {
		ResponseHeader int `yaml:"responseHeader"` // seconds
	} `yaml:"timeouts"`
}

type swapFilters struct {
	Strip    string                    `yaml:"stripParams"`
	OldStrip string                    `yaml:"strip_params"`
	Set      map[string]any            `yaml:"setParams"`
	SetByID  map[string]map[string]any `yaml:"setParamsByID"`
}

// swapAlias is a name, or a table with one.
type swapAlias string

func (a *swapAlias) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*a = swapAlias(n.Value)
		return nil
	}
	var t struct {
		ID string `yaml:"id"`
	}
	err := n.Decode(&t)
	*a = swapAlias(t.ID)
	return err
}

// maxImport bounds a configuration, in bytes.
const maxImport = 4 << 20

// ImportLlamaSwap translates a configuration of llama-swap. dir is the absolute directory that its relative paths start at, getenv its environment.
// An error is about the file as a whole; what of it has no counterpart is noted.
func ImportLlamaSwap(r io.Reader, dir string, getenv func(string) string) (Imported, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	switch {
	case err != nil:
		return Imported{}, err
	case len(data) > maxImport:
		return Imported{}, fmt.Errorf("larger than %d bytes: this is no configuration", maxImport)
	case len(bytes.TrimSpace(data)) == 0:
		return Imported{}, errors.New("the file is empty")
	}
	var doc yaml.Node
	var c swapConfig
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return Imported{}, err
	}
	if err := doc.Decode(&c); err != nil {
		return Imported{}, err
	}
	if c.Models.Kind != yaml.MappingNode && len(c.Peers) == 0 {
		return Imported{}, errors.New("models: there are none, so this is no configuration of llama-swap")
	}
	s := &importer{config: c, dir: dir, getenv: getenv, known: map[string]int{}}
	s.noteKeys("", doc.Content[0], topNotes)
	s.global = s.macros(&c.Macros, nil)
	for i := 0; i+1 < len(c.Models.Content); i += 2 {
		s.model(c.Models.Content[i], c.Models.Content[i+1])
	}
	s.groups()
	s.preload()
	s.peers()
	return s.out, nil
}

type importer struct {
	config swapConfig
	dir    string
	getenv func(string) string
	global []macro
	known  map[string]int // entries by the rival's name
	out    Imported
}

func (s *importer) note(line int, key, text string, args ...any) {
	s.out.Notes = append(s.out.Notes, Note{line, key, fmt.Sprintf(text, args...)})
}

// What keys have in place of a counterpart; "" = they are translated, or mean nothing here.
var (
	topNotes = map[string]string{
		"models": "", "macros": "", "groups": "", "hooks": "", "peers": "", "healthCheckTimeout": "", "globalTTL": "", "unloadTimeout": "",
		"logLevel": "set the level of Caddy's log", "logTimeFormat": "set the format of Caddy's log", "logToStdout": "an engine's output is in the log at level DEBUG, and in caddy assistant logs MODEL",
		"profiles": "name several models in requests one after the other, or use fallbacks", "logRequests": "add log to the site in the Caddyfile", "metricsMaxInMemory": "metrics are Prometheus', and have no bound",
		"captureBuffer": "requests are not captured", "ui": "it is about its own page", "performance": "what is measured of the machine is in the metrics",
		"upstream": "engines are asked by their API alone", "selectors": "name one model in requests, with fallbacks", "startPort": "free ports and unix sockets are chosen at each start",
		"sendLoadingState":     "clients ask for it by X-Assistant-Progress: reasoning; a key can have progress = \"reasoning\"",
		"includeAliasesInList": "a model's aliases are in its entry of the list", "apiKeys": "make keys: caddy assistant key new NAME",
		"matrix":  "what runs side by side is decided by memory: give models memory, priority or pinned where that is not right",
		"routing": "what runs side by side is decided by memory: give models memory, priority or pinned where that is not right",
	}
	modelNotes = map[string]string{
		"macros": "", "cmd": "", "cmdStop": "", "name": "", "description": "", "env": "", "proxy": "", "checkEndpoint": "", "ttl": "", "useModelName": "",
		"filters": "", "aliases": "", "concurrencyLimit": "", "timeouts": "", "unloadTimeout": "",
		"compat":           "repairs are made by kind of engine (docs/dialects.md)",
		"capabilities":     "what a model can do is read from its file",
		"unlisted":         "all models are listed; a key's models tell who may see which",
		"metadata":         "the list has no fields of one's own",
		"sendLoadingState": "clients ask for it by X-Assistant-Progress: reasoning; a key can have progress = \"reasoning\"",
	}
)

// noteKeys notes what is known of keys that are not translated, and those that are not known.
func (s *importer) noteKeys(at string, table *yaml.Node, notes map[string]string) {
	for i := 0; i+1 < len(table.Content); i += 2 {
		key := table.Content[i]
		text, known := notes[key.Value]
		if !known {
			text = "it is not known what this is for"
		}
		if text != "" {
			s.note(key.Line, at+key.Value, "%s", text)
		}
	}
}

// macro is a text that stands for another.
type macro struct{ name, value string }

// macros are those of a table after those that are known already. What they say of others is put in when they are used.
func (s *importer) macros(table *yaml.Node, before []macro) []macro {
	all := slices.Clone(before)
	for i := 0; i+1 < len(table.Content); i += 2 {
		name, v := table.Content[i].Value, table.Content[i+1].Value
		all = slices.DeleteFunc(all, func(m macro) bool { return m.name == name })
		all = append(all, macro{name, strings.TrimSpace(v)})
	}
	return all
}

var reference = regexp.MustCompile(`\$\{([A-Za-z0-9_.-]+)\}`)

// expand puts macros in: those of the environment, those given, the model's name, and ours for the port.
func (s *importer) expand(text, id string, macros []macro) (string, error) {
	const deepest, longest = 16, 64 << 10
	for range deepest {
		if len(text) > longest {
			return "", fmt.Errorf("with its macros it is longer than %d bytes", longest)
		}
		var missing string
		next := reference.ReplaceAllStringFunc(text, func(ref string) string {
			name := ref[2 : len(ref)-1]
			if env, ok := strings.CutPrefix(name, "env."); ok {
				if v := s.getenv(env); v != "" {
					return v
				}
				missing = ref
				return ref
			}
			switch name {
			case "PORT":
				return "{{port}}"
			case "MODEL_ID":
				return id
			}
			for _, m := range macros {
				if m.name == name {
					return m.value
				}
			}
			missing = ref
			return ref
		})
		if missing != "" {
			return text, fmt.Errorf("%s is not set", missing)
		}
		if next == text {
			return text, nil
		}
		text = next
	}
	return text, errors.New("its macros lead to each other without an end")
}

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

// groups are for what is to stay. What else runs side by side is decided by memory here.
func (s *importer) groups() {
	told := false
	groups := s.config.Groups
	if groups == nil {
		groups = s.config.Routing.Router.Settings.Groups
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		for _, member := range g.Members {
			if i, ok := s.known[member]; ok && g.Persistent {
				s.out.Entries[i].Pinned = true
			}
		}
		if !g.Persistent && !told {
			told = true
			s.note(0, "groups."+name, "what runs side by side is decided by memory; to have one model at a time, set max_instances 1")
		}
	}
}

func (s *importer) preload() {
	for _, name := range s.config.Hooks.OnStartup.Preload {
		if i, ok := s.known[name]; ok {
			s.out.Entries[i].Preload = true
			continue
		}
		s.note(0, "hooks.on_startup.preload", "there is no model %s", name)
	}
}

func (s *importer) peers() {
	for _, name := range slices.Sorted(maps.Keys(s.config.Peers)) {
		p := s.config.Peers[name]
		url, err := s.expand(p.Proxy, name, s.global)
		if err != nil || url == "" {
			s.note(0, "peers."+name, "it was left out: its proxy is not known")
			continue
		}
		key := ""
		if p.APIKey != "" { // it is nobody's to see
			key = "PUT ITS KEY HERE"
			s.note(0, "peers."+name+".apiKey", "it is not shown: put it into api_key")
		}
		s.out.Remotes = append(s.out.Remotes, Remote{url, key, p.Models})
	}
}

// shellWords splits a command as a shell does, without lines that are comments: quotes and backslashes hold words together, nothing is put in for
// variables.
func shellWords(text string) (words []string, err error) {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines = append(lines, line)
		}
	}
	var word strings.Builder
	var quoted rune // the quote we are in; 0 = none
	inWord, escaped := false, false
	for _, r := range strings.Join(lines, "") {
		switch {
		case escaped:
			if r != '\n' {
				word.WriteRune(r)
				inWord = true
			}
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped = true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quoted, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quoted)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
