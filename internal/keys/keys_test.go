package keys

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// site is a store on a file of the test's own, with a clock that the test turns.
type site struct {
	*Store
	t   *testing.T
	at  time.Time
	log strings.Builder
}

func open(t *testing.T, text string) *site {
	t.Helper()
	s := &site{t: t, at: time.Unix(1_800_000_000, 0)}
	file := filepath.Join(t.TempDir(), "keys.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := Open(file, slog.New(slog.NewTextHandler(&s.log, nil)), NewUses())
	if err != nil {
		t.Fatal(err)
	}
	store.now = func() time.Time { return s.at }
	s.Store = store
	return s
}

// becomes changes the file, and lets time pass until that must be known.
func (s *site) becomes(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.at = s.at.Add(lookAgain + time.Millisecond)
}

func entry(name, sum, more string) string {
	return fmt.Sprintf("[[keys]]\nname = %q\nsha256 = %q\n%s\n", name, sum, more)
}

func TestNewKeys(t *testing.T) {
	key, sum := New()
	other, _ := New()
	if !strings.HasPrefix(key, prefix) || len(key) != len(prefix)+43 || len(sum) != 64 || key == other {
		t.Errorf("%q, %q, %q", key, sum, other)
	}
}

func TestVerify(t *testing.T) {
	alice, aliceSum := New()
	old, oldSum := New()
	s := open(t, entry("alice", aliceSum, `models = ["qwen*", "org/?"]`)+entry("old", oldSum, "expires = 2020-01-01T00:00:00Z"))
	if k, err := s.Verify(alice); err != nil || k.Name != "alice" {
		t.Errorf("%+v, %v", k, err)
	}
	for key, want := range map[string]error{"": ErrNone, alice + "x": ErrUnknown, aliceSum: ErrUnknown, old: ErrExpired} {
		if _, err := s.Verify(key); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", key, err, want)
		}
	}
	k, err := s.Verify(alice)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"qwen": true, "qwen2.5/x": true, "org/a": true, "org/ab": false, "smollm": false, "myqwen": false} {
		if k.May(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if !k.May("smollm", "qwen-alias") {
		t.Error("an alias that it may use is no use")
	}
}

func TestIdentities(t *testing.T) {
	alice, sum := New()
	text := entry("alice", sum, `identity = "alice"`) + entry("bob", strings.Repeat("0", 64), "")
	for _, more := range []string{
		`name = "admins"
identity = "*.admin@example.org"`, `name = "staff"
identity = "*@example.org"`, `name = "carol"
identity = "carol@example.org"`, `name = "gone"
identity = "gone"
expires = 2020-01-01T00:00:00Z`,
	} {
		text += "[[keys]]\n" + more + "\n"
	}
	s := open(t, text)
	for identity, want := range map[string]string{
		"alice": "alice", "dan@example.org": "staff", "eve.admin@example.org": "admins", "carol@example.org": "carol",
	} {
		if k, err := s.Holder(identity); err != nil || k.Name != want {
			t.Errorf("%s: %+v, %v", identity, k, err)
		}
	}
	for identity, want := range map[string]error{"": ErrNobody, "bob": ErrNobody, "Alice": ErrNobody, "x@example.org.evil": ErrNobody, "gone": ErrExpired} {
		if k, err := s.Holder(identity); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v, want %v", identity, k, err, want)
		}
	}
	if k, err := s.Verify(alice); err != nil || k.Name != "alice" {
		t.Errorf("by its secret: %+v, %v", k, err)
	}
}

func TestKeysThatStandElsewhere(t *testing.T) {
	t.Setenv("TEST_KEY", "a-secret-of-the-environment")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("a-secret-of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, fmt.Sprintf("[[keys]]\nname = \"e\"\nkey = \"{env.TEST_KEY}\"\n[[keys]]\nname = \"f\"\nkey = \"{file.%s}\"\n", file))
	for key, name := range map[string]string{"a-secret-of-the-environment": "e", "a-secret-of-a-file": "f"} {
		if k, err := s.Verify(key); err != nil || k.Name != name {
			t.Errorf("%s: %+v, %v", key, k, err)
		}
	}
}

