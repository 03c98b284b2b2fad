package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// openKeys opens the file of keys: the one that is named, which must be good, else that of the state directory, if it is there.
func (a *App) openKeys() error {
	if a.Keys == "" && (a.Insecure || !exists(a.ownKeys())) {
		return nil
	}
	store, err := keys.Open(first(a.Keys, a.ownKeys()), a.log, a.rt.uses)
	if err != nil {
		return err
	}
	a.keys.Store(store)
	return nil
}

// ownKeys is the file of keys where none is named.
func (a *App) ownKeys() string { return filepath.Join(a.StateDir, "keys.toml") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// guardListeners sees to it that nobody beyond this machine can use models without a key: where a listener can be reached from
// elsewhere and there are no keys, a first one is made, and printed once. It is the owner's, so it may manage.
func (a *App) guardListeners() error {
	listen := a.beyondLoopback()
	switch {
	case listen == "" || a.keys.Load() != nil:
		return nil
	case a.Insecure:
		a.log.Warn("insecure is on: whoever reaches the listener can use every model", "listen", listen)
		return nil
	}
	if err := os.MkdirAll(a.StateDir, 0o700); err != nil {
		return err
	}
	key, err := keys.Create(a.ownKeys(), keys.Entry{Name: "first", Admin: true})
	if err != nil {
		return err
	}
	if err := a.openKeys(); err != nil {
		return err
	}
	a.log.Warn("a first API key was made, as a listener can be reached from elsewhere: it was printed once", "listen", listen, "file", a.ownKeys())
	_, _ = fmt.Fprintf(os.Stderr, "\nThe API key for requests from other machines, which may manage as well, and is not shown again:\n\n  %s\n\nMore, for clients: caddy assistant key new NAME --file %s\n\n", key, a.ownKeys())
	return nil
}

// identify returns the key that a request holds; nil if it needs none. It answers the request and reports false if that
// is not accepted.
func (h *Handler) identify(w http.ResponseWriter, r *http.Request) (key *keys.Key, ok bool) {
	key, err := h.whose(r)
	if err != nil {
		w.Header().Set("Www-Authenticate", "Bearer")
		deny(w, r, err)
		return nil, false
	}
	return key, true
}

// whose returns the key that a request holds; nil if it needs none. Without a file of keys that is named, requests of this machine
// need none; one that is known counts all the same.
func (h *Handler) whose(r *http.Request) (*keys.Key, *openai.Error) {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	identity := h.app.identity(repl)
	key, err := h.app.holder(identity, apiKey(r.Header))
	if err != nil {
		if identity == "" && h.app.Keys == "" && (h.app.Insecure || h.own(r)) {
			return nil, nil // SDKs send some key whether they have one or not
		}
		if foreign := h.foreign(r); foreign != "" {
			err = fmt.Errorf("%w, which pages of %s need as they are not in cors_origins", err, foreign)
		}
		return nil, openai.InvalidKey(err.Error())
	}
	if extra := accessLogFields(r); extra != nil {
		extra.Set(zap.String("key", key.Name))
		if identity != "" {
			extra.Set(zap.String("identity", identity))
		}
	}
	if repl != nil {
		repl.Set("http.assistant.key", key.Name)
		repl.Set("http.assistant.owner", key.Owner)
		repl.Set("http.assistant.team", key.Team)
	}
	return key, nil
}

// own reports whether a request comes from this machine, and from no page of somebody else's.
func (h *Handler) own(r *http.Request) bool { return fromHere(r) && h.foreign(r) == "" }

// identity is who somebody else has proven the request to come from; "" if nobody has.
func (a *App) identity(repl *caddy.Replacer) string {
	if a.Identity == "" || repl == nil {
		return ""
	}
	return repl.ReplaceAll(a.Identity, "")
}

// holder returns the key of an identity, else that which was sent.
func (a *App) holder(identity, sent string) (*keys.Key, error) {
	if identity == "" {
		return a.verify(sent)
	}
	key, err := a.lookUp(func(s *keys.Store) (*keys.Key, error) { return s.Holder(identity) }, keys.ErrNobody)
	if errors.Is(err, keys.ErrNobody) && sent != "" {
		return a.verify(sent)
	}
	return key, err
}

// verify looks up a key that was sent.
func (a *App) verify(sent string) (*keys.Key, error) {
	if sent == "" {
		return nil, keys.ErrNone
	}
	return a.lookUp(func(s *keys.Store) (*keys.Key, error) { return s.Verify(sent) }, keys.ErrUnknown)
}

// lookUp asks the file of keys, one in the state directory that was made since the start included. Without any, the answer is none.
func (a *App) lookUp(ask func(*keys.Store) (*keys.Key, error), none error) (*keys.Key, error) {
	if a.keys.Load() == nil {
		if err := a.openKeys(); err != nil {
			a.log.Error("the file of keys is no good", "error", err)
		}
	}
	if store := a.keys.Load(); store != nil {
		return ask(store)
	}
	return nil, none
}

// begin takes the request's share of its key's bounds, and tells the client how much is left, as OpenAI does. It answers the
// request and reports false if it has to come back later. end is to be called when the request has ended.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request, key *keys.Key) (end func(), ok bool) {
	if key == nil {
		return func() {}, true
	}
	if limit := key.TokensPerMonth; limit > 0 && h.rt.usage.Month(key.Name) >= limit {
		deny(w, r, openai.KeyQuota(fmt.Sprintf("the API key %q has used up its %d tokens of this month (UTC)", key.Name, limit)))
		return nil, false
	}
	now := time.Now()
	refusal := key.Begin(now)
	requests, tokens := key.Left(now)
	tellLeft(w.Header(), "Requests", requests)
	tellLeft(w.Header(), "Tokens", tokens)
	if refusal != nil {
		deny(w, r, openai.KeyLimit(fmt.Sprintf("the API key %q has reached its limit of %s", key.Name, refusal.Why), refusal.Retry))
		return nil, false
	}
	return key.End, true
}

// tellLeft sets the headers of a bound a minute.
func tellLeft(h http.Header, what string, left keys.Left) {
	if left.Limit == 0 {
		return
	}
	h.Set("X-Ratelimit-Limit-"+what, strconv.Itoa(left.Limit))
	h.Set("X-Ratelimit-Remaining-"+what, strconv.Itoa(left.Remaining))
	h.Set("X-Ratelimit-Reset-"+what, left.Reset.Round(time.Millisecond).String())
}

// may reports whether a key may use a model: by its name or by one of its aliases. Others do not exist for it.
func may(key *keys.Key, m *modeldir.Model) bool {
	return key == nil || key.May(append([]string{m.Name}, m.Aliases...)...)
}

// named finds the model that has a name, if the key may use it: by that name, which may be one that an alias stands for, or by another.
func named(c *modeldir.Catalog, key *keys.Key, name string, kind modeldir.Kind) (*modeldir.Model, bool) {
	m, ok := c.Resolve(name, kind)
	return m, ok && (may(key, m) || key.May(name))
}
