package lifecycle

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"assistant/lifecycle/contexts"
)

// restoreWithin bounds how long a ready engine is kept from the requests that wait for it while their contexts are restored:
// measured, 6,000 tokens take 20 ms and the look-up of their request 40.
const restoreWithin = 5 * time.Second

// Waiting is a request that waits for an instance's model.
type Waiting struct {
	contexts.Request
	Conversation uint64
}

// KeepContexts has the contexts of stopping instances kept on disk, in so many bytes; 0 = none. It may be called again.
func (r *Runner) KeepContexts(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.contexts != nil {
		r.contexts.SetBudget(bytes)
		return
	}
	if bytes <= 0 {
		return
	}
	store, err := contexts.Open(filepath.Join(r.stateDir, "contexts"), bytes, r.log)
	if err != nil {
		r.log.Error("contexts are not kept", "error", err)
		return
	}
	r.contexts = store
}

// Contexts tells what is kept; false if nothing can be.
func (r *Runner) Contexts() (contexts.Stats, bool) {
	if store := r.store(); store != nil {
		return store.Stats(), true
	}
	return contexts.Stats{}, false
}

func (r *Runner) store() *contexts.Store {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contexts
}

// kept is an instance's part in the keeping of contexts.
type kept struct {
	store  *contexts.Store
	at     contexts.Endpoint
	served contexts.Served

	known    chan struct{} // closed when identity is known, or can't be
	identity contexts.Identity
	err      error

	mu       sync.Mutex
	restored map[uint64]contexts.Restored // by conversation; until its first answer tells whether it was of use
}

// keep prepares the instance for its contexts' keeping, if its model asks for that.
func (s *start) keep() {
	store := s.runner.store()
	if store == nil || !s.kind.KeepsContexts(s.model) {
		return
	}
	dir, err := store.Place()
	if err != nil {
		s.log.Warn("contexts of this instance are not kept", "error", err)
		return
	}
	s.place.ContextDir = dir
	s.kept = &kept{store: store, known: make(chan struct{}), restored: map[uint64]contexts.Restored{}}
}

// leave removes what the instance has on disk for its contexts.
func (s *start) leave() {
	if s.kept != nil {
		s.kept.store.Leave(s.place.ContextDir)
		s.kept = nil
	}
}

// identify finds out, while the engine loads, whose files it understands.
func (s *start) identify(ctx context.Context) {
	k := s.kept
	if k == nil {
		return
	}
	launch := contexts.Launch{Argv: s.plan.Argv, Env: s.plan.Env, ModelPath: s.model.ModelPath}
	go func() {
		defer close(k.known)
		k.identity, k.err = k.store.Identify(ctx, launch)
	}()
}

// giveBack restores what those who wait go on with, between the engine's readiness and its first request.
func (s *start) giveBack(ctx context.Context, run *Running) {
	k := s.kept
	if k == nil {
		return
	}
	select {
	case <-k.known:
	case <-ctx.Done():
		return
	}
	if k.err != nil {
		s.log.Warn("contexts of this instance are not kept", "error", k.err)
		return
	}
	k.at = contexts.Endpoint{Network: run.Network, Address: run.Address, Dir: s.place.ContextDir}
	run.kept, run.KeepsContexts = k, true
	if !k.store.Offers(k.identity, 0) {
		return
	}
	waiting := s.to.Waiting(s.in, max(1, run.Slots))
	requests := make([]contexts.Request, len(waiting))
	for i, w := range waiting {
		requests[i] = w.Request
	}
	ctx, cancel := context.WithTimeout(ctx, restoreWithin)
	defer cancel()
	restored, err := k.store.Restore(ctx, k.at, k.identity, requests)
	if err != nil {
		s.log.Warn("contexts not restored", "error", err)
	}
	for _, r := range restored {
		k.restored[waiting[r.Request].Conversation] = r
		s.log.Info("context restored", "tokens", r.Tokens, "reused", r.Common)
	}
}

// Save begins to save the contexts of an instance that has no leases; see the activator's Runner.
func (r *Runner) Save(in *Instance, attempt int, by time.Time, to Reporter) {
	k, log := in.Running.kept, r.log.With("model", in.Model.Name, "instance", in.ID())
	go func() {
		defer to.Saved(in, attempt)
		ctx, cancel := context.WithDeadline(context.Background(), by)
		defer cancel()
		saved, err := k.store.Save(ctx, k.at, k.identity, &k.served)
		switch {
		case err != nil:
			log.Warn("contexts not saved", "error", err)
		case saved.Contexts > 0:
			log.Info("contexts saved", "contexts", saved.Contexts, "tokens", saved.Tokens, "bytes", saved.Bytes)
		}
	}()
}

// Began notes that a request of a conversation goes to the instance; 0 = it has none.
func (r *Running) Began(conversation uint64) {
	if r.kept != nil {
		r.kept.served.Note(conversation)
	}
}

// Reused notes what the engine said of a request's prompt: tokens that it had computed before, tokens computed for it, and how
// long that took. said is false if it did not say. It reports whether a context that was restored for the conversation was of
// use, if there was one.
func (r *Running) Reused(conversation uint64, cached, computed int, took time.Duration, said bool) (use, wasRestored bool) {
	k := r.kept
	if k == nil {
		return false, false
	}
	if said {
		k.served.Computed(computed, took)
	}
	k.mu.Lock()
	restored, wasRestored := k.restored[conversation]
	delete(k.restored, conversation)
	k.mu.Unlock()
	if !wasRestored || !said {
		return false, false
	}
	return k.store.Verify(restored, cached), true
}
