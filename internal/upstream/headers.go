package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// The functions on names take them in canonical form.

// hopByHop tells whether a header concerns one connection only (RFC 9110 section 7.6.1, and the framing itself).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// withheldFromEngine tells whether a client's header is no business of an engine: credentials, where the client is, the
// browser's cross-origin questions, which we answer, and what we already settled ourselves (Expect, Host, the length).
func withheldFromEngine(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Api-Key", "Cookie",
		"Forwarded", "X-Real-Ip", "Via",
		"Origin", "Referer",
		"Expect", "Host", "Content-Length":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Access-Control-") || hopByHop(name)
}

// withheldFromClient tells whether an engine's header is no business of a client: what the server in front says for itself, and what
// an engine is and allows.
func withheldFromClient(name string) bool {
	switch name {
	case "Server", "Date", "Via", "X-Powered-By", "X-Assistant-Model", "X-Assistant-Fallback":
		return true
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "X-Ratelimit-") || hopByHop(name)
}

// notInTrailer tells whether a name must not come after the body, where it would be taken for framing (RFC 9110 section 6.5.1).
func notInTrailer(name string) bool {
	return name == "Content-Length" || name == "Host" || !validName(name)
}

// upgrades tells whether a request asks to switch protocols.
func upgrades(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return true
	}
	return len(r.Header["Upgrade"]) > 0 && hasToken(r.Header["Connection"], "upgrade")
}

// hasToken tells whether comma-separated lists name a token, in any case.
func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for t := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(t), token) {
				return true
			}
		}
	}
	return false
}

// target is a request's target in origin form. One that would not end where we say it ends is refused.
func target(r *http.Request) (string, error) {
	if !validName(r.Method) {
		return "", fmt.Errorf("method %q", r.Method)
	}
	if r.URL == nil {
		return "", errors.New("no URL")
	}
	t := r.URL.RequestURI()
	if !strings.HasPrefix(t, "/") && (t != "*" || r.Method != http.MethodOptions) {
		return "", fmt.Errorf("target %q", t)
	}
	for i := range len(t) {
		if t[i] <= ' ' || t[i] == 0x7f {
			return "", fmt.Errorf("target %q", t)
		}
	}
	return t, nil
}

// passHeader calls pass for each header, or trailer, of a client that an engine is to see.
func passHeader(h http.Header, connection []string, pass func(name, value string)) error {
	for name, values := range h {
		if name = textproto.CanonicalMIMEHeaderKey(name); withheldFromEngine(name) {
			continue
		}
		if len(connection) > 0 && hasToken(connection, name) {
			continue
		}
		if !validName(name) {
			return fmt.Errorf("header name %q", name)
		}
		for _, v := range values {
			if !validValue(v) {
				return fmt.Errorf("value of header %s", name) // not the value itself: it may be a secret
			}
			pass(name, v)
		}
	}
	return nil
}

// hasTrailer tells whether a request has a trailer with values in it, not just announced.
func hasTrailer(r *http.Request) bool {
	for _, values := range r.Trailer {
		if len(values) > 0 {
			return true
		}
	}
	return false
}

// tokenChars are the bytes of a token (RFC 9110 section 5.6.2).
var tokenChars = func() (t [256]bool) {
	for c := range t {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
			strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c))
	}
	return t
}()

// validName tells whether s is a token, as methods and header names are.
func validName(s string) bool {
	for i := range len(s) {
		if !tokenChars[s[i]] {
			return false
		}
	}
	return s != ""
}

// validValue tells whether s has no control character but the tab.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
