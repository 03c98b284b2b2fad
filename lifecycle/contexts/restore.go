package contexts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Restored is a context that an engine has been given back.
type Restored struct {
	Request int    // index of the request it is for, among those that waited
	Slot    int    // of the engine
	Tokens  int    // that it holds
	Common  int    // of these, what the request begins with: what the engine is to reuse
	File    string // its name in the store
	entry   *entry
}

// Restore gives a ready engine what it needs for the requests that wait for it, in their order, as far as it has empty
// slots and the store has something worth the while. The requests it returns must be the engine's next ones. It asks
// the engine for each request's tokens (6,000 tokens: 40 ms), and only if there is something of its identity at all.
//
// The error is about the engine or ctx; what was restored before it counts. A request of which nothing is kept is no
// error, nor is a file that turns out bad: that is dropped.
func (s *Store) Restore(ctx context.Context, at Endpoint, id Identity, waiting []Request) ([]Restored, error) {
	if err := s.settle(ctx, func(j *job) bool { return j.id == id }); err != nil {
		return nil, fmt.Errorf("restore contexts: %w", err)
	}
	if !s.Offers(id, 0) {
		return nil, nil
	}
	engine := newClient(at)
	slots, err := engine.slots(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore contexts: %w", err)
	}
	slots = slices.DeleteFunc(slots, func(sl slot) bool { return !sl.empty() })
	var done []Restored
	for i, r := range waiting {
		if len(slots) == 0 {
			break
		}
		found, err := s.restoreFor(ctx, engine, at.Dir, id, slots[0].ID, r, done)
		if err != nil {
			return done, fmt.Errorf("restore contexts: %w", err)
		}
		if found.entry != nil {
			found.Request = i
			done = append(done, found)
			slots = slots[1:]
		}
	}
	return done, nil
}

// restoreFor fills a slot with the best that there is for a request, and with the next best if that is bad. It returns
// the zero value if there is none. taken are in other slots already.
func (s *Store) restoreFor(ctx context.Context, engine *client, dir string, id Identity, slot int, r Request, taken []Restored) (Restored, error) {
	tokens, err := engine.tokens(ctx, r)
	var refused *refusal
	if errors.As(err, &refused) || errors.Is(err, errNoLookup) {
		return Restored{}, nil // the request is not one for a file, or not a good one; the engine will say so itself
	}
	if err != nil {
		return Restored{}, err
	}
	row := rowOf(tokens)
	for {
		e, common := s.best(id, row, taken)
		if e == nil {
			return Restored{}, nil
		}
		why, err := s.give(ctx, engine, dir, slot, e)
		if err == nil {
			s.count.restored.Add(1)
			return Restored{Slot: slot, Tokens: e.Tokens, Common: common, File: e.name, entry: e}, nil
		}
		if ctx.Err() != nil {
			return Restored{}, err
		}
		s.log.Warn("context not restored", "file", e.name, "error", err)
		s.mu.Lock()
		s.drop(e, why)
		s.mu.Unlock()
		if why == Refused && !errors.As(err, &refused) {
			return Restored{}, err // it did not answer: it may be gone
		}
	}
}

// best returns the entry that has most in common with row, if that is worth the while, and how much that is. Of equal
// ones it is the one used last.
func (s *Store) best(id Identity, row row, taken []Restored) (best *entry, common int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.Identity != id || slices.ContainsFunc(taken, func(r Restored) bool { return r.entry == e }) {
			continue
		}
		n := row.common(e.prefix)
		if n > common || n == common && best != nil && e.used.After(best.used) {
			if e.worthwhile(n) {
				best, common = e, n
			}
		}
	}
	return best, common
}

// give checks an entry's file and has the engine take it. If that fails, the reason says what is wrong with the file.
func (s *Store) give(ctx context.Context, engine *client, dir string, slot int, e *entry) (Reason, error) {
	file := s.path(keptDir, e.name+stateExt)
	size, sum, err := checksum(ctx, file)
	if err != nil {
		return Damaged, err
	}
	if size != e.Size || sum != e.Sum {
		return Damaged, fmt.Errorf("length %d and checksum %x, should be %d and %x", size, sum, e.Size, e.Sum)
	}
	name := e.name + stateExt
	link := filepath.Join(dir, name)
	if err := linkOrCopy(file, link); err != nil {
		return Damaged, err
	}
	defer os.Remove(link)
	tokens, read, err := engine.restore(ctx, slot, name)
	if err != nil {
		return Refused, err
	}
	if tokens != e.Tokens || read != e.Size {
		return Refused, fmt.Errorf("the engine took %d tokens and %d bytes of %d and %d", tokens, read, e.Tokens, e.Size)
	}
	return 0, nil
}

// linkOrCopy makes a file appear in a second place. Both are in the store, so it is a copy only on file systems
// without hard links.
func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Verify is told how many tokens of its prompt the engine reused for the request that r was restored for
// (openai.Reuse.Cached; 0 too if the engine was reached and did not say). A context that was of no use is dropped if it
// should have been of use as a whole; of one that was to be used in part it is remembered that the engine can't.
// It reports whether r was of use.
func (s *Store) Verify(r Restored, cached int) bool {
	if r.entry == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if 2*cached >= r.Common {
		s.count.hits.Add(1)
		s.touch(r.entry)
		return true
	}
	s.count.misses.Add(1)
	if r.entry.mostly(r.Common) {
		s.log.Warn("context of no use", "file", r.File, "tokens", r.Tokens, "expected", r.Common, "reused", cached)
		s.drop(r.entry, Unused)
	} else {
		r.entry.wholeOnly = true
	}
	return false
}

// touch notes that an entry was of use. s.mu is held.
func (s *Store) touch(e *entry) {
	if s.entries[e.name] != e {
		return
	}
	e.used = time.Now()
	if err := os.Chtimes(s.path(keptDir, e.name+sidecarExt), e.used, e.used); err != nil {
		s.log.Debug("time of a context's use not noted", "error", err)
	}
}