func TestBrokenFiles(t *testing.T) {
	_, sum := New()
	for name, c := range map[string]struct{ text, want string }{
		"no TOML":        {"[[keys]", "keys.toml:1:"},
		"unknown key":    {entry("a", sum, "model = 1"), "keys.toml:4:1: keys.model: unknown key"},
		"no name":        {fmt.Sprintf("[[keys]]\nsha256 = %q\n", sum), "keys[0]: name: is missing"},
		"no sum":         {"[[keys]]\nname = \"a\"\n", "caddy assistant key new"},
		"a short sum":    {entry("a", sum[1:], ""), "64 hexadecimal digits"},
		"written out":    {"[[keys]]\nname = \"a\"\nkey = \"sk-assistant-x\"\n", "no secret"},
		"both":           {entry("a", sum, "key = \"{env.X}\""), "has both"},
		"no such secret": {"[[keys]]\nname = \"a\"\nkey = \"{env.NOBODY_SET_THIS}\"\n", "holds no key"},
		"twice the name": {entry("a", sum, "") + entry("a", strings.Repeat("0", 64), ""), "keys[1]: name: \"a\" is another key's"},
		"twice the key":  {entry("a", sum, "") + entry("b", sum, ""), "the same as \"a\""},
		"twice identity": {"[[keys]]\nname = \"a\"\nidentity = \"x\"\n[[keys]]\nname = \"b\"\nidentity = \"x\"\n", "identity: \"x\" holds \"a\" already"},
		"no models":      {entry("a", sum, "models = []"), "could use nothing"},
		"negative":       {entry("a", sum, "requests_per_minute = -1"), "requests_per_minute: must not be negative"},
		"negative month": {entry("a", sum, "tokens_per_month = -1"), "tokens_per_month: must not be negative"},
	} {
		if _, err := parse("/x/keys.toml", []byte(c.text), NewUses()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), slog.Default(), NewUses()); err == nil {
		t.Error("a file that is not there was opened")
	}
}

func TestTheFileIsReadAgain(t *testing.T) {
	alice, aliceSum := New()
	bob, bobSum := New()
	s := open(t, entry("alice", aliceSum, ""))
	s.becomes(entry("alice", aliceSum, "") + entry("bob", bobSum, ""))
	if _, err := s.Verify(bob); err != nil {
		t.Errorf("a new key: %v", err)
	}
	s.becomes(entry("bob", bobSum, "# and no other"))
	if _, err := s.Verify(alice); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked key: %v", err)
	}
	s.becomes("[[keys]")
	if _, err := s.Verify(bob); err != nil || !strings.Contains(s.log.String(), "stay in force") {
		t.Errorf("after a slip: %v, log %s", err, s.log.String())
	}
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.at = s.at.Add(time.Minute)
	if _, err := s.Verify(bob); err != nil {
		t.Errorf("after the file was removed: %v", err)
	}
	s.becomes(entry("alice", aliceSum, "# back"))
	if _, err := s.Verify(bob); !errors.Is(err, ErrUnknown) {
		t.Errorf("after it came back without: %v", err)
	}
}

func TestBounds(t *testing.T) {
	alice, sum := New()
	const bounds = "requests_per_minute = 6\nconcurrent_requests = 2\n"
	s := open(t, entry("alice", sum, bounds))
	begin := func() *Refusal {
		t.Helper()
		k, err := s.Verify(alice)
		if err != nil {
			t.Fatal(err)
		}
		return k.Begin(s.at)
	}
	k, err := s.Verify(alice)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := begin(); r != nil {
			t.Errorf("two at a time: %+v", r)
		}
	}
	if r := begin(); r == nil || r.Why != "concurrent requests" {
		t.Errorf("a third: %+v", r)
	}
	k.End()
	for range 4 {
		if r := begin(); r != nil {
			t.Errorf("within the minute's: %+v", r)
		}
		k.End()
	}
	s.becomes(entry("alice", sum, bounds+"# what was used stays used\n"))
	if r := begin(); r == nil || r.Why != "requests per minute" || r.Retry <= 0 || r.Retry > 10*time.Second {
		t.Errorf("beyond: %+v", r)
	}
	if left, _ := k.Left(s.at); left.Remaining != 0 || left.Limit != 6 || left.Reset < 50*time.Second || left.Reset > time.Minute {
		t.Errorf("%+v remain", left)
	}
	s.at = s.at.Add(10 * time.Second)
	if r := begin(); r != nil {
		t.Errorf("10 s later: %+v", r)
	}
}

