package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"assistant/activator"
	"assistant/internal/hub"
	"assistant/internal/hub/source"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/internal/remote"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// serveModels lists the models. It starts nothing and asks no engine.
func (h *Handler) serveModels(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	own := r.Header.Get(remote.HopsHeader) != "" // another Assistant asks: what is elsewhere it must not look for here
	if key == nil && !own {
		writeJSON(w, http.StatusOK, h.rt.list())
		return
	}
	view := h.rt.view()
	if own {
		view.remote = nil
	}
	cards := slices.DeleteFunc(view.cards(), func(c openai.ModelCard) bool { return key != nil && !key.May(append([]string{c.ID}, c.Aliases...)...) })
	writeJSON(w, http.StatusOK, openai.ModelList{Data: cards}.JSON())
}

// serveModelCard tells of one model. Its id may hold slashes, and may be an alias.
func (h *Handler) serveModelCard(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	id := strings.TrimPrefix(r.URL.EscapedPath(), "/v1/models/")
	if plain, err := url.PathUnescape(id); err == nil {
		id = plain
	}
	view := h.rt.view()
	m, ok := named(view.catalog, key, id, modeldir.Chat)
	if !ok {
		openai.ModelNotFound(id).WriteTo(w)
		return
	}
	writeJSON(w, http.StatusOK, view.card(m).JSON())
}

// snapshot is what the list depends on, at one moment.
type snapshot struct {
	catalog  *modeldir.Catalog
	missing  *map[string]error
	known    *map[string]*facts
	statuses map[string]activator.ModelStatus // of models in use only
	remote   *[]remote.Model                  // nil = there are no remote servers, or who asks is one of them
	coming   map[string]hub.Status            // downloads that are not completed, by their source
}

func (rt *runtime) snapshot() snapshot {
	return snapshot{rt.catalog.Load(), rt.missing.Load(), rt.known.Load(), rt.act.Statuses(), rt.remoteModels(), rt.coming()}
}

// same reports whether both make the same list.
func (s snapshot) same(o snapshot) bool {
	return s.catalog == o.catalog && s.missing == o.missing && s.known == o.known && s.remote == o.remote &&
		maps.EqualFunc(s.statuses, o.statuses, func(a, b activator.ModelStatus) bool {
			return a.State == b.State && fmt.Sprint(a.Err) == fmt.Sprint(b.Err)
		}) &&
		maps.EqualFunc(s.coming, o.coming, func(a, b hub.Status) bool { return a.State == b.State && a.Done == b.Done && a.Error == b.Error })
}

// listing is the list as clients get it, kept until something in it changes: some ask for it every few seconds, and
// encoding ten thousand models takes 10 ms.
type listing struct {
	of   snapshot
	body []byte
}

func (rt *runtime) list() []byte {
	now := rt.snapshot()
	if kept := rt.listing.Load(); kept != nil && kept.of.same(now) {
		return kept.body
	}
	body := openai.ModelList{Data: now.view().cards()}.JSON()
	rt.listing.Store(&listing{now, body})
	return body
}

// view is a snapshot made ready to make cards of.
type view struct {
	snapshot
	faults map[string]error // by name
	roles  map[string][]*modeldir.Model
}

func (rt *runtime) view() view { return rt.snapshot().view() }

func (s snapshot) view() view {
	v := view{snapshot: s, faults: map[string]error{}, roles: map[string][]*modeldir.Model{}}
	for _, f := range s.catalog.Faults() {
		v.faults[f.Name] = f.Err
	}
	for _, m := range s.catalog.Models() {
		if m.Key != m.Name {
			v.roles[m.Name] = append(v.roles[m.Name], m)
		}
	}
	return v
}

// served returns the models that are listed: further roles are not, variants are.
func (v view) served() []*modeldir.Model {
	var all []*modeldir.Model
	for _, m := range v.catalog.Models() {
		if m.Key == m.Name {
			all = append(append(all, m), m.Variants...)
		}
	}
	return all
}

// cards returns a card of each model, and of each file that never was a good one, with its error.
func (v view) cards() []openai.ModelCard {
	cards := make([]openai.ModelCard, 0, len(v.catalog.Models()))
	listed := map[string]bool{}
	for _, m := range v.served() {
		cards = append(cards, v.card(m))
		listed[m.Name] = true
	}
	for _, f := range v.catalog.Faults() {
		if !listed[f.Name] {
			listed[f.Name] = true
			cards = append(cards, openai.ModelCard{
				ID: f.Name, OwnedBy: owner,
				Status: &openai.ModelStatus{Value: openai.StatusFailed, Failed: true, Error: f.Err.Error()},
			})
		}
	}
	return append(cards, v.remoteCards()...)
}

// remoteModels are the models of remote servers, the same slice as long as these are the same.
func (rt *runtime) remoteModels() *[]remote.Model {
	if set := rt.remotes.Load(); set != nil {
		return set.Models()
	}
	return nil
}

