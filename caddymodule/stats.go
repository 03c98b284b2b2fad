package caddymodule

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"assistant/internal/hub"
	"assistant/internal/remote"
	"assistant/lifecycle/contexts"
)

func init() { metrics.ExposeMetadata(true) }

// stats counts what passes through the handlers. Like the engines it belongs to the runtime: counters that began anew with
// each reload would be of no use.
type stats struct {
	set    *metrics.Set
	models sync.Map // by model name: *modelStats
}

// modelStats are the counters of a model, looked up once.
type modelStats struct {
	requestBytes, responseBytes  *metrics.Counter
	promptTokens, completeTokens *metrics.Counter
	set                          *metrics.Set
	name                         string
	header                       []string // the name, as a header has it
	codes                        sync.Map // by status: *metrics.Counter
	operations                   atomic.Pointer[map[string]*operationStats]
}

func newStats() *stats { return &stats{set: metrics.NewSet()} }

// of returns the counters of a model of the catalog: names that clients make up have none.
func (s *stats) of(model string) *modelStats {
	if m, ok := s.models.Load(model); ok {
		return m.(*modelStats) //nolint:errcheck,forcetypeassert // nothing else is in there
	}
	counter := func(name string) *metrics.Counter { return s.set.GetOrCreateCounter(name) }
	m := &modelStats{
		set: s.set, name: model, header: []string{model},
		requestBytes:   counter(fmt.Sprintf(`assistant_request_bytes_total{model=%q}`, model)),
		responseBytes:  counter(fmt.Sprintf(`assistant_response_bytes_total{model=%q}`, model)),
		promptTokens:   counter(fmt.Sprintf(`assistant_tokens_total{model=%q,type="prompt"}`, model)),
		completeTokens: counter(fmt.Sprintf(`assistant_tokens_total{model=%q,type="completion"}`, model)),
	}
	m.operations.Store(&map[string]*operationStats{})
	kept, _ := s.models.LoadOrStore(model, m)
	return kept.(*modelStats) //nolint:errcheck,forcetypeassert // nothing else is in there
}

// ended counts a request by its status.
func (m *modelStats) ended(status int) {
	c, ok := m.codes.Load(status)
	if !ok {
		c, _ = m.codes.LoadOrStore(status, m.set.GetOrCreateCounter(fmt.Sprintf(`assistant_requests_total{model=%q,code="%d"}`, m.name, status)))
	}
	c.(*metrics.Counter).Inc() //nolint:errcheck,forcetypeassert // nothing else is in there
}

// remote counts what became of a request that a remote server was given.
func (s *stats) remote(server string, o remote.Outcome) {
	s.set.GetOrCreateCounter(fmt.Sprintf(`assistant_remote_requests_total{remote=%q,outcome=%q}`, server, o)).Inc()
}

// writeRemotes tells how remote servers stand.
func writeRemotes(w io.Writer, servers []remote.Status) {
	for _, s := range servers {
		open := 0
		if s.State != "closed" {
			open = 1
		}
		fmt.Fprintf(w, "assistant_remote_outstanding{remote=%q} %d\nassistant_remote_open{remote=%q} %d\n", s.Name, s.Outstanding, s.Name, open)
		fmt.Fprintf(w, "assistant_remote_first_byte_seconds{remote=%q} %g\n", s.Name, s.FirstByteMS/1e3)
	}
}

// writeDownloads tells how many downloads stand how, and how fast they come.
func writeDownloads(w io.Writer, list []hub.Status) {
	count, speed := map[hub.State]int{}, 0.0
	for _, s := range list {
		count[s.State]++
		speed += s.BytesPerSec
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "assistant_downloads{state=%q} %d\n", state, count[state])
	}
	fmt.Fprintf(w, "assistant_download_bytes_per_second %g\n", speed)
}

// writeMetrics writes everything we measure in Prometheus' text format.
func (rt *runtime) writeMetrics(w io.Writer) {
	rt.act.WriteMetrics(w)
	rt.stats.set.WritePrometheus(w)
	rt.usage.WriteMetrics(w)
	if m := rt.hub.Load(); m != nil {
		writeDownloads(w, m.List())
	}
	if set := rt.remotes.Load(); set != nil {
		writeRemotes(w, set.Statuses())
	}
	if kept, ok := rt.runner.contexts(); ok {
		writeContexts(w, kept)
	}
}

// writeContexts tells of the contexts that are kept on disk.
func writeContexts(w io.Writer, kept contexts.Stats) {
	fmt.Fprintf(w, "assistant_contexts %d\nassistant_context_bytes %d\n", kept.Files, kept.Bytes)
	fmt.Fprintf(w, "assistant_contexts_saved_total %d\n", kept.Saved)
	fmt.Fprintf(w, "assistant_contexts_restored_total{use=\"hit\"} %d\n", kept.Hits)
	fmt.Fprintf(w, "assistant_contexts_restored_total{use=\"miss\"} %d\n", kept.Misses)
	for _, why := range slices.Sorted(maps.Keys(kept.Dropped)) {
		fmt.Fprintf(w, "assistant_contexts_dropped_total{reason=%q} %d\n", why, kept.Dropped[why])
	}
}

func (rt *runtime) serveMetrics(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	rt.writeMetrics(w)
}
