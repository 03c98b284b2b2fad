package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"assistant/internal/hub/source"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("there is no such download")
	ErrEnded    = errors.New("the download has ended")
	ErrBusy     = errors.New("models are being brought just now: wait for them, pause or cancel them")
	ErrClosed   = errors.New("the server is shutting down")
)

// Settings are what a manager is made with.
type Settings struct {
	Dir      string                  // of the store; made when the first model comes
	Resolver func() *source.Resolver // finds out what sources stand for; asked for with each question
	Limit    *rate.Limiter           // bytes per second of all downloads together; nil = no bound
	Log      *slog.Logger

	// OnInstalled is called when a model has come, with the names that it was asked to be installed as, before its download is told to be
	// completed: an error of it is one of the download. nil = nobody is interested.
	OnInstalled func(m Model, as []string) error
	OnRemoved   func() // is called when models have gone; nil = nobody is interested
}

// StartOptions say what is to become of a download.
type StartOptions struct {
	As string // the name that a model file is to be written for when the model is here; "" = none is. It is kept over restarts.
}

// Manager brings models. Whoever asks for a source that is being brought joins that download. Downloads outlive who asked for them; those that
// went on when the process ended go on with the next.
type Manager struct {
	Settings
	store *store

	ctx  context.Context // ends with the manager
	stop context.CancelCauseFunc
	runs sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	downloads map[string]*download // by id
	blobs     map[string]*sync.Mutex

	news    sync.Mutex
	changed chan struct{} // closed when any download changes
}

// Open makes a manager of the store in a directory, and goes on with the downloads that were cut off there.
func Open(s Settings) *Manager {
	if s.OnInstalled == nil {
		s.OnInstalled = func(Model, []string) error { return nil }
	}
	if s.OnRemoved == nil {
		s.OnRemoved = func() {}
	}
	m := &Manager{Settings: s, downloads: map[string]*download{}, blobs: map[string]*sync.Mutex{}}
	m.ctx, m.stop = context.WithCancelCause(context.Background())
	m.changed = make(chan struct{})
	m.store = openStore(s.Dir, s.Log)
	for _, j := range m.store.jobs() {
		d := m.add(j.Source)
		d.as = j.As
		d.status.State, d.status.Error = j.State, j.Error
		if j.State == Downloading {
			d.start()
		}
	}
	return m
}

// Close ends all downloads. What they have stays, and those that went on are gone on with by the next manager.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop(ErrClosed)
	m.runs.Wait()
}

// id derives a download's id from its source: 16 hexadecimal digits.
func id(src string) string {
	sum := sha256.Sum256([]byte(src))
	return hex.EncodeToString(sum[:8])
}

// canonical is a source as it is written in full; sources that name the same are then equal.
func canonical(src string) (string, error) {
	ref, err := source.Parse(src)
	if err != nil {
		return "", err
	}
	return ref.String(), nil
}

// add returns the download of a canonical source, a new one if there is none. The lock is held, or nobody else knows the manager yet.
func (m *Manager) add(src string) *download {
	key := id(src)
	d := m.downloads[key]
	if d == nil {
		d = newDownload(m, src)
		m.downloads[key] = d
	}
	return d
}

