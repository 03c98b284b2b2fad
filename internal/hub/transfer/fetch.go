package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"
)

const (
	// MaxPartSize is the most that a crash costs a connection, in bytes. Ollama's parts, of 100 MB to 1 GB, are lost whole (ollama/ollama#12507).
	MaxPartSize = 16 << 20

	defaultPartSize    = 8 << 20
	defaultConnections = 4
	defaultStall       = 30 * time.Second

	bufferSize = 256 << 10 // of each connection, and of the hash
)

// Options say how a file is brought. The zero value is good.
type Options struct {
	Client      *http.Client  // nil = one that asks the environment for proxies
	Connections int           // at a time; 0 = 4
	PartSize    int64         // bytes, at most MaxPartSize; 0 = 8 MiB. What is here already keeps the size that it was begun with.
	Stall       time.Duration // without a byte before a connection is given up; 0 = 30 s
	Limit       *rate.Limiter // bytes per second, perhaps shared with others; nil = no bound

	// Progress is told how many bytes are here, and how many there will be (-1 = not known): at the beginning, at most ten times a second, and at
	// the end. done goes back only where a file has to be begun anew.
	Progress func(done, total int64)
}

// Result is what was brought.
type Result struct {
	Size   int64  // bytes
	SHA256 string // lower-case hexadecimal
}

// attempts is how often a file is begun anew because it changed, or was not what it should be.
const attempts = 2

// Fetch brings a file to path. It is there when it is whole, and its hash is what it should be; before, what was brought lies in path + ".part",
// and path + ".journal" notes which parts of it are whole. After an error, or a crash, the next Fetch to the same path goes on with that, and
// lost is at most what each connection had of the part it was at. ErrChanged, ErrCorrupt, ErrNoSpace, ErrBusy and *StatusError are told apart;
// a context that ends ends it at once.
func Fetch(ctx context.Context, path string, f File, o Options) (Result, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Result{}, err
	}
	j, err := openJournal(path + ".journal")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = j.close() }() // read-only by then, or removed
	t := &fetch{path: path, want: f, Options: o.filledIn(), journal: j}
	if result, ok := t.there(); ok {
		return result, t.journal.remove()
	}
	for try := 1; ; try++ {
		result, err := t.run(ctx)
		again := errors.Is(err, ErrChanged) || errors.Is(err, ErrCorrupt)
		if !again {
			return result, err
		}
		if bad := t.discard(); bad != nil {
			return result, errors.Join(err, bad)
		}
		if try == attempts {
			return result, err
		}
		t.places.rotate() // a mirror may have another file, or a bad one
	}
}

// there tells whether the file is in place already: a crash may have come right after that.
func (t *fetch) there() (Result, bool) {
	if t.want.SHA256 == "" {
		return Result{}, false
	}
	file, err := os.Open(t.path)
	if err != nil {
		return Result{}, false
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	result := Result{n, hex.EncodeToString(sum.Sum(nil))}
	return result, err == nil && result.SHA256 == t.want.SHA256
}

func (o Options) filledIn() Options {
	if o.Client == nil {
		o.Client = defaultClient
	}
	if o.Connections <= 0 {
		o.Connections = defaultConnections
	}
	if o.PartSize <= 0 {
		o.PartSize = defaultPartSize
	}
	o.PartSize = min(o.PartSize, MaxPartSize)
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o
}

// defaultClient gives up what cannot be reached. How long an answer takes is watched while it is read.
var defaultClient = &http.Client{
	Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
		ForceAttemptHTTP2:     false, // one connection for all parts would share one window
	},
	CheckRedirect: FollowSafely,
}

// fetch is the work on one file.
type fetch struct {
	Options
	path    string
	want    File
	journal *journal
	places  places
	etag    string // of the file as it is on the server now; "" = not told
}

func (t *fetch) partial() string { return t.path + ".part" }

// run brings what is missing, and puts the file in place.
func (t *fetch) run(ctx context.Context) (Result, error) {
	first, err := t.look(ctx)
	if err != nil {
		return Result{}, err
	}
	file, err := os.OpenFile(t.partial(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return Result{}, errors.Join(err, first.Body.Close())
	}
	defer func() { _ = file.Close() }()
	var result Result
	if first.ranges {
		_ = first.Body.Close() // one byte
		if err = t.prepare(file, first); err == nil {
			result, err = t.parts(ctx, file)
		}
	} else {
		result, err = t.whole(ctx, file, first)
	}
	if err != nil {
		return Result{}, t.explain(err, first.size)
	}
	if want := t.want.SHA256; want != "" && result.SHA256 != want {
		return Result{}, fmt.Errorf("%w: its SHA-256 is %s, and should be %s", ErrCorrupt, result.SHA256, want)
	}
	return result, t.place(file)
}

// explain says of a full disk what is missing.
func (t *fetch) explain(err error, size int64) error {
	if !isFull(err) {
		return err
	}
	left, _ := free(filepath.Dir(t.path))
	return fmt.Errorf("%w: the file has %d bytes, and %d are free in %s: %w", ErrNoSpace, size, left, filepath.Dir(t.path), err)
}

// prepare takes up what is here of the file, or begins it if that is nothing, or of another one.
func (t *fetch) prepare(file *os.File, now answer) error {
	j := t.journal
	info, err := file.Stat()
	if err != nil {
		return err
	}
	h := head{Size: now.size, PartSize: t.PartSize, ETag: now.etag, SHA256: t.want.SHA256, Boot: boot()}
	same := j.head.Size == h.Size && j.head.SHA256 == h.SHA256 && (h.SHA256 != "" || j.head.ETag == h.ETag) && info.Size() == h.Size
	switch {
	case !same:
		if err := t.room(now.size); err != nil {
			return err
		}
		if err := file.Truncate(0); err != nil {
			return err
		}
		if err := file.Truncate(now.size); err != nil {
			return err
		}
		return j.begin(h)
	case j.head.Boot != h.Boot: // what the journal claims may not have reached the disk; if so, the hash will tell
		j.hash = hashed{}
	}
	return t.room(now.size - j.have())
}

func (t *fetch) room(need int64) error { return Room(filepath.Dir(t.path), need) }

// Room checks that so many bytes can be written in a directory, which is there; else the error is ErrNoSpace.
func Room(dir string, need int64) error {
	left, err := free(dir)
	if err != nil {
		return err
	}
	if left < need {
		return fmt.Errorf("%w: %d bytes are needed, and %d are free in %s", ErrNoSpace, need, left, dir)
	}
	return nil
}

// place puts the whole file where it belongs: after a crash it is there in whole, or not at all.
func (t *fetch) place(file *os.File) error {
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(t.partial(), t.path); err != nil {
		return err
	}
	return t.journal.remove()
}

// discard throws away what is here.
func (t *fetch) discard() error {
	t.etag = ""
	t.journal.head, t.journal.done, t.journal.hash = head{}, nil, hashed{}
	return errors.Join(t.journal.f.Truncate(0), os.Truncate(t.partial(), 0))
}
