package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/internal/keys"
)

// keyed makes a site that asks for keys: alice's, who may use m* and make so many requests, and bob's, who may use all.
func keyed(t *testing.T, bounds string) (s *site, alice, bob, file string) {
	t.Helper()
	s = newSite(t)
	s.model("mine", `aliases = ["m-alias"]`, "--tokens", "3")
	s.model("other", "", "--tokens", "3")
	alice, aliceSum := keys.New()
	bob, bobSum := keys.New()
	file = filepath.Join(s.root, "keys.toml")
	text := fmt.Sprintf("[[keys]]\nname = \"alice\"\nsha256 = %q\nmodels = [\"m*\"]\n%s\n[[keys]]\nname = \"bob\"\nsha256 = %q\n", aliceSum, bounds, bobSum)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["keys"] = file
	return s.start(), alice, bob, file
}

func TestKeysAreAskedFor(t *testing.T) {
	s, alice, bob, file := keyed(t, "")
	chat := func(model string, header ...string) answered {
		t.Helper()
		return s.ask(http.MethodPost, chatPath, question(model), header...)
	}
	for name, header := range map[string][]string{
		"none": nil, "another": {"Authorization", "Bearer sk-assistant-nobodys"}, "no bearer": {"Authorization", "Basic " + alice}, "its sum": {"X-Api-Key", "0"},
	} {
		a := chat("mine", header...)
		if a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") != "Bearer" || !strings.Contains(a.body, `"code":"invalid_api_key"`) {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	for _, path := range []string{"/v1/models", "/v1/models/mine"} {
		if a := s.get(path); a.status != http.StatusUnauthorized {
			t.Errorf("%s without a key: %d", path, a.status)
		}
	}
	if a := s.get("/health"); a.status != http.StatusOK {
		t.Errorf("/health wants a key: %d", a.status)
	}
	if len(s.started()) > 0 {
		t.Error("an engine was started for nobody")
	}

	for _, header := range [][]string{{"Authorization", "Bearer " + alice}, {"X-Api-Key", alice}, {"Api-Key", alice}} {
		for _, model := range []string{"mine", "m-alias"} {
			if a := chat(model, header...); a.status != http.StatusOK {
				t.Errorf("%s, %s: %d %s", header[0], model, a.status, a.body)
			}
		}
	}
	// What a key may not use does not exist for it.
	as := []string{"Authorization", "Bearer " + alice}
	if a := chat("other", as...); a.status != http.StatusNotFound || !strings.Contains(a.body, "model_not_found") {
		t.Errorf("another's model: %d %s", a.status, a.body)
	}
	if a := s.ask(http.MethodGet, "/v1/models/other", "", as...); a.status != http.StatusNotFound {
		t.Errorf("its card: %d %s", a.status, a.body)
	}
	if a := s.ask(http.MethodGet, "/v1/models", "", as...); !strings.Contains(a.body, `"mine"`) || strings.Contains(a.body, `"other"`) {
		t.Errorf("alice's list: %s", a.body)
	}
	if a := s.ask(http.MethodGet, "/v1/models", "", "Authorization", "Bearer "+bob); !strings.Contains(a.body, `"mine"`) || !strings.Contains(a.body, `"other"`) {
		t.Errorf("bob's list: %s", a.body)
	}

	if err := os.WriteFile(file, []byte("# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.eventually("a revoked key to be refused", func() bool { return chat("mine", as...).status == http.StatusUnauthorized })
	if log, _ := os.ReadFile(s.log()); strings.Contains(string(log), alice) {
		t.Error("a key is in the log")
	}
}

func TestKeysHaveBounds(t *testing.T) {
	s, alice, _, _ := keyed(t, "requests_per_minute = 2\n")
	ask := func() answered {
		t.Helper()
		return s.ask(http.MethodPost, chatPath, question("mine"), "Authorization", "Bearer "+alice)
	}
	a := ask()
	if a.status != http.StatusOK || a.header.Get("X-Ratelimit-Limit-Requests") != "2" || a.header.Get("X-Ratelimit-Remaining-Requests") != "1" {
		t.Errorf("the first: %d %v", a.status, a.header)
	}
	if a = ask(); a.status != http.StatusOK || a.header.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Errorf("the second: %d %v", a.status, a.header)
	}
	a = ask()
	if a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "requests per minute") || a.header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %v %s", a.status, a.header, a.body)
	}
	if reset, err := time.ParseDuration(a.header.Get("X-Ratelimit-Reset-Requests")); err != nil || reset <= 0 || reset > time.Minute {
		t.Errorf("reset %v, %v", reset, err)
	}
}

