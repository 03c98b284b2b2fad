package contexts

import "sync/atomic"

// Reason says why a context was dropped, or not kept.
type Reason int

// The reasons there are.
const (
	Damaged    Reason = iota // length, checksum or record wrong
	Foreign                  // of a format that we can't read
	OtherBuild               // of another build of the engine
	Refused                  // the engine would not have it, or ended over it
	Unused                   // the engine had it and made no use of it
	Superseded               // a newer one begins with it
	OverBudget               // worth least when the budget was used up
	Old                      // nobody came back for a week
	Forgotten                // by Forget, or a budget of nothing
	reasons                  // how many there are
)

func (r Reason) String() string {
	return [reasons]string{"damaged", "foreign", "other_build", "refused", "unused", "superseded", "over_budget", "old", "forgotten"}[r]
}

// Stats are what a store holds and has done since it was opened.
type Stats struct {
	Files    int   // contexts kept
	Bytes    int64 // on disk
	Saved    uint64
	Restored uint64
	Hits     uint64 // restored and made use of
	Misses   uint64 // restored in vain
	Dropped  map[Reason]uint64
}

// counters are the part of Stats that only grows.
type counters struct {
	saved, restored, hits, misses atomic.Uint64
	dropped                       [reasons]atomic.Uint64
}

// Stats returns how things are now. Every reason is in Dropped.
func (s *Store) Stats() Stats {
	st := Stats{
		Saved: s.count.saved.Load(), Restored: s.count.restored.Load(),
		Hits: s.count.hits.Load(), Misses: s.count.misses.Load(), Dropped: map[Reason]uint64{},
	}
	for r := range reasons {
		st.Dropped[r] = s.count.dropped[r].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Files, st.Bytes = len(s.entries), s.bytes
	return st
}