// Tokens are known afterwards: a request begins while there is one left, and what it took too much is worked off.
func TestTokensPerMinute(t *testing.T) {
	alice, sum := New()
	s := open(t, entry("alice", sum, "tokens_per_minute = 60"))
	k, err := s.Verify(alice)
	if err != nil {
		t.Fatal(err)
	}
	step := func(tokens int) *Refusal {
		t.Helper()
		r := k.Begin(s.at)
		if r == nil {
			k.Took(s.at, tokens)
			k.End()
		}
		return r
	}
	for _, tokens := range []int{59, 91} {
		if r := step(tokens); r != nil {
			t.Errorf("before %d: %+v", tokens, r)
		}
	}
	if _, left := k.Left(s.at); left != (Left{Limit: 60, Remaining: 0, Reset: 150 * time.Second}) {
		t.Errorf("in debt: %+v", left)
	}
	if r := step(0); r == nil || r.Why != "tokens per minute" || r.Retry != 91*time.Second {
		t.Errorf("in debt: %+v", r)
	}
	s.at = s.at.Add(91 * time.Second)
	if r := step(1); r != nil {
		t.Errorf("without debt: %+v", r)
	}
	s.at = s.at.Add(time.Hour)
	if _, left := k.Left(s.at); left != (Left{Limit: 60, Remaining: 60}) {
		t.Errorf("after an hour: %+v", left)
	}
	s.at = s.at.Add(-time.Minute) // a clock that is set back takes nothing away
	if _, left := k.Left(s.at); left != (Left{Limit: 60, Remaining: 60}) {
		t.Errorf("a minute before: %+v", left)
	}
}

// What a key has used goes on in another file, with other bounds, and under another secret.
func TestUseOutlivesTheFile(t *testing.T) {
	_, sum := New()
	uses := NewUses()
	of := func(text string) *Key {
		t.Helper()
		keys, err := parse("/x/keys.toml", []byte(text), uses)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys.secrets {
			return k
		}
		return nil
	}
	now := time.Unix(1_800_000_000, 0)
	if r := of(entry("a", sum, "requests_per_minute = 5")).Begin(now); r != nil {
		t.Errorf("%+v", r)
	}
	k := of(entry("a", strings.Repeat("0", 64), "requests_per_minute = 4\nconcurrent_requests = 1"))
	if left, _ := k.Left(now); left.Remaining != 4 {
		t.Errorf("more than there was: %+v", left)
	}
	if r := k.Begin(now); r == nil || r.Why != "concurrent requests" {
		t.Errorf("beside the one that runs: %+v", r)
	}
	if r := of(entry("c", sum, "")).Begin(now); r != nil {
		t.Errorf("%+v", r)
	}
	if left, _ := of(entry("c", sum, "requests_per_minute = 3")).Left(now); left.Remaining != 3 {
		t.Errorf("a bound that is new: %+v", left)
	}
	if r := of(entry("b", sum, "concurrent_requests = 1")).Begin(now); r != nil {
		t.Errorf("another: %+v", r)
	}
}

func TestEntriesAreWrittenAsRead(t *testing.T) {
	_, sum := New()
	want := Entry{
		Name: "a \"b\"", SHA256: sum, Identity: "i*", Owner: "o", Team: "t", Models: []string{"qwen*", "x'"}, RequestsPerMinute: 1, TokensPerMinute: 2,
		TokensPerMonth: 3, Concurrent: 4, Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	var got rawFile
	if err := toml.Unmarshal(want.TOML(), &got); err != nil || len(got.Keys) != 1 || !reflect.DeepEqual(got.Keys[0], want) {
		t.Errorf("%v: %+v of\n%s", err, got, want.TOML())
	}
	if short := string(Entry{Name: "a", SHA256: "0"}.TOML()); short != "[[keys]]\nname = 'a'\nsha256 = '0'\n" {
		t.Errorf("%q", short)
	}
}

func FuzzParse(f *testing.F) {
	_, sum := New()
	f.Add([]byte(entry("a", sum, "models = [\"*\"]\nexpires = 2030-01-01")))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parse("/x/keys.toml", b, NewUses()) })
}