const owner = "assistant"

func (v view) card(m *modeldir.Model) openai.ModelCard {
	tags := []string{string(m.Kind)}
	for _, role := range v.roles[m.Name] {
		tags = append(tags, string(role.Kind))
	}
	facts := v.facts(m)
	return openai.ModelCard{
		ID: m.Name, OwnedBy: owner, Name: m.Name, Aliases: m.Aliases, Tags: tags,
		ContextLength: first(contextOf(m), facts.contextLength), Architecture: modalities(m.Kind, facts), Status: v.status(m),
	}
}

func modalities(kind modeldir.Kind, known facts) *openai.Architecture {
	in, out := "text", "text"
	switch kind {
	case modeldir.Chat:
	case modeldir.Embedding:
		out = "embeddings"
	case modeldir.Rerank:
		out = "rerank"
	case modeldir.Speech:
		out = "audio"
	case modeldir.Transcription:
		in = "audio"
	case modeldir.Image:
		out = "image"
	case modeldir.Moderation:
		out = "moderation"
	}
	takes := []string{in}
	if known.vision {
		takes = append(takes, "image")
	}
	if known.audio {
		takes = append(takes, "audio")
	}
	return &openai.Architecture{InputModalities: takes, OutputModalities: []string{out}}
}

// status is the model's state in the words that Open WebUI reads.
func (v view) status(m *modeldir.Model) *openai.ModelStatus {
	s := &openai.ModelStatus{Value: openai.StatusUnloaded}
	now, inUse := v.statuses[m.Key]
	switch {
	case inUse && now.State == "starting":
		s.Value = openai.StatusLoading
	case inUse && (now.State == "ready" || now.State == "draining"):
		s.Value = openai.StatusLoaded
	case inUse && now.Err != nil:
		s.Value, s.Failed, s.Error = openai.StatusFailed, true, now.Err.Error()
	case !inUse && (*v.missing)[m.Key] != nil: // of a model that was used the activator knows better
		s.Value, s.Failed, s.Error = openai.StatusFailed, true, (*v.missing)[m.Key].Error()
	}
	if toBeBrought(m) {
		v.addDownload(s, sourceOf(m))
	}
	if err := v.faults[m.Name]; err != nil { // the last good version goes on
		s.Error = err.Error()
	}
	return s
}

// addDownload tells how far the model's download is.
func (v view) addDownload(s *openai.ModelStatus, src string) {
	d, known := v.coming[src]
	switch {
	case !known:
	case d.State == hub.Failed:
		s.Value, s.Failed, s.Error = openai.StatusFailed, true, d.Error
	case !d.Over():
		s.Value, s.Progress = openai.StatusDownloading, progressOf(d)
	}
}

// progressOf is how far each file of a download is.
func progressOf(d hub.Status) map[string]openai.Progress {
	files := make(map[string]openai.Progress, len(d.Files))
	for _, f := range d.Files {
		files[f.Name] = openai.Progress{Done: f.Done, Total: f.Total}
	}
	return files
}

// loaded reports whether an instance of the model is ready.
func (rt *runtime) loaded(m *modeldir.Model) bool {
	view := rt.view()
	return view.status(m).Value == openai.StatusLoaded
}

// check tells what a model would not find when started. What is to be brought first is not missing, if it can be known where from.
func check(m *modeldir.Model) error {
	if toBeBrought(m) {
		_, err := source.Parse(sourceOf(m))
		return err
	}
	return engine.Check(m)
}

// missingInterval is how often what is missing is looked for again, in case it was put there.
const missingInterval = 5 * time.Second

// manyModels is how many models make reading them and looking for what they miss leave so much garbage behind that it is
// worth giving back to the system at once: measured, 10,000 files leave more than what the catalog keeps.
const manyModels = 1000

// lookForMissing notes what models would not find when started, so that the list shows it without looking, and goes on until
// nothing is missing or another catalog is in force. It runs beside the catalog's publication: thousands of files may be asked for.
func (rt *runtime) lookForMissing(c *modeldir.Catalog) {
	again := time.NewTicker(missingInterval)
	defer again.Stop()
	models := c.Models()
	for tidy := len(models) >= manyModels; ; {
		missing := map[string]error{}
		var still []*modeldir.Model
		for _, m := range models {
			if err := check(m); err != nil {
				missing[m.Key] = err
				still = append(still, m)
			}
		}
		known := maps.Clone(*rt.known.Load())
		news := rt.learn(models, known)
		if rt.catalog.Load() != c {
			return
		}
		rt.missing.Store(&missing)
		if news {
			rt.known.Store(&known)
		}
		if tidy {
			debug.FreeOSMemory()
			tidy = false
		}
		if len(still) == 0 {
			return
		}
		models = still
		select {
		case <-again.C:
		case <-rt.done:
			return
		}
	}
}
