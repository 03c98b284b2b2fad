package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/keys"
)

// TestIdentitiesHoldKeys: whom somebody else knows needs no secret of ours, and is bound all the same.
func TestIdentitiesHoldKeys(t *testing.T) {
	for _, named := range []bool{true, false} {
		s := newSite(t)
		s.model("mine", "", "--tokens", "3")
		s.model("other", "", "--tokens", "3")
		file := filepath.Join(s.root, "state", "keys.toml")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		const text = "[[keys]]\nname = \"staff\"\nidentity = \"*@example.org\"\nmodels = [\"mine\"]\nrequests_per_minute = 2\n\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := keys.Create(file, keys.Entry{Name: "bob"})
		if err != nil {
			t.Fatal(err)
		}
		if named {
			s.app["keys"] = file
		}
		s.app["identity"] = "{http.request.header.X-User}"
		s.start()
		ask := func(model string, header ...string) int {
			t.Helper()
			return s.ask(http.MethodPost, chatPath, question(model), header...).status
		}
		nobody := http.StatusUnauthorized
		if !named {
			nobody = http.StatusOK
		}
		for name, c := range map[string]struct {
			got, want int
		}{
			"one of the staff":         {ask("mine", "X-User", "alice@example.org"), http.StatusOK},
			"another's model":          {ask("other", "X-User", "alice@example.org"), http.StatusNotFound},
			"the third of two":         {ask("mine", "X-User", "carol@example.org"), http.StatusTooManyRequests},
			"somebody else":            {ask("mine", "X-User", "eve@example.com"), http.StatusUnauthorized},
			"somebody else with a key": {ask("other", "X-User", "eve@example.com", "Authorization", "Bearer "+key), http.StatusOK},
			"nobody with a key":        {ask("other", "Authorization", "Bearer "+key), http.StatusOK},
			"nobody":                   {ask("mine"), nobody},
		} {
			if c.got != c.want {
				t.Errorf("named %v, %s: %d, want %d", named, name, c.got, c.want)
			}
		}
		s.eventually("the use to be the key's", func() bool {
			got := s.used("?group_by=key", "X-User", "alice@example.org")
			return len(got.Data) == 1 && *got.Data[0].Key == "staff" && got.Data[0].Requests == 1
		})
		s.end()
	}
}

func TestIdentityIsAPlaceholder(t *testing.T) {
	s := newSite(t)
	for _, wrong := range []string{"alice", "{header.X-User}", "{http.auth.user.id}@{http.request.host}", "{http.auth.user.id"} {
		s.app["identity"] = wrong
		if err := s.tryLoad(); err == nil || !strings.Contains(err.Error(), "identity") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// TestKeysForOtherRoutes: Caddy's authentication asks our keys, and its other handlers know whose they are.
func TestKeysForOtherRoutes(t *testing.T) {
	s, alice, _, _ := keyed(t, "owner = \"Alice\"\nteam = \"a\"")
	s.more = map[string]any{"http": map[string]any{"servers": map[string]any{"site": map[string]any{
		"listen":          []string{"127.0.0.1:" + s.port},
		"automatic_https": map[string]any{"disable": true},
		"routes": []any{map[string]any{"handle": []any{
			map[string]any{"handler": "authentication", "providers": map[string]any{"assistant": map[string]any{}}},
			map[string]any{"handler": "static_response", "body": "{http.auth.user.id} {http.auth.user.owner} {http.auth.user.team}"},
		}}},
	}}}}
	s.load()
	if a := s.ask(http.MethodGet, "/private", "", bearer(alice)...); a.status != http.StatusOK || a.body != "alice Alice a" {
		t.Errorf("alice: %d %s", a.status, a.body)
	}
	for name, header := range map[string][]string{"nobody": nil, "another": bearer("sk-assistant-nobodys")} {
		if a := s.ask(http.MethodGet, "/private", "", header...); a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") != "Bearer" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
}
