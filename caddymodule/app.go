package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"assistant/activator"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/internal/remote"
	"assistant/modeldir"
)

func init() { caddy.RegisterModule(App{}) }

// App serves any number of local models, each started by its first request and stopped when nobody
// uses it. A model is a TOML file in a directory.
type App struct {
	// The directory with one TOML file a model. It is watched. Default: ./models, or what config says.
	ConfigDir string `json:"config_dir,omitempty"`

	// A config.toml with the sections server, scheduler and llama_servers. What is said here goes before
	// what it says. Default: none.
	Config string `json:"config,omitempty"`

	// Where the router notes what it needs to know after a crash. Default: assistant in Caddy's data directory.
	StateDir string `json:"state_dir,omitempty"`

	// How many instances may be alive at a time, starting and stopping ones included. Default: 10.
	MaxInstances int `json:"max_instances,omitempty"`

	// The load, divided by the number of CPUs, from which no replicas are started and idle ones retire. A model's first
	// instance is never held back. May exceed 1. 0 turns it off. Default: 0.8.
	MaxLoad *float64 `json:"max_load,omitempty"`

	// How long an instance stays without requests, for models that do not say. 0 = for ever. Default: 5m.
	IdleTimeout *caddy.Duration `json:"idle_timeout,omitempty"`

	// How long a start may take, for models that do not say. Default: 5m.
	StartTimeout caddy.Duration `json:"start_timeout,omitempty"`

	// How long a request may wait for room, and then for a free slot; the time of a start does not count. Who has waited so
	// long for room makes others give way. Default: 60s.
	MaxWait caddy.Duration `json:"max_wait,omitempty"`

	// How many requests may wait for one model. Default: 1000.
	Queue int `json:"queue,omitempty"`

	// How many requests may wait altogether. Default: 10000.
	QueueTotal int `json:"queue_total,omitempty"`

	// How many requests of one client may wait for one model. A client is an API key, or else an address. Default: as many
	// as of all.
	QueueClient int `json:"queue_client,omitempty"`

	// How many bytes of request bodies may wait for one model. Default: 1 GiB.
	QueueBytes int64 `json:"queue_bytes,omitempty"`

	// How many bytes of request bodies may wait altogether. Default: 4 GiB.
	QueueBytesTotal int64 `json:"queue_bytes_total,omitempty"`

	// How many bytes of one client's request bodies may wait for one model. Default: as many as of all.
	QueueBytesClient int64 `json:"queue_bytes_client,omitempty"`

	// If true, the instance that was used last does not retire for being idle. Default: false.
	KeepLast bool `json:"keep_last,omitempty"`

	// If true, models are started ahead of requests that earlier ones make likely, in room that nobody wants. Default: false.
	Predict bool `json:"predict,omitempty"`

	// How many bytes of disk, in state_dir, the contexts of stopped instances may take, of models with keep_context. 0 keeps
	// none. Default: 4 GiB.
	ContextDisk *int64 `json:"context_disk,omitempty"`

	// A TOML file of API keys, made by caddy assistant key new. With it every request needs one of them. It is read again when it
	// changes. Default: keys.toml in state_dir, for requests that do not come from this machine; a first key is made there where
	// a listener can be reached from elsewhere.
	Keys string `json:"keys,omitempty"`

	// A placeholder for who somebody else has proven the request to come from, such as {http.auth.user.id} or
	// {http.request.tls.client.subject}. Where it is not empty, the key whose identity it is in the file of keys holds, without its
	// secret. A header that clients can set themselves proves nothing. Default: none.
	Identity string `json:"identity,omitempty"`

	// If true, and no keys are named, whoever reaches the server may use every model. Default: false.
	Insecure bool `json:"insecure,omitempty"`

	// If true, calls of the gRPC services may set what has models run programs of the caller's choice: engine = "command" and its keys, args,
	// env and wasm. Whoever has a key with the right admin can then do all that the server's user can. Default: false.
	AllowRemoteCommands bool `json:"allow_remote_commands,omitempty"`

	// The largest request body, in bytes. Default: 32 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// Where models with a model_source are kept that were brought here; models share what is the same in them. Default: store in state_dir.
	ModelStore string `json:"model_store,omitempty"`

	// How many bytes a second all downloads together may take. 0 = as many as they can. Default: 0.
	DownloadLimit int64 `json:"download_limit,omitempty"`

	// Other OpenAI-compatible servers, other Assistants among them, whose models join the list. A request for a model that is not here goes to
	// one of them, and so does one for a model that is full here, or slower to start than they answer. Default: those of config.
	RemoteServers []remote.Config `json:"remote_servers,omitempty"`

	ctx      caddy.Context
	log      *slog.Logger
	auditLog *slog.Logger
	rt       *runtime
	borrowed bool
	user     *modeldir.Config            // Config, read; nil if none
	keys     *atomic.Pointer[keys.Store] // holds nil as long as nobody has one
	serving  context.Context             // ends when the configuration does; streams without an end of their own end with it
	ending   context.CancelFunc
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "assistant", New: func() caddy.Module { return new(App) }}
}

