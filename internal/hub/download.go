package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"assistant/internal/hub/source"
	"assistant/internal/hub/transfer"
)

// Why the work on a download ended before it was done.
var (
	errPaused    = errors.New("paused")
	errCancelled = errors.New("cancelled")
)

// The pause after a failure before whoever needs the model makes it be tried again: doubled with each failure in a row. As that of engines that
// fail (DESIGN §5, 10).
const (
	firstPause = 10 * time.Second
	lastPause  = 5 * time.Minute
)

// download is the work on one source.
type download struct {
	m   *Manager
	src string // canonical

	mu       sync.Mutex
	status   Status
	changed  chan struct{}           // closed at a change
	cancel   context.CancelCauseFunc // of what goes on; nil = nothing does
	ended    chan struct{}           // closed when what went on last has ended
	as       []string                // names to install it as
	failures int                     // in a row
	retry    time.Time               // before it a failed one is not tried again unless somebody says so
	speed    speed
}

func newDownload(m *Manager, src string) *download {
	return &download{
		m: m, src: src, changed: make(chan struct{}),
		status: Status{ID: id(src), Source: src, State: Resolving, Total: -1, Started: time.Now()},
	}
}

// Over reports whether nothing goes on any more.
func (s Status) Over() bool {
	return s.State != Resolving && s.State != Downloading && s.State != Verifying
}

// Remaining is how long the download will take, by how fast it was of late; 0 = not known.
func (s Status) Remaining() time.Duration {
	if s.Total <= 0 || s.BytesPerSec < 1 {
		return 0
	}
	return time.Duration(float64(s.Total-s.Done) / s.BytesPerSec * float64(time.Second))
}

func (d *download) now() Status {
	s, _ := d.watch()
	return s
}

// watch returns how it stands, and what is closed when that changes.
func (d *download) watch() (Status, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	s.Files, s.As = slices.Clone(s.Files), slices.Clone(d.as)
	return s, d.changed
}

// change changes the status and tells who watches.
func (d *download) change(f func(*Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.status)
	d.tell()
}

// tell wakes who watches. The lock is held.
func (d *download) tell() {
	close(d.changed)
	d.changed = make(chan struct{})
	d.m.tell()
}

// name adds a name that the model is to be installed as.
func (d *download) name(as string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if as != "" && !slices.Contains(d.as, as) {
		d.as = append(d.as, as)
	}
}

// wanted reports whether somebody who needs the model makes it be brought.
func (d *download) wanted(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.status.State {
	case Paused:
		return false
	case Failed:
		return !now.Before(d.retry)
	case Completed:
		_, there := d.m.store.model(d.src)
		return !there
	case Resolving, Downloading, Verifying, Cancelled:
	}
	return d.cancel == nil
}

// RetryAfter is how long until a failed download is tried again for who needs the model; 0 = at once.
func (m *Manager) RetryAfter(id string) time.Duration {
	d, err := m.find(id)
	if err != nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, time.Until(d.retry))
}

// start begins the work, unless it goes on.
func (d *download) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(d.m.ctx)
	before := d.ended
	ended := make(chan struct{})
	d.cancel, d.ended = cancel, ended
	d.status.State, d.status.Error, d.status.Ended, d.status.Started = Resolving, "", time.Time{}, time.Now()
	d.tell()
	d.m.runs.Go(func() {
		defer close(ended)
		if before != nil {
			<-before // what was halted may still be giving back its files
		}
		d.run(ctx)
		cancel(nil)
	})
}

// halt ends the work and waits until it has.
func (d *download) halt(why error) (Status, error) {
	d.mu.Lock()
	cancel, ended, state := d.cancel, d.ended, d.status.State
	d.mu.Unlock()
	switch {
	case cancel != nil:
		cancel(why)
		<-ended
	case errors.Is(why, errCancelled) && (state == Paused || state == Failed):
		d.finish(why)
	case state == Paused && errors.Is(why, errPaused), state == Cancelled && errors.Is(why, errCancelled):
	default:
		return d.now(), fmt.Errorf("the download of %s is %s: %w", d.src, state, ErrEnded)
	}
	return d.now(), nil
}

