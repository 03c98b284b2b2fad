package caddymodule

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assistant/internal/keys"
)

// used asks for what was used.
func (s *site) used(query string, header ...string) usageAnswer {
	s.tb.Helper()
	a := s.ask(http.MethodGet, "/v1/usage"+query, "", header...)
	var got usageAnswer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
		s.tb.Fatalf("GET /v1/usage%s: %d %v: %s", query, a.status, err, a.body)
	}
	return got
}

func bearer(key string) []string { return []string{"Authorization", "Bearer " + key} }

func TestTokensHaveBounds(t *testing.T) {
	s, alice, _, _ := keyed(t, "tokens_per_minute = 10\n")
	ask := func() answered {
		t.Helper()
		return s.ask(http.MethodPost, chatPath, question("mine"), bearer(alice)...)
	}
	a := ask()
	if a.status != http.StatusOK || a.header.Get("X-Ratelimit-Limit-Tokens") != "10" || a.header.Get("X-Ratelimit-Remaining-Tokens") != "10" ||
		a.header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("the first: %d %v", a.status, a.header)
	}
	s.eventually("all tokens to be taken", func() bool { a = ask(); return a.status != http.StatusOK })
	if a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "tokens per minute") || a.header.Get("Retry-After") == "" ||
		a.header.Get("X-Ratelimit-Remaining-Tokens") != "0" {
		t.Errorf("beyond: %d %v %s", a.status, a.header, a.body)
	}
	if reset, err := time.ParseDuration(a.header.Get("X-Ratelimit-Reset-Tokens")); err != nil || reset <= 0 {
		t.Errorf("reset %v, %v", reset, err)
	}
	s.load() // what was used stays used in another configuration
	if a = ask(); a.status != http.StatusTooManyRequests {
		t.Errorf("after a reload: %d %s", a.status, a.body)
	}
}

// A month's budget, and what was used, survive a restart of the server.
func TestUsageSurvives(t *testing.T) {
	s, alice, bob, _ := keyed(t, "tokens_per_month = 10\nowner = \"Alice\"\nteam = \"a\"")
	ask := func(key string) answered {
		t.Helper()
		return s.ask(http.MethodPost, chatPath, question("mine"), bearer(key)...)
	}
	var last answered
	s.eventually("alice's budget to be used up", func() bool { last = ask(alice); return last.status != http.StatusOK })
	quota := func(a answered) {
		t.Helper()
		e := a.apiError(t)
		if a.status != http.StatusTooManyRequests || e.Type != "insufficient_quota" || text(e.Code) != "insufficient_quota" ||
			a.header.Get("X-Should-Retry") != "false" || a.header.Get("Retry-After") != "" {
			t.Errorf("beyond: %d %v %s", a.status, a.header, a.body)
		}
	}
	quota(last)
	if a := ask(bob); a.status != http.StatusOK {
		t.Errorf("bob's: %d %s", a.status, a.body)
	}
	s.eventually("bob's to be counted", func() bool { return len(s.used("", bearer(bob)...).Data) > 0 })
	before := s.used("", bearer(alice)...)
	if len(before.Data) != 1 || *before.Data[0].Model != "mine" || before.Data[0].Requests < 1 || before.Data[0].Prompt < 1 ||
		before.Data[0].Completion < 1 || before.Data[0].Key != nil || before.Month.Limit != 10 || before.Month.Tokens != before.Data[0].Total {
		t.Errorf("alice used %+v, %+v", before.Data, before.Month)
	}
	s.load()
	quota(ask(alice))
	s.end()
	file := filepath.Join(s.root, "state", usageFile)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	s.start()
	quota(ask(alice))
	if after := s.used("?group_by=key,owner,team,day", bearer(alice)...); len(after.Data) != 1 || *after.Data[0].Owner != "Alice" ||
		*after.Data[0].Team != "a" || *after.Data[0].Key != "alice" || len(*after.Data[0].Day) != 10 || after.Data[0].Counts != before.Data[0].Counts {
		t.Errorf("after a restart: %+v, before %+v", after.Data, before.Data)
	}
	var metrics strings.Builder
	current(t).writeMetrics(&metrics)
	for _, want := range []string{`assistant_key_requests_total{key="bob",model="mine"} 1`, `assistant_key_tokens_total{key="alice",model="mine",type="prompt"} `} {
		if !strings.Contains(metrics.String(), want) {
			t.Errorf("no %s in\n%s", want, metrics.String())
		}
	}
}

func TestUsageIsOnesOwn(t *testing.T) {
	s := newSite(t)
	s.model("mine", "", "--tokens", "3")
	s.start()
	key, err := keys.Create(filepath.Join(s.root, "state", "keys.toml"), keys.Entry{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	s.chat("mine")
	if a := s.ask(http.MethodPost, chatPath, question("mine"), bearer(key)...); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	named := func(u usageAnswer) (names []string) {
		for _, row := range u.Data {
			names = append(names, *row.Key+"!")
		}
		return names
	}
	see := func(who, want string, header ...string) {
		t.Helper()
		var got string
		if !within(bound, func() bool { got = strings.Join(named(s.used("?group_by=key", header...)), " "); return got == want }) {
			t.Errorf("%s sees %q, want %q", who, got, want)
		}
	}
	see("who is here", "! alice!")
	see("alice", "alice!", bearer(key)...)
	if a := s.ask(http.MethodGet, "/v1/usage", "", "Host", "models.example"); a.status != http.StatusUnauthorized {
		t.Errorf("somebody else: %d", a.status)
	}
	s.app["insecure"] = true
	s.load()
	see("who is here", "! alice!")
	see("somebody else", "!", "Host", "models.example")
	if got := s.used("?from=2020-01-01&to=2020-12-31"); len(got.Data) != 0 || got.Data == nil {
		t.Errorf("in 2020: %+v", got)
	}
	for query, param := range map[string]string{
		"?from=yesterday": "from", "?to=2026-13-01": "to", "?from=2026-02-01&to=2026-01-01": "from", "?group_by=model,x": "group_by",
	} {
		a := s.get("/v1/usage" + query)
		if e := a.apiError(t); a.status != http.StatusBadRequest || text(e.Param) != param {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := s.ask(http.MethodPost, "/v1/usage", "{}"); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.status)
	}
}

// Streams that nobody asked for their usage, and those that are left before their end, use a budget too.
func TestStreamsAreMetered(t *testing.T) {
	s := newSite(t)
	s.model("whole", "", "--tokens", "5")
	s.model("endless", "", "--tokens", "100000", "--token-delay", "1ms")
	s.start()
	s.stream("whole").completes()
	left := s.stream("endless")
	for range 20 {
		left.next()
	}
	left.res.Body.Close()
	completion := func(model string) (n int64) {
		for _, row := range s.used("").Data {
			if *row.Model == model {
				n = row.Completion
			}
		}
		return n
	}
	s.eventually("a whole stream to be counted", func() bool { return completion("whole") >= 5 })
	s.eventually("one that was left to be counted", func() bool { return completion("endless") >= 20 })
}
