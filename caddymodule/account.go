package caddymodule

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"assistant/activator"
	"assistant/internal/openai"
)

// account is what becomes known of an exchange on its way: for the access log, placeholders, metrics and spans.
type account struct {
	began    time.Time // the request was there
	token    time.Time // the engine's first byte of an answer was there; zero = none was
	sent     time.Time // the first byte of the answer's body went to the client; zero = none did
	streamed bool      // the engine was asked for a stream, so that its first byte is its first token

	instance string // "key#generation"; "" = the request got no lease
	cold     bool
	waited   time.Duration // for the lease

	prompt, completion int // tokens, if told
	told               bool
	failed             string // the code of what the client was told instead of an answer, or behind its beginning; "" = nothing
}

// codeClientGone is what an exchange failed with whose client left.
const codeClientGone = "client_gone"

// codeOf is the code of an error in logs and metrics: one of few.
func codeOf(e *openai.Error) string { return first(e.Code, e.Type) }

// open begins the account of a request that came just now.
func (x *exchange) open() {
	x.began = time.Now()
	if repl, ok := x.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(x.placeholder)
	}
}

// leased notes what became of the wait.
func (x *exchange) leased(lease *activator.Lease) {
	x.instance, x.cold, x.waited = lease.Instance(), lease.Cold, lease.Waited
	x.token = time.Time{} // of an instance before, which was lost
}

// failure is what the exchange failed with: an error of ours, or the status that the engine answered; "" if it did not.
func (x *exchange) failure() string {
	if x.failed == "" && x.status >= http.StatusBadRequest {
		return strconv.Itoa(x.status)
	}
	return x.failed
}

// called is the model's name, else what the client called it, as far as it can be a name.
func (x *exchange) called() string {
	const longest = 256 // bytes
	switch {
	case x.model != nil:
		return x.model.Name
	case len(x.req.Model) > longest:
		return ""
	}
	return x.req.Model
}

// placeholder is the value of a placeholder, as far as it is known by now.
func (x *exchange) placeholder(name string) (any, bool) {
	switch name {
	case "http.assistant.model":
		return x.called(), x.called() != ""
	case "http.assistant.instance":
		return x.instance, x.instance != ""
	case "http.assistant.cold_start":
		return x.cold, x.instance != ""
	case "http.assistant.queue_ms":
		return millis(x.waited), x.instance != ""
	case "http.assistant.ttft_ms":
		return millis(x.sent.Sub(x.began)), !x.sent.IsZero()
	case "http.assistant.prompt_tokens":
		return x.prompt, x.told
	case "http.assistant.completion_tokens":
		return x.completion, x.told
	case "http.assistant.request_id":
		return x.w.Header().Get(requestIDHeader), true
	case "http.assistant.error":
		return x.failure(), x.failure() != ""
	}
	return nil, false
}

// log sets the fields of the access log. Caddy writes its line when the handler has returned.
func (x *exchange) log() {
	extra := accessLogFields(x.r)
	if extra == nil {
		return
	}
	if model := x.called(); model != "" {
		extra.Set(zap.String("model", model))
	}
	if x.instance != "" {
		extra.Set(zap.String("instance", x.instance))
		extra.Set(zap.Bool("cold_start", x.cold))
		extra.Set(zap.Float64("queue_ms", millis(x.waited)))
	}
	if !x.sent.IsZero() {
		extra.Set(zap.Float64("ttft_ms", millis(x.sent.Sub(x.began))))
	}
	if x.told {
		extra.Set(zap.Int("prompt_tokens", x.prompt))
		extra.Set(zap.Int("completion_tokens", x.completion))
	}
	if code := x.failure(); code != "" {
		extra.Set(zap.String("error", code))
	}
}

// deny answers a request that may not be asked, or not now. The access log tells why.
func deny(w http.ResponseWriter, r *http.Request, e *openai.Error) {
	if extra := accessLogFields(r); extra != nil {
		extra.Set(zap.String("error", codeOf(e)))
	}
	e.WriteTo(w)
}

// accessLogFields is where fields of the access log go; nil if none is written. Setting them for nobody was 8 % of all
// allocations of a warm request.
func accessLogFields(r *http.Request) *caddyhttp.ExtraLogFields {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil {
		return nil
	}
	extra, _ := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields) // nil if it is not there
	return extra
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