// Provision borrows the runtime and changes nothing in it: this configuration may still be rejected.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.log, a.auditLog, a.keys = ctx, ctx.Slogger(), auditLog(ctx), new(atomic.Pointer[keys.Store])
	a.serving, a.ending = context.WithCancel(context.Background())
	rt, _, err := runtimes.LoadOrNew(runtimeKey, newRuntime)
	if err != nil {
		return err
	}
	a.rt, a.borrowed = rt.(*runtime), true //nolint:errcheck,forcetypeassert // newRuntime makes them
	if err := a.readConfig(); err != nil {
		return err
	}
	if err := a.fillIn(); err != nil {
		return err
	}
	if err := a.openKeys(); err != nil {
		return err
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	return events.(*caddyevents.App).On("stopping", stoppingHandler{a}) //nolint:errcheck,forcetypeassert // the ID says so
}

// readConfig reads the user's config.toml.
func (a *App) readConfig() error {
	if a.Config == "" {
		return nil
	}
	path, err := filepath.Abs(a.Config)
	if err != nil {
		return err
	}
	cfg, warnings, err := modeldir.ReadConfig(path)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.log.Warn(w.Message, "file", path, "line", w.Line)
	}
	a.user = cfg
	return nil
}

// fillIn puts in what was left out: from the user's config.toml, else the defaults.
func (a *App) fillIn() error {
	if u := a.user; u != nil {
		a.ConfigDir = first(a.ConfigDir, u.ConfigDir)
		a.MaxInstances = first(a.MaxInstances, u.MaxInstances)
		if a.MaxLoad == nil {
			a.MaxLoad = u.MaxLoad
		}
	} else {
		a.ConfigDir = first(a.ConfigDir, "models")
	}
	a.StateDir = first(a.StateDir, filepath.Join(caddy.AppDataDir(), "assistant"))
	for _, path := range []*string{&a.ConfigDir, &a.StateDir, &a.Keys, &a.ModelStore} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	set := activator.DefaultSettings()
	a.MaxInstances = first(a.MaxInstances, set.MaxInstances)
	a.MaxLoad = first(a.MaxLoad, ptr(defaultMaxLoad))
	a.IdleTimeout = first(a.IdleTimeout, ptr(caddy.Duration(set.IdleTimeout)))
	a.StartTimeout = first(a.StartTimeout, caddy.Duration(set.StartTimeout))
	a.MaxWait = first(a.MaxWait, caddy.Duration(set.MaxWait))
	a.Queue = first(a.Queue, set.Queue)
	a.QueueTotal = first(a.QueueTotal, max(set.QueueTotal, a.Queue))
	a.QueueBytes = first(a.QueueBytes, set.QueueBytes)
	a.QueueBytesTotal = first(a.QueueBytesTotal, max(set.QueueBytesTotal, a.QueueBytes))
	a.ContextDisk = first(a.ContextDisk, ptr(int64(defaultContextDisk)))
	a.MaxBody = first(a.MaxBody, openai.DefaultMaxBody)
	return nil
}

