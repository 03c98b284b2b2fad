package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"sync"
	"time"
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
	Admin   bool      // may manage the models that it may use, and what they are brought from
	Expires time.Time // zero = never

	// What bounds its requests; 0 = no bound.
	RequestsPerMinute int
	TokensPerMinute   int
	TokensPerMonth    int64 // of the calendar, UTC; whoever counts what is used holds it to that
	Concurrent        int

	// Progress is how streams tell that they wait for a model, unless a request asks for another way; "" = not at all.
	Progress string

	models []*regexp.Regexp // nil = all
	use    *use
}

// use is what a key has used.
type use struct {
	mu       sync.Mutex
	requests bucket
	tokens   bucket
	running  int
}

// How streams tell that they wait: by comments, which SDKs pass over, or by a chat's reasoning, which user interfaces show.
const (
	ProgressComments  = "comments"
	ProgressReasoning = "reasoning"
)

// Uses is what keys have used, by their names. It outlives the files that they are in.
type Uses struct {
	mu     sync.Mutex
	byName map[string]*use
}

// NewUses returns what keys have used that were not used yet.
func NewUses() *Uses { return &Uses{byName: map[string]*use{}} }

func (u *Uses) of(name string) *use {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byName[name] == nil {
		u.byName[name] = new(use)
	}
	return u.byName[name]
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

// Begin takes a request's share of the bounds. Unless it refuses, [Key.End] is to be called when the request has ended. How many
// tokens a request takes is known in the end only: it may begin as long as there is one left.
func (k *Key) Begin(now time.Time) *Refusal {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	if k.Concurrent > 0 && k.use.running >= k.Concurrent {
		return &Refusal{Why: "concurrent requests"}
	}
	if wait := k.use.requests.wait(now, k.RequestsPerMinute); wait > 0 {
		return &Refusal{Why: "requests per minute", Retry: wait}
	}
	if wait := k.use.tokens.wait(now, k.TokensPerMinute); wait > 0 {
		return &Refusal{Why: "tokens per minute", Retry: wait}
	}
	k.use.requests.level--
	k.use.running++
	return nil
}

// End gives back what Begin took of the concurrent requests.
func (k *Key) End() {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	k.use.running--
}

// Took takes the tokens that a request has used off those per minute.
func (k *Key) Took(now time.Time, tokens int) {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	k.use.tokens.now(now, k.TokensPerMinute)
	k.use.tokens.level -= float64(tokens)
}

// Left is what is left of a bound a minute.
type Left struct {
	Limit     int           // 0 = there is no bound
	Remaining int           // that may be used at once
	Reset     time.Duration // until Remaining is Limit
}

// Left returns what is left of the requests and of the tokens.
func (k *Key) Left(now time.Time) (requests, tokens Left) {
	k.use.mu.Lock()
	defer k.use.mu.Unlock()
	return k.use.requests.left(now, k.RequestsPerMinute), k.use.tokens.left(now, k.TokensPerMinute)
}
