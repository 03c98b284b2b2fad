// Package remote keeps what is known of other OpenAI-compatible servers: which models they have, how they do, and which one is best asked next.
package remote

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"assistant/internal/upstream"
)

// Config is a server as it is configured.
type Config struct {
	Name           string   `json:"name,omitempty"`            // before a slash and a model's name it means this server's; default: the URL's host
	URL            string   `json:"url"`                       // of its API, with /v1 or without
	APIKey         string   `json:"api_key,omitempty"`         // default: none is sent
	Models         []string `json:"models,omitempty"`          // default: what its list says
	Weight         int      `json:"weight,omitempty"`          // its share of requests among equals; default: 1
	MaxConcurrency int      `json:"max_concurrency,omitempty"` // requests at a time; default: no bound
}

// HopsHeader tells a server that a request comes from another Assistant, which has chosen it: such a request is not sent on, so that no loop can be.
const HopsHeader = "X-Assistant-Hops"

// The circuit breaker: after so many failures in a row nobody is sent there for a while, which doubles with each further failure; then one request
// tries whether it is well again.
const (
	breakAfter = 2
	firstBreak = time.Second
	lastBreak  = 30 * time.Second
)

// Outcome is what becomes of a request that a server was given.
type Outcome int

// Outcomes.
const (
	Answered Outcome = iota // it answered, whatever
	Busy                    // it said that it has no room (429, 503 with Retry-After): it is well
	Failed                  // it could not be reached, did not answer, or said that it can't (500 to 504)
	Left                    // the client left: that tells nothing
)

// String is the outcome as metrics have it.
func (o Outcome) String() string { return [...]string{"answered", "busy", "failed", "left"}[o] }

// Server is one of them.
type Server struct {
	Config
	Transport *upstream.Std

	mu          sync.Mutex
	models      []string // as its list says
	outstanding int
	failures    int       // in a row
	open        time.Time // nobody is sent there before; zero = it is well
	trying      bool      // one tries whether it is well again
	first       time.Duration
	lost        context.Context // ends when it is found to be gone, and with it what waits for it
	lose        context.CancelCauseFunc
}

// ErrGone is why what waited for a server ends that does not even answer small questions any more.
var ErrGone = errors.New("the server does not answer any more")

func newServer(c Config) (*Server, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	c.Name, c.Weight = cmp.Or(c.Name, u.Host), max(c.Weight, 1)
	header := http.Header{HopsHeader: {"1"}, "Authorization": nil, "X-Api-Key": nil, "Api-Key": nil}
	if c.APIKey != "" {
		header.Set("Authorization", "Bearer "+c.APIKey)
	}
	s := &Server{Config: c, Transport: upstream.NewRemote(u, header)}
	s.lost, s.lose = context.WithCancelCause(context.Background())
	return s, nil
}

// list is which models it has.
func (s *Server) list() []string {
	if len(s.Models) > 0 {
		return s.Models
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.models
}

func (s *Server) has(model string) bool { return slices.Contains(s.list(), model) }

// fitness orders servers: what is well and has room, the least busy by its weight, then the quickest.
type fitness struct {
	well  bool
	load  float64
	first time.Duration
	open  time.Time
}

func (s *Server) fitness(now time.Time) (f fitness, room bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	well := s.open.IsZero() || !now.Before(s.open) && !s.trying
	f = fitness{well, float64(s.outstanding) / float64(s.Weight), s.first, s.open}
	return f, s.MaxConcurrency == 0 || s.outstanding < s.MaxConcurrency
}

func (f fitness) compare(o fitness) int {
	switch {
	case f.well != o.well && f.well:
		return -1
	case f.well != o.well:
		return 1
	case !f.well:
		return f.open.Compare(o.open)
	}
	return cmp.Or(cmp.Compare(f.load, o.load), cmp.Compare(f.first, o.first))
}

// take reserves it for a request. It reports false if somebody else took its last room meanwhile.
func (s *Server) take() (*Turn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.MaxConcurrency > 0 && s.outstanding >= s.MaxConcurrency {
		return nil, false
	}
	s.outstanding++
	trial := !s.open.IsZero()
	s.trying = s.trying || trial
	return &Turn{Server: s, Lost: s.lost, began: time.Now(), trial: trial}, true
}

// Turn is a request's hold on a server.
type Turn struct {
	*Server
	Lost context.Context // ends when the server is found to be gone

	began time.Time
	first time.Duration // to the first byte; 0 = none came
	trial bool          // of whether the server is well again
	done  bool
}

// Heard notes that the answer begins.
func (t *Turn) Heard() {
	if t.first == 0 {
		t.first = time.Since(t.began)
	}
}

// End gives the server back, and notes how it did.
func (t *Turn) End(o Outcome) {
	if t.done {
		return
	}
	t.done = true
	s := t.Server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outstanding--
	if t.trial {
		s.trying = false
	}
	switch o {
	case Answered:
		s.failures, s.open = 0, time.Time{}
		if t.first > 0 {
			s.first = average(s.first, t.first)
		}
	case Busy:
		s.failures, s.open = 0, time.Time{}
	case Failed:
		s.failed(time.Now())
	case Left:
	}
}

// average moves an average towards what was measured last, by a fifth.
func average(before, now time.Duration) time.Duration {
	if before == 0 {
		return now
	}
	const part = 5
	return before + (now-before)/part
}

// failed notes a failure. The lock is held.
func (s *Server) failed(now time.Time) {
	s.failures++
	if s.failures >= breakAfter {
		s.open = now.Add(min(firstBreak<<min(s.failures-breakAfter, 10), lastBreak))
	}
}

// gone ends what waits for the server, and has nobody be sent there for a while.
func (s *Server) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = max(s.failures, breakAfter-1)
	s.failed(time.Now())
	s.lose(ErrGone)
	s.lost, s.lose = context.WithCancelCause(context.Background())
	s.Transport.CloseIdle()
}

// well notes that it answers small questions.
func (s *Server) well(models []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models = models
	if !s.open.IsZero() {
		s.open = time.Now() // one request may try at once
	}
}

func (s *Server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outstanding > 0
}

// Status is how a server stands.
type Status struct {
	Name        string   `json:"name"`
	URL         string   `json:"url"`
	State       string   `json:"state"` // closed (it is well), open (nobody is sent there) or half-open (one tries)
	Models      []string `json:"models"`
	Outstanding int      `json:"outstanding"`
	Failures    int      `json:"failures"`      // in a row
	FirstByteMS float64  `json:"first_byte_ms"` // of late; 0 = not known
}

func (s *Server) status(now time.Time) Status {
	models := s.list()
	s.mu.Lock()
	defer s.mu.Unlock()
	state := "closed"
	switch {
	case s.open.IsZero():
	case s.trying || !now.Before(s.open):
		state = "half-open"
	default:
		state = "open"
	}
	const ms = 1e6
	return Status{s.Name, s.URL, state, slices.Clone(models), s.outstanding, s.failures, float64(s.first) / ms}
}