// run does the work.
func (d *download) run(ctx context.Context) {
	err := d.m.store.setJob(job{Source: d.src, As: d.now().As, State: Downloading})
	if err == nil {
		err = d.bring(ctx)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	d.finish(err)
}

// finish notes how the work ended.
func (d *download) finish(err error) {
	state, text := Completed, ""
	switch {
	case err == nil:
	case errors.Is(err, errPaused):
		state = Paused
	case errors.Is(err, errCancelled):
		state = Cancelled
		if bad := d.discard(); bad != nil {
			d.m.Log.Warn("could not remove what a cancelled download left", "source", d.src, "error", bad)
		}
	case errors.Is(err, ErrClosed):
		state = Downloading // for the next manager
	default:
		state, text = Failed, err.Error()
		d.m.Log.Warn("could not bring a model", "source", d.src, "error", err)
	}
	if state == Completed || state == Cancelled {
		if bad := d.m.store.removeJob(d.src); bad != nil {
			d.m.Log.Warn("could not remove the note of a download", "source", d.src, "error", bad)
		}
	} else if bad := d.m.store.setJob(job{Source: d.src, As: d.now().As, State: state, Error: text}); bad != nil {
		d.m.Log.Warn("could not note a download", "source", d.src, "error", bad)
	}
	d.change(func(s *Status) {
		d.cancel = nil
		s.State, s.Error, s.Ended, s.BytesPerSec = state, text, time.Now(), 0
		switch state {
		case Failed:
			d.retry = s.Ended.Add(min(firstPause<<min(d.failures, 10), lastPause))
			d.failures++
		case Downloading:
			s.State = Paused // as nobody works at it
		default:
			d.failures, d.retry = 0, time.Time{}
		}
	})
}

// discard removes what was brought so far.
func (d *download) discard() error {
	var err error
	for _, f := range d.now().Files {
		if f.Path == "" {
			err = errors.Join(err, removeParts(d.m.parts(d.src, &source.File{Name: f.Name, File: transfer.File{SHA256: f.SHA256}})))
		}
	}
	return err
}

// bring finds out what the source stands for, brings what is not here yet, and makes a model of it.
func (d *download) bring(ctx context.Context) error {
	ref, err := source.Parse(d.src)
	if err != nil {
		return err
	}
	plan, err := d.resolve(ctx, ref)
	if err != nil {
		return err
	}
	d.planned(plan)
	d.m.Log.Info("bringing a model", "source", plan.Source, "bytes", plan.Size, "licence", plan.Licence)
	if err := d.room(plan); err != nil {
		return err
	}
	for i := range plan.Files {
		if err := d.bringFile(ctx, i, &plan.Files[i]); err != nil {
			return fmt.Errorf("%s: %s: %w", plan.Source, plan.Files[i].Name, err)
		}
	}
	model, err := d.m.store.install(d.src, plan, d.now().Files)
	if err != nil {
		return err
	}
	return d.m.OnInstalled(model, d.now().As)
}

// resolve finds out what the source stands for, again if a failure is one that may be over soon.
func (d *download) resolve(ctx context.Context, ref source.Ref) (*source.Plan, error) {
	const tries = 4
	for try := range tries {
		plan, err := d.m.Resolver().Resolve(ctx, ref)
		if err == nil || !source.Passing(err) || try == tries-1 {
			return plan, err
		}
		select {
		case <-time.After(time.Second << try):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, context.Cause(ctx) // never: the last try has returned
}

// room checks that the disk has room for all of it, so that the last part of many is not the one that has none.
func (d *download) room(plan *source.Plan) error {
	need := int64(0)
	for i := range plan.Files {
		f := &plan.Files[i]
		_, here := d.m.store.blob(f.SHA256, f.Size)
		if part, err := os.Stat(d.m.parts(d.src, f) + ".part"); here || f.Path != "" || f.Size < 0 || err == nil && part.Size() > 0 {
			continue // what was begun has its own check, which knows how much of it is there
		}
		need += f.Size
	}
	if err := os.MkdirAll(d.m.Dir, 0o700); err != nil {
		return err
	}
	return transfer.Room(d.m.Dir, need)
}

// planned notes what is to be brought.
func (d *download) planned(p *source.Plan) {
	d.change(func(s *Status) {
		s.State, s.Resolved, s.Name, s.Quantization, s.Licence = Downloading, p.Source, p.Name, p.Quantization, p.Licence
		s.Total = max(p.Size, -1)
		s.Files = make([]FileStatus, len(p.Files))
		for i := range p.Files {
			f := &p.Files[i]
			s.Files[i] = FileStatus{Name: f.Name, Role: string(f.Role), SHA256: f.SHA256, Path: f.Path, Total: f.Size}
		}
	})
}

// bringFile brings a file into the store, unless its content is there.
func (d *download) bringFile(ctx context.Context, i int, f *source.File) error {
	if f.Path != "" {
		d.progress(i, f.Size, f.Size)
		return nil
	}
	path := d.m.parts(d.src, f)
	defer d.m.only(filepath.Base(path))()
	if blob, ok := d.m.store.blob(f.SHA256, f.Size); ok {
		d.progress(i, f.Size, f.Size)
		d.change(func(s *Status) { s.Files[i].Path = blob })
		return nil
	}
	got, err := transfer.Fetch(ctx, path, f.File, transfer.Options{
		Limit: d.m.Limit, Progress: func(done, total int64) { d.progress(i, done, total) },
	})
	if err != nil {
		return err
	}
	blob, err := d.m.store.adopt(path, got.SHA256)
	if err != nil {
		return err
	}
	d.progress(i, got.Size, got.Size)
	d.change(func(s *Status) { s.Files[i].Path, s.Files[i].SHA256 = blob, got.SHA256 })
	return nil
}

// progress notes how much of a file is there, and how large it is if nobody told before (-1 = nobody tells). What is told never goes back, also where
// a file had to be begun anew.
func (d *download) progress(i int, done, total int64) {
	d.change(func(s *Status) {
		f := &s.Files[i]
		if total >= 0 && f.Total != total {
			f.Total = total
			if !slices.ContainsFunc(s.Files, func(f FileStatus) bool { return f.Total < 0 }) {
				s.Total = s.sum(func(f FileStatus) int64 { return f.Total })
			}
		}
		f.Done = max(f.Done, done)
		if f.Done == f.Total && i == len(s.Files)-1 {
			s.State = Verifying
		}
		sum := s.sum(func(f FileStatus) int64 { return f.Done })
		s.BytesPerSec = d.speed.at(time.Now(), sum)
		s.Done = max(s.Done, sum)
	})
}

func (s *Status) sum(of func(FileStatus) int64) (sum int64) {
	for _, f := range s.Files {
		sum += of(f)
	}
	return sum
}

// speed is how fast bytes came of late.
type speed struct {
	since time.Time
	from  int64
	rate  float64 // bytes per second
}

// speedWindow is over how much time it is measured.
const speedWindow = time.Second

// at returns the speed when so many bytes are there.
func (s *speed) at(now time.Time, done int64) float64 {
	if s.since.IsZero() || done < s.from {
		s.since, s.from = now, done // what was there at the beginning did not come now
		return s.rate
	}
	if took := now.Sub(s.since); took >= speedWindow {
		latest := float64(done-s.from) / took.Seconds()
		if s.rate == 0 {
			s.rate = latest
		}
		const share = 0.3 // of the latest window: jumps of a second are smoothed over
		s.rate += share * (latest - s.rate)
		s.since, s.from = now, done
	}
	return s.rate
}
