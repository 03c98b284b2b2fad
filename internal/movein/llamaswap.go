package movein

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

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
