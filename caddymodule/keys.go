package caddymodule

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// identify returns the key that a request carries; nil if none is asked for. It answers the request and reports false if that
// is not accepted.
func (h *Handler) identify(w http.ResponseWriter, r *http.Request) (key *keys.Key, ok bool) {
	if h.app.keys == nil {
		return nil, true
	}
	key, err := h.app.keys.Verify(apiKey(r.Header))
	if err != nil {
		w.Header().Set("Www-Authenticate", "Bearer")
		openai.InvalidKey(err.Error()).WriteTo(w)
		return nil, false
	}
	if extra := accessLogFields(r); extra != nil {
		extra.Set(zap.String("key", key.Name))
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.assistant.key", key.Name)
		repl.Set("http.assistant.owner", key.Owner)
		repl.Set("http.assistant.team", key.Team)
	}
	return key, true
}

// begin takes the request's share of its key's bounds, and tells the client how much is left, as OpenAI does. It answers the
// request and reports false if it has to come back later. end is to be called when the request has ended.
func begin(w http.ResponseWriter, key *keys.Key) (end func(), ok bool) {
	if key == nil {
		return func() {}, true
	}
	now := time.Now()
	refusal := key.Begin(now)
	if remaining, reset, bounded := key.Remaining(now); bounded {
		h := w.Header()
		h.Set("X-Ratelimit-Limit-Requests", strconv.Itoa(key.RequestsPerMinute))
		h.Set("X-Ratelimit-Remaining-Requests", strconv.Itoa(remaining))
		h.Set("X-Ratelimit-Reset-Requests", reset.Round(time.Millisecond).String())
	}
	if refusal != nil {
		openai.KeyLimit(fmt.Sprintf("the API key %q has reached its limit of %s", key.Name, refusal.Why), refusal.Retry).WriteTo(w)
		return nil, false
	}
	return key.End, true
}

// may reports whether a key may use a model: by its name or by one of its aliases. Others do not exist for it.
func may(key *keys.Key, m *modeldir.Model) bool {
	return key == nil || key.May(append([]string{m.Name}, m.Aliases...)...)
}
