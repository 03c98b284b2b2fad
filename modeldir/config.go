package modeldir

import (
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// Config is the user's main file, config.toml. It is immutable.
type Config struct {
	File string // absolute path

	HTTPAddr string // [server] http_addr, host:port; "" = not given
	GRPCAddr string // [server] grpc_addr, host:port; "" = not given

	ConfigDir    string   // [scheduler] config_dir, absolute; "" = not given
	MaxInstances int      // [scheduler] max_instances; 0 = not given
	MaxLoad      *float64 // [scheduler] max_load, 0 or more; nil = not given

	RemoteServers []RemoteServer
	LlamaServers  []LlamaServer

	doc *document
}

// RemoteServer is another OpenAI-compatible server that models may be taken from.
type RemoteServer struct {
	URL            string // http or https
	APIKey         string
	Models         []string // nil = those that its own list names
	Weight         int      // share of requests relative to others; 0 = 1
	MaxConcurrency int      // 0 = no bound
}

// LlamaServer is one entry of [[llama_servers]]: up to three roles under one name.
type LlamaServer struct {
	Name       string // "" = as the file at ConfigPath says
	Port       *int   // of the main role; nil = not given
	ConfigPath string // absolute; "" = none

	at    string // the entry's place in the file
	roles []role // those given, the main one first
}

// role is one model of an entry.
type role struct {
	kind Kind
	path string // absolute; "" = as the file at ConfigPath says
}

// Warning is something in a file that is served all the same.
type Warning struct {
	Line    int // from 1
	Message string
}

// rawConfig is config.toml as written.
type rawConfig struct {
	RemoteServers []rawRemoteServer `toml:"remote_servers"`
	Server        struct {
		GRPCAddr string `toml:"grpc_addr"`
		HTTPAddr string `toml:"http_addr"`
	} `toml:"server"`
	Scheduler struct {
		ConfigDir    string   `toml:"config_dir"`
		MaxInstances *int     `toml:"max_instances"`
		MaxLoad      *float64 `toml:"max_load"`
	} `toml:"scheduler"`
	LlamaServers []rawLlamaServer `toml:"llama_servers"`
}

type rawRemoteServer struct {
	URL            string   `toml:"url"`
	APIKey         string   `toml:"api_key"`
	Models         []string `toml:"models"`
	Weight         int      `toml:"weight"`
	MaxConcurrency int      `toml:"max_concurrency"`
}

// UnmarshalText takes a server written as a string, its URL, instead of a table.
func (r *rawRemoteServer) UnmarshalText(text []byte) error {
	r.URL = string(text)
	return nil
}

type rawLlamaServer struct {
	Name               string `toml:"name"`
	ChatModelPath      string `toml:"chat_model_path"`
	EmbeddingModelPath string `toml:"embedding_model_path"`
	TTSModelPath       string `toml:"tts_model_path"`
	Port               *int   `toml:"port"`
	ConfigPath         string `toml:"config_path"`
}

var configSchema = schemaOf[rawConfig]()

// ReadConfig reads the config.toml at path. See [ParseConfig].
func ReadConfig(path string) (*Config, []Warning, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	return ParseConfig(file, data)
}

// ParseConfig reads the user's main file strictly, except that a string whose
// closing quote is missing is closed at its line's end, with a warning. File is
// its absolute path. Relative paths start at its directory, empty strings mean
// absent. Errors are of type [*FieldError]. The files named by config_path are read by
// [Config.Models], not here.
func ParseConfig(file string, data []byte) (*Config, []Warning, error) {
	var raw rawConfig
	doc, err := decode(file, data, &raw, configSchema)
	var warnings []Warning
	if err != nil {
		repaired, repairs := closeStrings(data)
		if len(repairs) == 0 {
			return nil, nil, err
		}
		raw = rawConfig{}
		var still error
		if doc, still = decode(file, repaired, &raw, configSchema); still != nil {
			if isSyntax(still) { // the repair was a wrong guess: complain about what the user wrote
				still = err
			}
			return nil, nil, still
		}
		warnings = repairs
	}
	c := &checker{doc: doc}
	cfg := raw.config(c)
	if c.err != nil {
		return nil, nil, c.err
	}
	return cfg, warnings, nil
}

func isSyntax(err error) bool {
	e, ok := err.(*FieldError) //nolint:errorlint // decode does not wrap
	return ok && e.Field == ""
}

// config judges the values.
func (r *rawConfig) config(c *checker) *Config {
	cfg := &Config{
		File:      c.doc.file,
		doc:       c.doc,
		HTTPAddr:  c.address("server.http_addr", r.Server.HTTPAddr),
		GRPCAddr:  c.address("server.grpc_addr", r.Server.GRPCAddr),
		ConfigDir: c.path("scheduler.config_dir", r.Scheduler.ConfigDir),
		MaxLoad:   r.Scheduler.MaxLoad,
	}
	if n := r.Scheduler.MaxInstances; n != nil {
		cfg.MaxInstances = c.between("scheduler.max_instances", *n, 1, maxInt32)
	}
	if l := r.Scheduler.MaxLoad; l != nil && !(*l >= 0 && *l <= math.MaxFloat64) {
		c.failf("scheduler.max_load", "%v is no load: write 0 (off) or more, such as 0.8 for 80 %% of all cores", *l)
	}
	for i, s := range r.RemoteServers {
		cfg.RemoteServers = append(cfg.RemoteServers, c.remoteServer(element("remote_servers", i), s))
	}
	for i, s := range r.LlamaServers {
		at := element("llama_servers", i)
		if s.Name != "" && slices.ContainsFunc(cfg.LlamaServers, func(o LlamaServer) bool { return o.Name == s.Name }) {
			c.failf(at+".name", "%q is the name of an earlier entry: choose another, or put the paths into one entry", s.Name)
		}
		cfg.LlamaServers = append(cfg.LlamaServers, c.llamaServer(at, s))
	}
	return cfg
}

func (c *checker) address(field, s string) string {
	if s == "" {
		return ""
	}
	if _, err := hostPort(s, 0); err != nil {
		c.failf(field, "%q is no address: write \"host:port\", such as \"127.0.0.1:8080\"", s)
	}
	return s
}

func (c *checker) remoteServer(at string, s rawRemoteServer) RemoteServer {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		c.failf(at+".url", `%q is no http or https URL: write one such as "https://host:8443/v1"`, s.URL)
	}
	return RemoteServer{
		URL:            s.URL,
		APIKey:         c.text(at+".api_key", s.APIKey),
		Models:         c.texts(at+".models", s.Models),
		Weight:         c.between(at+".weight", s.Weight, 0, maxInt32),
		MaxConcurrency: c.between(at+".max_concurrency", s.MaxConcurrency, 0, maxInt32),
	}
}