// Start begins to bring a model, joins the download that does, or goes on with one that was paused or failed. A model that is there is looked
// for anew, and only what changed is brought. It does not wait.
func (m *Manager) Start(src string, o StartOptions) (Status, error) {
	src, err := canonical(src)
	if err != nil {
		return Status{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Status{}, ErrClosed
	}
	d := m.add(src)
	d.name(o.As)
	d.start()
	return d.now(), nil
}

// Plan finds out what a source stands for, and brings nothing.
func (m *Manager) Plan(ctx context.Context, src string) (*source.Plan, error) {
	ref, err := source.Parse(src)
	if err != nil {
		return nil, err
	}
	return m.Resolver().Resolve(ctx, ref)
}

// Ensure is Start for those who need the model rather than its latest version: one that is there, or whose download is paused, stays as it is, and
// one that failed is not tried again before its pause is over.
func (m *Manager) Ensure(src string) (Status, error) {
	src, err := canonical(src)
	if err != nil {
		return Status{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Status{}, ErrClosed
	}
	if model, here := m.store.model(src); here && m.downloads[id(src)] == nil {
		return Status{ID: id(src), Source: src, Resolved: model.Resolved, Name: model.Name, State: Completed, Done: model.Size(), Total: model.Size()}, nil
	}
	d := m.add(src)
	if d.wanted(time.Now()) {
		d.start()
	}
	return d.now(), nil
}

// News returns what is closed when any download changes.
func (m *Manager) News() <-chan struct{} {
	m.news.Lock()
	defer m.news.Unlock()
	return m.changed
}

func (m *Manager) tell() {
	m.news.Lock()
	defer m.news.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

// List returns every download that is known, the newest first.
func (m *Manager) List() []Status {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.downloads))
	m.mu.Unlock()
	list := make([]Status, len(all))
	for i, d := range all {
		list[i] = d.now()
	}
	slices.SortFunc(list, func(a, b Status) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.Source, b.Source)
	})
	return list
}

func (m *Manager) find(id string) (*download, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.downloads[id]
	if d == nil {
		return nil, fmt.Errorf("download %q: %w", id, ErrNotFound)
	}
	return d, nil
}

// Get returns how a download stands.
func (m *Manager) Get(id string) (Status, bool) {
	d, err := m.find(id)
	if err != nil {
		return Status{}, false
	}
	return d.now(), true
}

// Watch yields how a download stands, at once and after each change, until it ends, is paused, or ctx is done. Changes that come faster than they
// are taken are passed over, but never the last.
func (m *Manager) Watch(ctx context.Context, id string) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		d, err := m.find(id)
		if err != nil {
			return
		}
		for {
			s, changed := d.watch()
			if !yield(s) || s.Over() {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Wait returns how a download stands when it has ended or is paused, or ctx's error.
func (m *Manager) Wait(ctx context.Context, id string) (Status, error) {
	var last Status
	for s := range m.Watch(ctx, id) {
		last = s
	}
	switch {
	case last.ID == "":
		return last, fmt.Errorf("download %q: %w", id, ErrNotFound)
	case !last.Over():
		return last, context.Cause(ctx)
	}
	return last, nil
}

// Pause ends the work on a download and keeps what it has, until it is resumed, also over restarts.
func (m *Manager) Pause(id string) (Status, error) { return m.halt(id, errPaused) }

// Cancel ends a download and removes what it has brought.
func (m *Manager) Cancel(id string) (Status, error) { return m.halt(id, errCancelled) }

func (m *Manager) halt(id string, why error) (Status, error) {
	d, err := m.find(id)
	if err != nil {
		return Status{}, err
	}
	return d.halt(why)
}

// Resume goes on with a download that was paused or failed.
func (m *Manager) Resume(id string) (Status, error) {
	d, err := m.find(id)
	if err != nil {
		return Status{}, err
	}
	return m.Start(d.src, StartOptions{})
}

// Installed returns a model that is here in whole.
func (m *Manager) Installed(src string) (Model, bool) {
	src, err := canonical(src)
	if err != nil {
		return Model{}, false
	}
	return m.store.model(src)
}

// only has the content with that hash be worked at by one download at a time.
func (m *Manager) only(hash string) (unlock func()) {
	m.mu.Lock()
	if m.blobs[hash] == nil {
		m.blobs[hash] = new(sync.Mutex)
	}
	lock := m.blobs[hash]
	m.mu.Unlock()
	lock.Lock()
	return lock.Unlock
}

// parts is where a file of a download is put together.
func (m *Manager) parts(src string, f *source.File) string {
	name := f.SHA256
	if name == "" {
		sum := sha256.Sum256([]byte(src + "\x00" + f.Name))
		name = hex.EncodeToString(sum[:])
	}
	return filepath.Join(m.Dir, partsDir, name)
}

// removeParts removes what a transfer to path left.
func removeParts(path string) error {
	left, err := filepath.Glob(path + "*")
	for _, file := range left {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}
