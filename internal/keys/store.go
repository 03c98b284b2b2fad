package keys

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookAgain is how long after it was looked at the file may have changed unnoticed: a key that was taken out of it is of no use
// after that.
const lookAgain = 500 * time.Millisecond

// Store is the keys of a file, kept current.
type Store struct {
	file string
	log  *slog.Logger
	uses *Uses
	now  func() time.Time

	keys   atomic.Pointer[set]
	looked atomic.Int64 // when, in nanoseconds

	mu   sync.Mutex
	seen fileState // what was read last
}

// fileState changes when the file does.
type fileState struct {
	size     int64
	modified time.Time
}

// Open reads the file. It must be good; what becomes of it later is told in the log, and the last good version goes on.
// uses is what the keys in it have used already.
func Open(file string, log *slog.Logger, uses *Uses) (*Store, error) {
	s := &Store{file: file, log: log, uses: uses, now: time.Now}
	keys, state, err := s.read()
	if err != nil {
		return nil, err
	}
	s.seen = state
	s.keys.Store(keys)
	s.looked.Store(s.now().UnixNano())
	return s, nil
}

func (s *Store) read() (*set, fileState, error) {
	info, err := os.Stat(s.file)
	if err != nil {
		return nil, fileState{}, fmt.Errorf("keys: %w", err)
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fileState{}, fmt.Errorf("keys: %w", err)
	}
	keys, err := parse(s.file, data, s.uses)
	return keys, fileState{info.Size(), info.ModTime()}, err
}

// Reasons for which a key is not accepted.
var (
	ErrNone    = errors.New("no API key")
	ErrUnknown = errors.New("unknown API key")
	ErrExpired = errors.New("API key expired")
	ErrNobody  = errors.New("no API key is for this identity")
)

// Verify returns the key that a request carries. What is looked up is its digest, of which nobody can try out a part: how long that
// takes tells nothing.
func (s *Store) Verify(key string) (*Key, error) {
	keys, now := s.current()
	if key == "" {
		return nil, ErrNone
	}
	k := keys.secrets[sha256.Sum256([]byte(key))]
	if k == nil {
		return nil, ErrUnknown
	}
	return k.unlessExpired(now)
}

// Holder returns the key that an identity holds, which somebody else has proven: the one for just that identity, else the first of the
// file whose pattern it matches.
func (s *Store) Holder(identity string) (*Key, error) {
	keys, now := s.current()
	k := keys.identities[identity]
	for i := 0; k == nil && i < len(keys.globs); i++ {
		if h := keys.globs[i]; h.identity.MatchString(identity) {
			k = h.key
		}
	}
	if k == nil {
		return nil, ErrNobody
	}
	return k.unlessExpired(now)
}

func (k *Key) unlessExpired(now time.Time) (*Key, error) {
	if !k.Expires.IsZero() && !now.Before(k.Expires) {
		return nil, ErrExpired
	}
	return k, nil
}

// current returns the keys, and the time.
func (s *Store) current() (*set, time.Time) {
	now := s.now()
	if now.UnixNano()-s.looked.Load() > int64(lookAgain) {
		s.refresh(now)
	}
	return s.keys.Load(), now
}

// refresh reads the file again if it changed. A file that is gone or broken leaves all as it was: a slip of the editor must
// not lock everybody out, and is told.
func (s *Store) refresh(now time.Time) {
	if !s.mu.TryLock() {
		return // somebody is at it
	}
	defer s.mu.Unlock()
	defer s.looked.Store(now.UnixNano())
	info, err := os.Stat(s.file)
	if err == nil && (fileState{info.Size(), info.ModTime()}) == s.seen {
		return
	}
	if errors.Is(err, fs.ErrNotExist) && s.seen == (fileState{}) {
		return // told before
	}
	keys, state, err := s.read()
	if info != nil {
		s.seen = fileState{info.Size(), info.ModTime()}
	} else {
		s.seen = fileState{}
	}
	if err != nil {
		s.log.Error("the keys as they were stay in force", "error", err)
		return
	}
	s.seen = state
	s.keys.Store(keys)
	s.log.Info("keys read again", "file", s.file, "keys", len(keys.secrets)+len(keys.identities)+len(keys.globs))
}
