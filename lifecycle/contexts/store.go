package contexts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// What is in a store's directory.
const (
	keptDir     = "kept"      // the contexts
	incomingDir = "incoming"  // saved, not yet checked
	placesDir   = "instances" // the instances' own, for --slot-save-path
)

// Store keeps contexts on disk. It is safe for concurrent use by one process: two must not have the same directory.
type Store struct {
	log   *slog.Logger
	dir   string
	ids   identities
	count counters

	mu      sync.Mutex
	budget  int64
	entries map[string]*entry // by name
	bytes   int64             // of them
	density map[Identity]float64
	work    map[*job]struct{} // being finished
	number  int               // of the latest incoming file

	finishing sync.Mutex // one at a time: they are the disk's work
}

// Open opens the store in dir, which it makes (mode 0700), and drops what is damaged, old, half written or too much.
// The budget is in bytes of all files together; 0 = keep nothing. Nothing in dir may be in use.
func Open(dir string, budget int64, log *slog.Logger) (*Store, error) {
	s := &Store{
		log: log, dir: dir, budget: budget,
		entries: map[string]*entry{}, density: map[Identity]float64{}, work: map[*job]struct{}{},
	}
	for _, leftover := range []string{incomingDir, placesDir} {
		if err := os.RemoveAll(s.path(leftover)); err != nil {
			return nil, fmt.Errorf("contexts: %w", err)
		}
	}
	for _, d := range []string{"", keptDir, incomingDir, placesDir} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("contexts: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		return nil, fmt.Errorf("contexts: %w", err)
	}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fit()
	return s, nil
}

// path is that of something in the store.
func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// read makes the index of the sidecars. What is not of a whole entry is removed.
func (s *Store) read() error {
	files, err := os.ReadDir(s.path(keptDir))
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), sidecarExt) {
			continue
		}
		e, err := load(s.path(keptDir, f.Name()))
		if err != nil {
			s.log.Warn("context dropped", "file", f.Name(), "reason", Damaged.String(), "error", err)
			s.count.dropped[Damaged].Add(1)
			continue
		}
		s.entries[e.name] = e
		s.bytes += e.bytes()
		ours[e.name+stateExt], ours[e.name+sidecarExt] = true, true
	}
	for _, f := range files {
		if !ours[f.Name()] {
			if err := os.RemoveAll(s.path(keptDir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetBudget changes the budget, in bytes, and drops what is beyond it.
func (s *Store) SetBudget(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget = bytes
	s.fit()
}

// fit drops what is old, and what is worth least until the rest is within the budget. s.mu is held.
func (s *Store) fit() {
	now := time.Now()
	for _, e := range s.entries {
		if e.old(now) {
			s.drop(e, Old)
		}
	}
	reason := OverBudget
	if s.budget <= 0 {
		reason = Forgotten
	}
	for s.bytes > max(0, s.budget) {
		var least *entry
		for _, e := range s.entries {
			if least == nil || e.value(now) < least.value(now) {
				least = e
			}
		}
		s.drop(least, reason)
	}
}

// drop removes an entry, if it is still there. s.mu is held.
func (s *Store) drop(e *entry, why Reason) {
	if s.entries[e.name] != e {
		return
	}
	delete(s.entries, e.name)
	s.bytes -= e.bytes()
	s.count.dropped[why].Add(1)
	err := errors.Join(os.Remove(s.path(keptDir, e.name+sidecarExt)), os.Remove(s.path(keptDir, e.name+stateExt)))
	level := slog.LevelDebug
	if why == Damaged || why == Refused {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "context dropped", "file", e.name, "reason", why.String(), "tokens", e.Tokens, "error", err)
}

// Forget drops what engines of an identity have saved, as of a model that is no more.
func (s *Store) Forget(id Identity) {
	s.dropWhere(Forgotten, func(e *entry) bool { return e.Identity == id })
}

func (s *Store) dropWhere(why Reason, is func(*entry) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if is(e) {
			s.drop(e, why)
		}
	}
}

// Identify makes the identity of engines that are started so. What other builds of the same engine have saved for the
// same model and arguments is dropped. The first time it takes about 50 ms: do it while the engine loads.
func (s *Store) Identify(ctx context.Context, l Launch) (Identity, error) {
	id, err := s.ids.of(ctx, l)
	if err != nil {
		return id, err
	}
	s.dropWhere(OtherBuild, func(e *entry) bool {
		return e.Identity.Model == id.Model && e.Identity.Args == id.Args && e.Identity.Build != id.Build
	})
	return id, nil
}

// Place makes a directory for an instance: its --slot-save-path. Give it back by Leave when the instance has ended.
func (s *Store) Place() (string, error) {
	return os.MkdirTemp(s.path(placesDir), "")
}

// Leave removes an instance's directory, with what the instance had not finished. "" is nothing to leave.
func (s *Store) Leave(dir string) {
	if dir == "" {
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		s.log.Warn("directory of an instance's contexts stays", "error", err)
	}
}

// Offers says whether there may be a context of the conversation (openai.ConversationKey), or of any if it is 0. It
// is quick, and may be wrong: Restore looks into it.
func (s *Store) Offers(id Identity, conversation uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for j := range s.work {
		if j.id == id && (conversation == 0 || slices.Contains(j.conversations, conversation)) {
			return true
		}
	}
	for _, e := range s.entries {
		if e.Identity == id && (conversation == 0 || slices.Contains(e.Conversations, conversation)) {
			return true
		}
	}
	return false
}

// Close waits until everything saved is on disk.
func (s *Store) Close() {
	_ = s.settle(context.Background(), func(*job) bool { return true }) // it ends only when all is done
}