func TestBrokenKeysAreNoConfiguration(t *testing.T) {
	s := newSite(t)
	s.app["keys"] = filepath.Join(s.root, "keys.toml")
	if err := s.tryLoad(); err == nil || !strings.Contains(err.Error(), "keys.toml") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "keys.toml"), []byte("[[keys]]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.tryLoad(); err == nil || !strings.Contains(err.Error(), "keys[0]: name") {
		t.Errorf("a key without a name: %v", err)
	}
}

func TestKeyNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.toml")
	var made [2]string
	for i, name := range []string{"alice", "bob"} {
		var out strings.Builder
		if err := newKey(&out, keys.Entry{Name: name, Models: []string{"qwen*"}, TokensPerMonth: 5, Admin: name == "bob"}, file); err != nil {
			t.Fatal(err)
		}
		made[i], _, _ = strings.Cut(out.String(), "\n")
	}
	store, err := keys.Open(file, nil, keys.NewUses())
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range made {
		if k, err := store.Verify(key); err != nil || !k.May("qwen2") || k.TokensPerMonth != 5 || k.May("x") || k.Admin != (i == 1) {
			t.Errorf("key %d: %+v, %v", i, k, err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := newKey(&strings.Builder{}, keys.Entry{Name: "alice"}, file); err == nil || !strings.Contains(err.Error(), "another key's") {
		t.Errorf("a name twice: %v", err)
	}
	if err := newKey(&strings.Builder{}, keys.Entry{Name: "dan", TokensPerMinute: -1}, file); err == nil || !strings.Contains(err.Error(), "tokens_per_minute") {
		t.Errorf("a negative bound: %v", err)
	}
	var out strings.Builder
	if err := newKey(&out, keys.Entry{Name: "carol"}, ""); err != nil || !strings.Contains(out.String(), `name = 'carol'`) {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestOthersNeedAKey: a server that names no keys is free for this machine only.
func TestOthersNeedAKey(t *testing.T) {
	for _, insecure := range []bool{false, true} {
		s := newSite(t)
		s.model("mine", "", "--tokens", "3")
		s.app["insecure"] = insecure
		s.start()
		want := http.StatusUnauthorized
		if insecure {
			want = http.StatusOK
		}
		if a := s.ask(http.MethodPost, chatPath, question("mine"), "Authorization", "Bearer unused"); a.status != http.StatusOK {
			t.Errorf("from here, with a key that nobody knows: %d %s", a.status, a.body)
		}
		for name, header := range map[string][]string{
			"handed on": {"X-Forwarded-For", "192.0.2.1"}, "forwarded": {"Forwarded", "for=192.0.2.1"}, "rebound": {"Host", "evil.example"},
		} {
			if a := s.ask(http.MethodPost, chatPath, question("mine"), header...); a.status != want {
				t.Errorf("insecure %v, %s: %d %s", insecure, name, a.status, a.body)
			}
			if a := s.ask(http.MethodGet, "/v1/models", "", header...); a.status != want {
				t.Errorf("insecure %v, %s, list: %d", insecure, name, a.status)
			}
		}
		s.end()
	}
}

// TestAFirstKeyIsMade: where a listener can be reached from elsewhere, once.
func TestAFirstKeyIsMade(t *testing.T) {
	s := newSite(t)
	s.model("mine", "", "--tokens", "3")
	s.listen = ":" + s.port
	file := filepath.Join(s.root, "state", "keys.toml")
	var cfg caddy.Config
	if err := json.Unmarshal(s.json(), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil || exists(file) {
		t.Errorf("validating made %v, %v", exists(file), err)
	}
	printed := stderrOf(t, func() { s.start() })
	_, rest, ok := strings.Cut(printed, "not shown again:")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 || !strings.HasPrefix(fields[0], "sk-assistant-") {
		t.Fatalf("printed %q", printed)
	}
	away := []string{"X-Forwarded-For", "192.0.2.1"}
	if a := s.ask(http.MethodPost, chatPath, question("mine"), away...); a.status != http.StatusUnauthorized {
		t.Errorf("without it: %d", a.status)
	}
	if a := s.ask(http.MethodPost, chatPath, question("mine"), append(away, "Authorization", "Bearer "+fields[0])...); a.status != http.StatusOK {
		t.Errorf("with it: %d %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, chatPath, question("mine")); a.status != http.StatusOK {
		t.Errorf("from here: %d %s", a.status, a.body)
	}
	if store, err := keys.Open(file, nil, keys.NewUses()); err != nil {
		t.Error(err)
	} else if key, err := store.Verify(fields[0]); err != nil || !key.Admin {
		t.Errorf("the owner's key may not manage: %+v, %v", key, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if log, _ := os.ReadFile(s.log()); strings.Contains(string(log), fields[0]) {
		t.Error("the key is in the log")
	}
	if again := stderrOf(t, s.load); strings.Contains(again, "sk-assistant-") {
		t.Error("it was printed again")
	}
}

// stderrOf is what is printed while something is done.
func stderrOf(t *testing.T, do func()) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	old := os.Stderr
	os.Stderr = f
	defer func() { os.Stderr = old }()
	do()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestKeysMadeLaterCount: who could not be served for want of any key need not restart the server.
func TestKeysMadeLaterCount(t *testing.T) {
	s := newSite(t)
	s.model("mine", "", "--tokens", "3")
	s.start()
	ask := func(key string) int {
		return s.ask(http.MethodPost, chatPath, question("mine"), "Host", "models.example", "Authorization", "Bearer "+key).status
	}
	if got := ask("sk-none"); got != http.StatusUnauthorized {
		t.Errorf("before there are any: %d", got)
	}
	key, err := keys.Create(filepath.Join(s.root, "state", "keys.toml"), keys.Entry{Name: "later"})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(key); got != http.StatusOK {
		t.Errorf("with one that was made: %d", got)
	}
}

func TestFromHere(t *testing.T) {
	for _, c := range []struct {
		peer, host, header string
		want               bool
	}{
		{"127.0.0.1:1234", "localhost", "", true},
		{"127.0.0.1:1234", "127.0.0.1:8080", "", true},
		{"[::1]:1234", "[::1]:8080", "", true},
		{"[::ffff:127.0.0.1]:1", "models.localhost:8080", "", true},
		{"@", "localhost", "", true},
		{"", "localhost", "", true},
		{"192.0.2.1:1234", "localhost", "", false},
		{"127.0.0.1:1234", "evil.example", "", false},
		{"127.0.0.1:1234", "localhost.evil.example", "", false},
		{"127.0.0.1:1234", "", "", false},
		{"127.0.0.1:1234", "localhost", "X-Forwarded-Host", false},
		{"127.0.0.1:1234", "localhost", "Forwarded", false},
		{"127.0.0.1:1234", "localhost", "X-Real-Ip", false},
	} {
		r := &http.Request{RemoteAddr: c.peer, Host: c.host, Header: http.Header{}}
		if c.header != "" {
			r.Header.Set(c.header, "x")
		}
		if fromHere(r) != c.want {
			t.Errorf("%+v: %v", c, !c.want)
		}
	}
}
