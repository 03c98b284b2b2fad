package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// prefix makes a key known for one, to people and to scanners of secrets.
const prefix = "sk-assistant-"

// New makes a key up, and returns it with what the file holds of it.
func New() (key, sum string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	key = prefix + base64.RawURLEncoding.EncodeToString(b[:])
	return key, hexSum(key)
}

func hexSum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// Key is what the holder of a key may do. It is immutable, but for what it has used.
type Key struct {
	Name    string // for logs
	Owner   string
	Team    string
	Expires time.Time // zero = never

	// RequestsPerMinute and Concurrent bound its requests; 0 = no bound.
	RequestsPerMinute int
	Concurrent        int

	models []*regexp.Regexp // nil = all
	use    *use             // goes on when the file is read again
}

// use is what a key has used.
type use struct {
	requests *rate.Limiter // nil = no bound

	mu      sync.Mutex
	running int
}

// May reports whether the key may use a model that has one of these names.
func (k *Key) May(names ...string) bool {
	if k.models == nil {
		return true
	}
	for _, glob := range k.models {
		if slices.ContainsFunc(names, glob.MatchString) {
			return true
		}
	}
	return false
}

// Refusal says why a request may not begin now.
type Refusal struct {
	Why   string        // which bound, for people
	Retry time.Duration // when it may; 0 = that depends on others
}

// Begin takes a request's share of the bounds. Unless it refuses, [Key.End] is to be called when the request has ended.
func (k *Key) Begin(now time.Time) *Refusal {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	if k.Concurrent > 0 && k.use.running >= k.Concurrent {
		return &Refusal{Why: "concurrent requests"}
	}
	if k.use.requests != nil {
		if r := k.use.requests.ReserveN(now, 1); r.DelayFrom(now) > 0 {
			wait := r.DelayFrom(now)
			r.CancelAt(now)
			return &Refusal{Why: "requests per minute", Retry: wait}
		}
	}
	k.use.running++
	return nil
}

// End gives back what Begin took of the concurrent requests.
func (k *Key) End() {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	k.use.running--
}

// Remaining is how many requests the key may make at once, and how long until it may make as many as ever. It reports false
// if that is not bounded.
func (k *Key) Remaining(now time.Time) (requests int, reset time.Duration, bounded bool) {
	if k.use.requests == nil {
		return 0, 0, false
	}
	tokens := max(0, k.use.requests.TokensAt(now))
	missing := float64(k.RequestsPerMinute) - tokens
	return int(tokens), time.Duration(missing / float64(k.RequestsPerMinute) * float64(time.Minute)), true
}

// glob makes an expression of a pattern in which * stands for any text and ? for one character.
func glob(pattern string) *regexp.Regexp {
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(strings.ReplaceAll(expression, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`(?s)\A` + expression + `\z`)
}