func (c *checker) llamaServer(at string, s rawLlamaServer) LlamaServer {
	entry := LlamaServer{at: at, Name: s.Name, Port: s.Port, ConfigPath: c.path(at+".config_path", s.ConfigPath)}
	switch {
	case s.Name != "":
		c.name(at+".name", s.Name)
	case s.ConfigPath == "":
		c.failf(at+".name", "must not be empty, as there is no config_path to take it from")
	}
	if s.Port != nil {
		c.between(at+".port", *s.Port, 0, maxPort)
	}
	for _, r := range []struct {
		kind        Kind
		field, path string
	}{
		{Chat, "chat_model_path", s.ChatModelPath},
		{Embedding, "embedding_model_path", s.EmbeddingModelPath},
		{Speech, "tts_model_path", s.TTSModelPath},
	} {
		if r.path != "" {
			entry.roles = append(entry.roles, role{r.kind, c.path(at+"."+r.field, r.path)})
		}
	}
	return entry
}

// Models reads the files named by config_path and returns the models of all
// entries of [[llama_servers]], roles of one entry following one another. An entry whose
// config_path cannot be read is a fault, and is listed with what config.toml
// alone says of it, if that makes a model.
func (c *Config) Models() ([]*Model, []Fault) {
	var models []*Model
	var faults []Fault
	for i, entry := range c.LlamaServers {
		var data []byte
		var err error
		if entry.ConfigPath != "" {
			data, _, err = readFile(entry.ConfigPath)
		}
		ms, name, err := c.expand(i, data, err)
		if err != nil {
			faults = append(faults, Fault{File: c.source(i), Name: name, Err: err})
			ms = c.bare(i)
		}
		models = append(models, ms...)
	}
	return models, faults
}

// source is the file to put right if entry i is at fault.
func (c *Config) source(i int) string {
	if path := c.LlamaServers[i].ConfigPath; path != "" {
		return path
	}
	return c.File
}

// expand makes the models of entry i from what its config_path holds, or failed
// to be read with. It returns the entry's name as well, as far as it is known.
func (c *Config) expand(i int, data []byte, failed error) (models []*Model, name string, err error) {
	entry := &c.LlamaServers[i]
	if entry.ConfigPath == "" {
		models, err = entry.models(rawModel{}, c.doc)
		return models, entry.Name, err
	}
	name = entry.Name
	if failed != nil {
		if name == "" {
			name = stem(entry.ConfigPath)
		}
		return nil, name, c.doc.errorf(entry.at+".config_path",
			"%v: put the file there, or leave config_path empty", failed)
	}
	raw, doc, err := readModel(entry.ConfigPath, data)
	if name == "" {
		name = raw.label(entry.ConfigPath)
	}
	if err != nil {
		return nil, name, err
	}
	models, err = entry.models(*raw, doc)
	for _, m := range models {
		m.File = c.File
	}
	return models, name, err
}

// bare makes the models of entry i without its config_path; nil if that is not enough.
func (c *Config) bare(i int) []*Model {
	entry := c.LlamaServers[i]
	if entry.Name == "" {
		return nil
	}
	models, err := entry.models(rawModel{}, c.doc)
	if err != nil {
		return nil
	}
	return models
}

// models makes one model a role. What the entry says goes before what raw says.
func (s *LlamaServer) models(raw rawModel, doc *document) ([]*Model, error) {
	if s.Name != "" {
		raw.Name = &s.Name
	}
	if s.Port != nil {
		raw.Port = *s.Port
	}
	roles := s.roles
	if len(roles) == 0 {
		if raw.ModelPath == "" && len(raw.Command) == 0 {
			return nil, doc.errorf(s.at, "has no model: give one of chat_model_path, embedding_model_path, tts_model_path (or model_path in its config_path)")
		}
		roles = []role{{Kind(raw.Kind), raw.ModelPath}}
	}
	var models []*Model
	for i, r := range roles {
		raw.Kind, raw.ModelPath = string(r.kind), r.path
		if i > 0 { // a further role shares the entry's name but not its port, no other name, and nothing that is done to its requests
			raw.Port, raw.Aliases, raw.Variants = 0, nil, nil
			raw.SystemPrompt, raw.Defaults, raw.Forced, raw.Caps = "", nil, nil, nil
		}
		raw.Command, raw.StopCommand, raw.CleanupCommand = slices.Clone(raw.Command), slices.Clone(raw.StopCommand), slices.Clone(raw.CleanupCommand)
		m, err := raw.model(doc)
		if err != nil {
			return nil, err
		}
		m.Entry = true
		if i > 0 {
			m.Key = m.Name + "#" + string(r.kind)
		}
		models = append(models, m)
	}
	return models, nil
}
