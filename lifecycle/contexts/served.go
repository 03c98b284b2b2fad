package contexts

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// maxServed bounds the conversations that are remembered of an instance; of more, those idle longest are forgotten.
const maxServed = 256

// Served is what an instance has done so far: which conversations it served, and how fast it is. The zero value is
// ready; it is safe for concurrent use.
type Served struct {
	mu       sync.Mutex
	keys     map[uint64]uint64 // conversation → number of its latest request
	requests uint64
	computed int // tokens of prompts
	took     time.Duration
}

// Note takes note of a request of a conversation (openai.ConversationKey; 0 = none) and says whether it is the
// conversation's first here, so that it may have been left in a file by an earlier instance.
func (s *Served) Note(conversation uint64) (first bool) {
	if conversation == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[uint64]uint64{}
	}
	_, known := s.keys[conversation]
	s.requests++
	s.keys[conversation] = s.requests
	if len(s.keys) > maxServed {
		s.forgetOldest()
	}
	return !known
}

func (s *Served) forgetOldest() {
	oldest, at := uint64(0), s.requests+1
	for key, n := range s.keys {
		if n < at {
			oldest, at = key, n
		}
	}
	delete(s.keys, oldest)
}

// Computed takes note of what the engine said about a prompt (openai.Reuse): the tokens computed, and how long that took.
func (s *Served) Computed(tokens int, took time.Duration) {
	if tokens <= 0 || took <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.computed += tokens
	s.took += took
}

// defaultCost is taken for the time that a token of a prompt costs while nobody has measured it.
const defaultCost = time.Millisecond

// snapshot returns the conversations, in no order, and the time that a token of a prompt costs.
func (s *Served) snapshot() (conversations []uint64, cost time.Duration) {
	if s == nil {
		return nil, defaultCost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cost = defaultCost; s.computed > 0 {
		cost = max(1, s.took/time.Duration(s.computed))
	}
	return slices.Collect(maps.Keys(s.keys)), cost
}
