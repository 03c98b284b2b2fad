package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"assistant/internal/glob"
	"assistant/internal/openai"
)

// originForm is what a page's origin looks like, with * and ? for parts of it.
var originForm = regexp.MustCompile(`\A(\*|[a-z][a-z0-9+.-]*://[^/@#\s]+)\z`)

// readOrigins makes expressions of what cors_origins names.
func (h *Handler) readOrigins() error {
	h.origins = nil
	for _, origin := range h.CORSOrigins {
		low := strings.ToLower(origin)
		if !originForm.MatchString(low) {
			return fmt.Errorf("cors_origins %q: give origins such as https://chat.example.com or https://*.example.com, without a path, or * for all", origin)
		}
		h.origins = append(h.origins, glob.Compile(low))
	}
	return nil
}

// allows reports whether pages of an origin may read answers: those of this machine, and those that are named.
func (h *Handler) allows(origin string) bool {
	origin = strings.ToLower(origin)
	if u, err := url.Parse(origin); err == nil && (u.Scheme == "http" || u.Scheme == "https") && local(u.Hostname()) {
		return true
	}
	return slices.ContainsFunc(h.origins, func(o *regexp.Regexp) bool { return o.MatchString(origin) })
}

// foreign returns the origin of a page that may not read our answers, and is not ours, if one sends the request; "" otherwise. Browsers
// send simple requests without asking first.
func (h *Handler) foreign(r *http.Request) string {
	origin := r.Header.Get("Origin")
	if origin == "" || h.allows(origin) {
		return ""
	}
	if u, err := url.Parse(origin); err == nil && strings.EqualFold(u.Host, r.Host) {
		return ""
	}
	return origin
}

// exposed are the headers of ours that pages may read.
const exposed = "X-Request-Id, Request-Id, Retry-After, Retry-After-Ms, X-Should-Retry, " +
	"X-Ratelimit-Limit-Requests, X-Ratelimit-Remaining-Requests, X-Ratelimit-Reset-Requests, " +
	"X-Ratelimit-Limit-Tokens, X-Ratelimit-Remaining-Tokens, X-Ratelimit-Reset-Tokens, " +
	"Server-Timing, " + modelHeader + ", " + fallbackHeader + ", " + ignoredHeader + ", " + prunedHeader

// preflightAge is for how long browsers may remember what they were told, in seconds: a day, though all take less.
const preflightAge = "86400"

// cors tells a page's browser whether the page may read the answer. It answers the question that browsers ask before most requests, and
// then reports true: that needs no key, and starts nothing. methods is what the path may be asked by.
func (h *Handler) cors(w http.ResponseWriter, r *http.Request, methods func() string) (answered bool) {
	origin := r.Header.Get("Origin")
	header := w.Header()
	if origin != "" || r.Method != http.MethodPost { // nobody keeps the answer to a POST for others
		header.Add("Vary", "Origin")
	}
	if origin == "" {
		return false
	}
	allowed := h.allows(origin)
	if allowed {
		header["Access-Control-Allow-Origin"] = []string{origin}
		header["Access-Control-Expose-Headers"] = []string{exposed}
	}
	switch {
	case r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "":
		return false
	case !allowed:
		openai.ForeignOrigin(origin).WriteTo(w)
		return true
	}
	header.Set("Access-Control-Allow-Methods", methods())
	if wanted := r.Header.Values("Access-Control-Request-Headers"); len(wanted) > 0 {
		header.Set("Access-Control-Allow-Headers", strings.Join(wanted, ", ")) // * would not be Authorization
	}
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		header.Set("Access-Control-Allow-Private-Network", "true")
	}
	header.Set("Access-Control-Max-Age", preflightAge)
	w.WriteHeader(http.StatusNoContent)
	return true
}
