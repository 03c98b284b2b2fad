package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"

	"assistant/internal/hub"
	"assistant/internal/hub/source"
	"assistant/internal/openai"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// storeDir is where models that were brought here lie, in state_dir.
const storeDir = "store"

// openHub makes what brings models. Like the state directory it stays as the first configuration has it.
func (rt *runtime) openHub(a *App) {
	var limit *rate.Limiter
	if a.DownloadLimit > 0 {
		limit = rate.NewLimiter(rate.Limit(a.DownloadLimit), int(max(a.DownloadLimit, hubBurst)))
	}
	rt.hub.Store(hub.Open(hub.Settings{
		Dir: cmp.Or(a.ModelStore, filepath.Join(a.StateDir, storeDir)), Resolver: rt.resolver, Limit: limit, Log: rt.log,
		OnInstalled: rt.installed, OnRemoved: rt.republish,
	}))
}

// hubBurst is the most that downloads read at once, in bytes.
const hubBurst = 1 << 20

// resolver finds out what sources stand for, on this machine as it is now and with the environment's settings.
func (rt *runtime) resolver() *source.Resolver {
	r := &source.Resolver{HuggingFace: os.Getenv("HF_ENDPOINT"), Token: os.Getenv("HF_TOKEN")}
	here, err := machine.Look(context.Background(), machine.Options{Log: rt.log})
	if err != nil {
		rt.log.Warn("how much memory there is for models is not known, where a source leaves the quantisation open", "error", err)
		return r
	}
	r.Memory = here.Host.Total
	for _, d := range here.Devices {
		if !d.Unified {
			r.Memory += d.Total
		}
	}
	return r
}

// sourceOf is where a model is published, in full; "" = nowhere that is known. A file's path starts at the model file's directory.
func sourceOf(m *modeldir.Model) string {
	if path, ok := strings.CutPrefix(m.ModelSource, "file:"); ok && !filepath.IsAbs(path) {
		return "file:" + filepath.Join(filepath.Dir(m.File), path)
	}
	return inFull(m.ModelSource)
}

// inFull is a source as downloads have it: those that name the same are then equal. What is no source stays as it is.
func inFull(src string) string {
	if src == "" {
		return ""
	}
	ref, err := source.Parse(src)
	if err != nil {
		return src
	}
	return ref.String()
}

// publishedAt reports whether a model is published at one of these sources.
func publishedAt(m *modeldir.Model, sources ...string) bool {
	src := sourceOf(m)
	return src != "" && slices.Contains(sources, src)
}

// toBeBrought reports whether the model's files have to be brought here before it can be started.
func toBeBrought(m *modeldir.Model) bool { return m.ModelSource != "" && m.ModelPath == "" }

// located is a catalog whose models have the paths of what was brought here for them. Those that were not brought yet can't be started, so
// they are not kept running either.
func (rt *runtime) located(c *modeldir.Catalog) *modeldir.Catalog {
	return c.Replace(func(m *modeldir.Model) *modeldir.Model {
		if !toBeBrought(m) {
			return m
		}
		found, here := rt.hub.Load().Installed(sourceOf(m))
		at := *m
		if here {
			at = locate(at, found)
		} else {
			at.Preload, at.MinInstances = false, 0
		}
		return &at
	})
}

// republish puts the catalog in force anew: models have come or gone.
func (rt *runtime) republish() {
	rt.publishing.Lock()
	defer rt.publishing.Unlock()
	if rt.declared != nil {
		rt.enforce(rt.declared)
	}
}

// bringEarly brings the models that are to run without being asked for.
func (rt *runtime) bringEarly(c *modeldir.Catalog) {
	for _, m := range c.Models() {
		if !toBeBrought(m) || !m.Preload && m.MinInstances == 0 {
			continue
		}
		if _, here := rt.hub.Load().Installed(sourceOf(m)); here {
			continue
		}
		if _, err := rt.hub.Load().Ensure(sourceOf(m)); err != nil {
			rt.log.Warn("could not begin to bring a model", "model", m.Name, "source", m.ModelSource, "error", err)
		}
	}
}