const (
	defaultMaxLoad     = 0.8
	defaultContextDisk = 4 << 30 // bytes: at 23 KB a token of a small model, 180,000 tokens
)

func ptr[T any](v T) *T { return &v }

// first returns the first of two that is not zero.
func first[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

// Validate says what cannot be.
func (a *App) Validate() error {
	for name, bad := range map[string]bool{
		"max_instances must be at least 1":    a.MaxInstances < 1,
		"max_load must not be negative":       *a.MaxLoad < 0,
		"idle_timeout must not be negative":   *a.IdleTimeout < 0,
		"start_timeout must be positive":      a.StartTimeout < 0,
		"max_wait must be positive":           a.MaxWait < 0,
		"queue must be at least 1":            a.Queue < 1,
		"queue_total must be at least 1":      a.QueueTotal < 1,
		"queue_client must not be negative":   a.QueueClient < 0,
		"queue_bytes must be at least 1":      a.QueueBytes < 1 || a.QueueBytesTotal < 1 || a.QueueBytesClient < 0,
		"context_disk must not be negative":   *a.ContextDisk < 0,
		"download_limit must not be negative": a.DownloadLimit < 0,
		"max_body must be at least 1 byte":    a.MaxBody < 1,
	} {
		if bad {
			return errors.New(name)
		}
	}
	for i, r := range a.RemoteServers {
		if u, err := url.Parse(r.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("remote_servers[%d].url %q: give an address such as https://host/v1", i, r.URL)
		}
		if r.Weight < 0 || r.MaxConcurrency < 0 {
			return fmt.Errorf("remote_servers[%d]: weight and max_concurrency must not be negative", i)
		}
	}
	if rest, ok := strings.CutPrefix(a.Identity, "{http."); a.Identity != "" && (!ok || strings.IndexByte(rest, '}') != len(rest)-1) {
		return fmt.Errorf("identity %q: give one placeholder, written out, such as {http.auth.user.id} or {http.request.header.X-User}", a.Identity)
	}
	return nil
}

// settings is what the activator is to keep to.
func (a *App) settings() activator.Settings {
	return activator.Settings{
		MaxInstances: a.MaxInstances,
		IdleTimeout:  time.Duration(*a.IdleTimeout),
		StartTimeout: time.Duration(a.StartTimeout),
		MaxWait:      time.Duration(a.MaxWait),
		Queue:        a.Queue,
		QueueTotal:   a.QueueTotal,
		QueueClient:  a.QueueClient,

		QueueBytes:       a.QueueBytes,
		QueueBytesTotal:  a.QueueBytesTotal,
		QueueBytesClient: a.QueueBytesClient,

		KeepLast: a.KeepLast,
		Predict:  a.Predict,
	}
}

// Start offers this configuration to the runtime, which obeys it at once, or when Caddy stops the earlier one: it may
// still be rejected if another app does not start.
func (a *App) Start() error {
	if err := a.guardListeners(); err != nil {
		return fmt.Errorf("assistant: %w", err)
	}
	if err := a.rt.use(a); err != nil {
		return fmt.Errorf("assistant: %w", err)
	}
	return nil
}

// Stop withdraws it: after a good reload the newer one is in force from now on.
func (a *App) Stop() error {
	a.rt.drop(a)
	return nil
}

// Cleanup gives back what Provision borrowed, and only that: it also runs after a Provision that failed.
func (a *App) Cleanup() error {
	if !a.borrowed {
		return nil
	}
	a.ending()
	a.rt.drop(a) // Start may have failed after use
	a.borrowed = false
	_, err := runtimes.Delete(runtimeKey) // the last one out runs (*runtime).Destruct
	return err
}

// stoppingHandler ends what would hold up the HTTP server, which waits for its requests to end: streams of events, and, when the process
// exits, every wait for an engine. On a reload those go on.
type stoppingHandler struct{ app *App }

// Handle implements caddyevents.Handler.
func (h stoppingHandler) Handle(context.Context, caddy.Event) error {
	h.app.ending()
	if caddy.Exiting() {
		h.app.rt.act.RefuseWaiting()
	}
	return nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
