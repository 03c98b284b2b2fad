package contexts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Saved is what an engine has saved.
type Saved struct {
	Contexts int
	Tokens   int
	Bytes    int64
}

// Save has the engine save its idle slots, those of most tokens first, and takes over the files. What it has not
// saved when ctx ends is lost; the error then says so. It returns when the engine is no longer needed: the files are
// checked and made durable in the background, which Restore and Close wait for.
//
// Call it when the instance takes no more requests, before it is told to stop. served may be nil.
func (s *Store) Save(ctx context.Context, at Endpoint, id Identity, served *Served) (Saved, error) {
	room := s.room()
	if room <= 0 {
		return Saved{}, nil
	}
	engine := newClient(at)
	slots, err := engine.slots(ctx)
	if err != nil {
		return Saved{}, fmt.Errorf("save contexts: %w", err)
	}
	slots = slices.DeleteFunc(slots, func(sl slot) bool { return !sl.full() })
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(tokensOf(b), tokensOf(a)) })

	j := &job{id: id, done: make(chan struct{})}
	j.conversations, j.cost = served.snapshot()
	defer s.begin(j)
	var done Saved
	for _, sl := range slots {
		if estimate := s.estimate(id, tokensOf(sl)); estimate > room {
			s.count.dropped[OverBudget].Add(1)
			continue
		}
		f, err := s.saveSlot(ctx, engine, at.Dir, sl.ID)
		if err != nil {
			return done, fmt.Errorf("save contexts: slot %d: %w", sl.ID, err)
		}
		if f.tokens < block {
			os.Remove(f.path)
			continue
		}
		j.files = append(j.files, f)
		room -= f.size
		done.Contexts++
		done.Tokens += f.tokens
		done.Bytes += f.size
	}
	return done, nil
}

func tokensOf(sl slot) int {
	if sl.Tokens == nil {
		return 0
	}
	return *sl.Tokens
}

// room is the budget: what is kept already gives way to what is worth more.
func (s *Store) room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget
}

// estimate is how long a file of so many tokens will be, by those of the same engines before; 0 = nobody knows.
func (s *Store) estimate(id Identity, tokens int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.density[id] * float64(tokens))
}

// incoming is a file that an engine has saved.
type incoming struct {
	path   string
	tokens int
	size   int64
}

// saveSlot has a slot saved and moves the file out of the instance's directory, which may be removed from then on.
func (s *Store) saveSlot(ctx context.Context, engine *client, dir string, slot int) (incoming, error) {
	s.mu.Lock()
	s.number++
	name := strconv.Itoa(s.number) + stateExt
	s.mu.Unlock()
	tokens, size, err := engine.save(ctx, slot, name)
	if err != nil {
		os.Remove(filepath.Join(dir, name))
		return incoming{}, err
	}
	f := incoming{s.path(incomingDir, name), tokens, size}
	return f, os.Rename(filepath.Join(dir, name), f.path)
}

// job is what is left to do about files that an engine has saved.
type job struct {
	id            Identity
	conversations []uint64
	cost          time.Duration
	files         []incoming
	done          chan struct{}
}

// begin finishes a job in the background.
func (s *Store) begin(j *job) {
	if len(j.files) == 0 {
		return
	}
	s.mu.Lock()
	s.work[j] = struct{}{}
	s.mu.Unlock()
	go func() {
		s.finishing.Lock()
		for _, f := range j.files {
			if err := s.finish(j, f); err != nil {
				s.log.Warn("context not kept", "error", err)
				os.Remove(f.path)
			}
		}
		s.finishing.Unlock()
		s.mu.Lock()
		delete(s.work, j)
		s.mu.Unlock()
		close(j.done)
	}()
}

// settle waits for the jobs that are.
func (s *Store) settle(ctx context.Context, is func(*job) bool) error {
	s.mu.Lock()
	var jobs []*job
	for j := range s.work {
		if is(j) {
			jobs = append(jobs, j)
		}
	}
	s.mu.Unlock()
	for _, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// finish checks a file, finds out what it holds, makes it durable and keeps it.
func (s *Store) finish(j *job, f incoming) error {
	tokens, err := readTokens(f.path, f.tokens)
	if err != nil {
		s.count.dropped[Foreign].Add(1)
		return err
	}
	size, sum, err := checksum(context.Background(), f.path)
	if err != nil {
		return err
	}
	if size != f.size {
		s.count.dropped[Damaged].Add(1)
		return fmt.Errorf("the engine wrote %d bytes, %d are there", f.size, size)
	}
	row := rowOf(tokens)
	now := time.Now()
	e := &entry{
		Version: sidecarVersion, Identity: j.id, prefix: row.prefix, Size: size, Sum: sum,
		Conversations: j.conversations, Cost: j.cost, Saved: now, used: now,
		name: fmt.Sprintf("%.8s%.8s%.8s-%016x", j.id.Model, j.id.Args, j.id.Build, row.prefix.Whole),
	}
	s.mu.Lock()
	s.density[j.id] = float64(size) / float64(len(tokens))
	s.supersede(row, e)
	s.mu.Unlock()
	if err := s.put(e, f.path); err != nil {
		return errors.Join(err, ignoreAbsent(os.Remove(s.path(keptDir, e.name+stateExt))))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[e.name] = e
	s.bytes += e.bytes()
	s.count.saved.Add(1)
	s.fit()
	return nil
}

// supersede drops those that e, whose tokens are row, begins with or is equal to. Their conversations go on in it.
// s.mu is held.
func (s *Store) supersede(row row, e *entry) {
	for _, old := range s.entries {
		if old.name == e.name || old.Identity == e.Identity && row.begins(old.prefix) {
			e.adopt(old.Conversations)
			s.drop(old, Superseded)
		}
	}
}

// adopt adds conversations, as far as there is room.
func (e *entry) adopt(conversations []uint64) {
	for _, c := range conversations {
		if len(e.Conversations) < maxServed && !slices.Contains(e.Conversations, c) {
			e.Conversations = append(slices.Clip(e.Conversations), c)
		}
	}
}

// put moves a file to where contexts are kept and writes its sidecar, which is last: what lacks it is removed by Open.
// Both are synced before they get their names, so that not even a loss of power leaves half of one under a name;
// Restore would find that out, but only when somebody waits.
func (s *Store) put(e *entry, file string) error {
	if err := makeDurable(file); err != nil {
		return err
	}
	text, err := e.encode()
	if err != nil {
		return err
	}
	e.sidecar = int64(len(text))
	temporary := file + sidecarExt
	defer os.Remove(temporary) // unless it was renamed
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	if err := makeDurable(temporary); err != nil {
		return err
	}
	if err := os.Rename(file, s.path(keptDir, e.name+stateExt)); err != nil {
		return err
	}
	return os.Rename(temporary, s.path(keptDir, e.name+sidecarExt))
}

// makeDurable makes a file ours alone and durable.
func makeDurable(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(f.Chmod(0o600), f.Sync())
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
