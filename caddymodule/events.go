package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"assistant/activator"
	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/openai"
)

func init() { routes["/assistant/events"] = get((*Handler).serveEvents) }

// eventsKeepAlive is how often a stream of events has a comment, so that proxies do not take it for dead: they give up after a minute
// (nginx's proxy_read_timeout) or thirty seconds.
const eventsKeepAlive = 15 * time.Second

// serveEvents tells what starts, stops, waits and fails, from now on. The first event is how everything stands.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	h.follow(w, r, key, func(e activator.Event) []byte {
		return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", e.Kind, openai.Marshal(e))
	}, func(s hub.Status) []byte {
		return fmt.Appendf(nil, "event: download\ndata: %s\n\n", openai.Marshal(s))
	})
}

// follow sends what happens as server-sent events, each as encode has it (nil = it is left out), and of models only those that the key may
// use; and how downloads stand, as download has it, each at its changes. It returns when the client has left or the configuration ends: streams must not hold up a reload.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, key *keys.Key,
	encode func(activator.Event) []byte, download func(hub.Status) []byte,
) {
	header, to := w.Header(), http.NewResponseController(w)
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.app.serving, cancel)()
	defer context.AfterFunc(ctx, func() { _ = to.SetWriteDeadline(time.Now()) })() // a client that does not read must not hold us up either

	sub := h.rt.act.Subscribe()
	defer sub.Close()
	quiet := time.NewTicker(eventsKeepAlive)
	defer quiet.Stop()
	coming := downloads{rt: h.rt, key: key, told: map[string]hub.Status{}}
	news := coming.begin()
	for ctx.Err() == nil {
		var out []byte
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			out = []byte(": \n")
		case <-news:
			news = h.rt.hub.Load().News() // before looking: what changes meanwhile is looked at again
			for _, s := range coming.changed() {
				out = append(out, download(s)...)
			}
		case <-sub.News():
			for _, e := range sub.Take() {
				if e, ok := h.rt.shown(key, e); ok {
					out = append(out, encode(e)...)
				}
			}
		}
		if _, err := w.Write(out); err != nil || to.Flush() != nil {
			return
		}
	}
}

// downloads are those that a client has been told of.
type downloads struct {
	rt   *runtime
	key  *keys.Key
	told map[string]hub.Status // by id
}

// begin passes over what is completed already. It returns what is closed at the next change: at once if something goes on.
func (d *downloads) begin() <-chan struct{} {
	m := d.rt.hub.Load()
	if m == nil { // no configuration was ever in force
		return nil
	}
	news := m.News()
	for _, s := range m.List() {
		if s.Over() {
			d.told[s.ID] = s
			continue
		}
		now := make(chan struct{})
		close(now)
		news = now
	}
	return news
}

// changed are those that stand otherwise than was told.
func (d *downloads) changed() (list []hub.Status) {
	for _, s := range d.rt.hub.Load().List() {
		before, known := d.told[s.ID]
		if known && before.State == s.State && before.Done == s.Done && before.Started.Equal(s.Started) || !d.rt.mayHear(d.key, s) {
			continue
		}
		d.told[s.ID] = s
		list = append(list, s)
	}
	return list
}

// shown is an event as a key may see it, if it may.
func (rt *runtime) shown(key *keys.Key, e activator.Event) (activator.Event, bool) {
	if key == nil {
		return e, true
	}
	switch e.Kind {
	case activator.EventSnapshot:
		e.InUse = slices.DeleteFunc(e.InUse, func(m activator.Standing) bool { return !rt.mayByKey(key, m.Key, m.Model) })
		e.Models = 0
	case activator.EventCatalog:
		e.Models = 0 // how many there are that do not exist for it is not for it to know
	case activator.EventLost:
	default:
		return e, rt.mayByKey(key, e.Key, e.Model)
	}
	return e, true
}

// mayByKey reports whether an API key may use a model that is perhaps not in the catalog (any more).
func (rt *runtime) mayByKey(key *keys.Key, modelKey, name string) bool {
	if m := rt.catalog.Load().Model(modelKey); m != nil {
		return may(key, m)
	}
	return key.May(name)
}
