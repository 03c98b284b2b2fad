package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"assistant/internal/openai"
)

const page = "https://chat.example.com"

// TestPreflight: what a browser asks before a page's request needs no key and starts nothing, on every path of ours.
func TestPreflight(t *testing.T) {
	s, _, _, _ := keyed(t, "")
	s.handler["cors_origins"] = []string{page}
	s.load()
	const wanted = "authorization,content-type,x-stainless-arch"
	for path, methods := range map[string]string{chatPath: "POST", "/v1/embeddings": "POST", "/v1/models": "GET, HEAD", "/v1/models/mine": "GET, HEAD", "/health": "GET, HEAD"} {
		a := s.ask(http.MethodOptions, path, "", "Origin", page, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", wanted, "Access-Control-Request-Private-Network", "true")
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": wanted,
			"Access-Control-Allow-Private-Network": "true", "Access-Control-Max-Age": "86400", "Vary": "Origin",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", path, name, got, want)
			}
		}
		if a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	a := s.ask(http.MethodOptions, chatPath, "", "Origin", page, "Access-Control-Request-Method", "POST")
	if a.header.Get("Access-Control-Allow-Private-Network") != "" || a.header.Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("what was not asked: %v", a.header)
	}
	a = s.ask(http.MethodOptions, chatPath, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
	if a.status != http.StatusForbidden || a.header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(a.body, "cors_origins") {
		t.Errorf("a foreign page: %d %v %s", a.status, a.header, a.body)
	}
	if a := s.ask(http.MethodOptions, chatPath, "", "Origin", page); a.status != http.StatusMethodNotAllowed {
		t.Errorf("OPTIONS that is no preflight: %d", a.status)
	}
	if a := s.ask(http.MethodOptions, "/elsewhere", "", "Origin", page, "Access-Control-Request-Method", "POST"); a.status != 299 {
		t.Errorf("another's path: %d", a.status)
	}
	if n := len(s.started()); n > 0 {
		t.Errorf("%d engines were started", n)
	}
}

// Pages may read answers and errors alike.
func TestPagesReadAnswers(t *testing.T) {
	s, alice, _, _ := keyed(t, "")
	s.handler["cors_origins"] = []string{page}
	s.load()
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
	}{
		"an answer": {http.MethodPost, chatPath, question("mine"), bearer(alice), http.StatusOK},
		"no key":    {http.MethodPost, chatPath, question("mine"), nil, http.StatusUnauthorized},
		"no model":  {http.MethodPost, chatPath, question("none"), bearer(alice), http.StatusNotFound},
		"the list":  {http.MethodGet, "/v1/models", "", bearer(alice), http.StatusOK},
	} {
		a := s.ask(c.method, c.path, c.body, append([]string{"Origin", page}, c.header...)...)
		if a.status != c.status || a.header.Get("Access-Control-Allow-Origin") != page || a.header.Get("Vary") != "Origin" ||
			!strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "X-Request-Id") {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if a := s.ask(http.MethodGet, "/v1/models", "", bearer(alice)...); a.header.Get("Vary") != "Origin" || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no page: %v", a.header)
	}
}

// TestForeignPagesNeedAKey: a browser sends simple requests of any page without asking, and from this machine no key is asked for.
func TestForeignPagesNeedAKey(t *testing.T) {
	s := newSite(t)
	s.model("mine", "", "--tokens", "3")
	s.start()
	for origin, want := range map[string]int{
		"https://evil.example": http.StatusUnauthorized, "null": http.StatusUnauthorized, "http://localhost.evil.example": http.StatusUnauthorized,
		"http://localhost:3000": http.StatusOK, "https://[::1]:8443": http.StatusOK, "http://127.0.0.1": http.StatusOK, s.url: http.StatusOK,
	} {
		a := s.ask(http.MethodPost, chatPath, question("mine"), "Origin", origin, "Content-Type", "text/plain")
		if a.status != want || want != http.StatusOK && (!strings.Contains(a.body, "cors_origins") || a.header.Get("Access-Control-Allow-Origin") != "") {
			t.Errorf("%s: %d %v %s", origin, a.status, a.header, a.body)
		}
	}
}

func TestOrigins(t *testing.T) {
	for named, origins := range map[string]map[string]bool{
		"":                         {"http://localhost:5173": true, "HTTP://LOCALHOST": true, "https://127.0.0.1:1": true, "tauri://localhost": false, page: false, "": false, "null": false},
		"https://*.example.com":    {page: true, "https://example.com": false, "http://chat.example.com": false, "https://chat.example.com.evil": false},
		"tauri://localhost":        {"tauri://localhost": true},
		"HTTPS://Chat.Example.com": {page: true, page + ":8443": false},
		"*":                        {page: true, "null": true},
	} {
		h := &Handler{}
		if named != "" {
			h.CORSOrigins = []string{named}
		}
		if err := h.readOrigins(); err != nil {
			t.Fatal(err)
		}
		for origin, want := range origins {
			if h.allows(origin) != want {
				t.Errorf("%q by %q: %v", origin, named, !want)
			}
		}
	}
}

// Requests of programs pay nothing for those of pages.
func TestCORSAllocatesNothing(t *testing.T) {
	h := &Handler{}
	r := httptest.NewRequest(http.MethodPost, chatPath, http.NoBody)
	w := httptest.NewRecorder()
	ep := endpoint{join: openai.Chat}
	if n := testing.AllocsPerRun(100, func() {
		if h.cors(w, r, ep.allow) {
			t.Error("it was answered")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