// bring brings the model's files here, and waits for that as long as ctx lasts. Errors are *openai.Error, or ctx's.
func (rt *runtime) bring(ctx context.Context, m *modeldir.Model) error {
	s, err := rt.hub.Load().Ensure(sourceOf(m))
	if err != nil {
		return openai.DownloadFailed(m.Name, err.Error(), 0)
	}
	if !s.Over() {
		last, err := rt.hub.Load().Wait(ctx, s.ID)
		if err != nil && !errors.Is(err, errDownloadWait) {
			return err
		}
		s = last
	}
	switch s.State {
	case hub.Completed:
		return nil
	case hub.Failed:
		return openai.DownloadFailed(m.Name, s.Error, rt.hub.Load().RetryAfter(s.ID))
	case hub.Paused:
		return openai.Downloading(m.Name, "the download is paused until somebody resumes it", lastRetry)
	case hub.Cancelled:
		return openai.DownloadFailed(m.Name, "the download was cancelled", time.Second)
	case hub.Resolving, hub.Downloading, hub.Verifying:
	}
	return openai.Downloading(m.Name, howFar(s), retryAfter(s))
}

// removeModel removes a model that was brought here: its file, and what no other model needs of the store.
func (rt *runtime) removeModel(m *modeldir.Model) error {
	if m.ModelSource == "" {
		return fmt.Errorf("the model %q was not downloaded: remove its file %s to have it go", m.Name, m.File)
	}
	if m.Entry {
		return fmt.Errorf("the model %q is of [[llama_servers]] in %s: remove it there", m.Name, m.File)
	}
	rt.editing.Lock()
	defer rt.editing.Unlock()
	src := sourceOf(m)
	if err := os.Remove(m.File); err != nil { //nolint:gosec // a path of the catalog, not of the request
		return err
	}
	rt.reread()
	if _, err := rt.collect(src); err != nil { // the model is gone all the same
		rt.log.Warn("a removed model's files stay until caddy assistant prune", "model", m.Name, "error", err)
	}
	return nil
}

// collect removes from the store what no model needs. Those just dropped need not have been there for long.
func (rt *runtime) collect(dropped ...string) (hub.Collected, error) {
	c := rt.catalog.Load()
	if faults := c.Faults(); len(faults) > 0 {
		return hub.Collected{}, fmt.Errorf("%s is broken, so what it needs is not known: mend or remove it first", faults[0].File)
	}
	used := hub.Used{Dropped: dropped}
	for _, m := range c.Models() {
		used.Paths = append(used.Paths, m.ModelPath, m.EmbeddingModelPath, projectorOf(m))
		if m.ModelSource != "" {
			used.Sources = append(used.Sources, sourceOf(m))
		}
	}
	return rt.hub.Load().Collect(used, time.Now())
}

// load starts an instance of a model, whose files are brought first if they have to be.
func (rt *runtime) load(ctx context.Context, m *modeldir.Model) error {
	if toBeBrought(m) {
		if err := rt.bring(ctx, m); err != nil {
			return err
		}
	}
	return rt.act.Load(ctx, m.Key)
}

// The bounds of what clients are told of when to come back for a model that is being downloaded.
const (
	firstRetry = 10 * time.Second // while nothing is known of how fast it comes
	lastRetry  = 5 * time.Minute  // clients give up on longer ones
)

func retryAfter(s hub.Status) time.Duration {
	return min(cmp.Or(s.Remaining(), firstRetry), lastRetry)
}

// coming are the downloads that are not completed, by their source.
func (rt *runtime) coming() map[string]hub.Status {
	m := rt.hub.Load()
	if m == nil {
		return nil
	}
	var coming map[string]hub.Status
	for _, s := range m.List() {
		if s.State == hub.Completed {
			continue
		}
		if coming == nil {
			coming = map[string]hub.Status{}
		}
		coming[s.Source] = s
	}
	return coming
}

// howFar tells how far a download is.
func howFar(s hub.Status) string {
	if s.State == hub.Resolving || s.Total <= 0 {
		return "finding out what " + s.Source + " is"
	}
	text := fmt.Sprintf("%d %% of %s", s.Done*100/s.Total, humanize.Bytes(uint64(s.Total)))
	if left := s.Remaining(); left > 0 {
		text += fmt.Sprintf(", about %v left", left.Round(time.Second))
	}
	return text
}

// locate is the model with the paths of what was brought.
func locate(m modeldir.Model, found hub.Model) modeldir.Model {
	m.ModelPath = found.Path()
	if projector := found.Projector(); projector != "" && projectorOf(&m) == "" {
		m.Args = append(slices.Clone(m.Args), projectorFlag(&m), projector)
	}
	variants := make([]*modeldir.Model, len(m.Variants))
	for i, v := range m.Variants {
		at := *v
		at.ModelPath, at.Args = m.ModelPath, m.Args
		variants[i] = &at
	}
	if len(variants) > 0 {
		m.Variants = variants
	}
	return m
}

// projectorFlag is how the model's engine is told of its projector.
func projectorFlag(m *modeldir.Model) string {
	if engine.For(m).Name == modeldir.EngineWasmEdge {
		return "--llava-mmproj"
	}
	return "--mmproj"
}
