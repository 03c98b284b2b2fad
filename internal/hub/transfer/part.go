package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer is what a server gives of a file.
type answer struct {
	Body   io.ReadCloser
	ranges bool   // it gives parts
	size   int64  // of the whole file, in bytes; -1 = it does not say
	etag   string // "" = it does not say
}

// The pauses between tries that brought nothing: doubled from the first to the last, less up to a half by chance, so that connections that failed together do
// not come back together.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 20 * time.Second
	maxTries   = 8               // in a row that brought nothing, of one connection: more than a minute
	longest    = 2 * time.Minute // that a server may have us wait (Retry-After) before we ask again
)

// patience counts tries that brought nothing.
type patience struct{ tries int }

// wait waits before the next try. It returns the error if there have been enough.
func (p *patience) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.tries++; p.tries >= maxTries {
		return fmt.Errorf("given up after %d tries: %w", p.tries, err)
	}
	pause := min(firstPause<<(p.tries-1), lastPause)
	pause -= rand.N(pause / 2)
	if status := (*StatusError)(nil); errors.As(err, &status) {
		pause = max(pause, min(status.RetryAfter, longest))
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// passing tells whether trying again may help.
func passing(err error) bool {
	if status := (*StatusError)(nil); errors.As(err, &status) {
		return status.expired() || status.Status == http.StatusRequestTimeout || status.Status == http.StatusTooManyRequests ||
			status.Status >= http.StatusInternalServerError
	}
	return !errors.Is(err, ErrChanged) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, errDisk)
}

var errDisk = errors.New("write what was brought")

// look asks for one byte, which tells how large the file is now, and whether it can be had in parts.
func (t *fetch) look(ctx context.Context) (answer, error) {
	for p := (patience{}); ; {
		a, err := t.ask(ctx, 0, 1, -1)
		if err == nil && t.want.Size >= 0 && a.size >= 0 && a.size != t.want.Size {
			_ = a.Body.Close()
			err = fmt.Errorf("%w: it has %d bytes, and should have %d", ErrCorrupt, a.size, t.want.Size)
		}
		if err == nil {
			t.etag = a.etag
			return a, nil
		}
		if !passing(err) {
			return a, err
		}
		if err := p.wait(ctx, err); err != nil {
			return a, err
		}
	}
}

// ask asks the place that is best for length bytes from offset on, of a file of that size; -1 = that is not known yet, and neither whether there are
// parts of it. An error has the next place be asked.
func (t *fetch) ask(ctx context.Context, offset, length, size int64) (answer, error) {
	at, which, err := t.places.current(ctx, t.want.Locate)
	if err != nil {
		return answer{}, err
	}
	a, err := t.askAt(ctx, at, offset, length)
	if err == nil && size >= 0 {
		if err = a.isPartOf(size); err != nil {
			_ = a.Body.Close()
		}
	}
	if err != nil && ctx.Err() == nil {
		status := (*StatusError)(nil)
		t.places.failed(which, errors.As(err, &status) && status.expired())
	}
	a.Body = &failing{a.Body, func() { t.places.failed(which, false) }}
	return a, err
}

// isPartOf checks that it is a part of a file of that size.
func (a answer) isPartOf(size int64) error {
	switch {
	case !a.ranges:
		return errors.New("the server gives no parts any more")
	case a.size != size:
		return ErrChanged
	}
	return nil
}

// failing tells when a body broke off, so that the next place is asked.
type failing struct {
	io.ReadCloser
	failed func()
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.failed()
	}
	return n, err
}

func (t *fetch) askAt(ctx context.Context, at Location, offset, length int64) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL, http.NoBody)
	if err != nil {
		cancel(nil)
		return answer{}, errors.New("the location is no address")
	}
	for name, values := range at.Header {
		req.Header[name] = slices.Clone(values)
	}
	req.Header.Set("User-Agent", "assistant")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	stall := time.AfterFunc(t.Stall, func() { cancel(errStalled) })
	res, err := t.Client.Do(req) //nolint:bodyclose // by whoever reads the answer, or below
	if err != nil {
		stall.Stop()
		cancel(nil)
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		return answer{}, withoutAddress(err)
	}
	body := &watched{res.Body, ctx, stall, t.Stall, cancel}
	a, err := t.understand(res, offset, length)
	if err != nil {
		_ = body.Close()
		return answer{}, err
	}
	a.Body = body
	return a, nil
}

// errStalled is that not a byte came.
var errStalled = errors.New("nothing came any more")

// withoutAddress takes the address out of an error: it may be signed.
func withoutAddress(err error) error {
	if ue := errors.Unwrap(err); ue != nil {
		return ue
	}
	return err
}

// understand checks that an answer is what was asked for, of the file that is being brought.
func (t *fetch) understand(res *http.Response, offset, length int64) (answer, error) {
	a := answer{size: -1, etag: strong(res.Header.Get("ETag"))}
	if encoding := res.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return a, fmt.Errorf("%s answers in the encoding %s, which was not asked for", res.Request.URL.Host, encoding)
	}
	switch res.StatusCode {
	case http.StatusPartialContent:
		from, to, size, ok := contentRange(res.Header.Get("Content-Range"))
		if !ok || from != offset || to != min(offset+length, size)-1 {
			return a, fmt.Errorf("%s answers with another part than it was asked for: %q", res.Request.URL.Host, res.Header.Get("Content-Range"))
		}
		a.ranges, a.size = true, size
	case http.StatusOK:
		a.size = res.ContentLength
	case http.StatusRequestedRangeNotSatisfiable:
		if offset == 0 { // of an empty file nothing can be had
			return a, fmt.Errorf("%w: it is empty", ErrCorrupt)
		}
		return a, ErrChanged
	default:
		return a, newStatusError(res)
	}
	if t.etag != "" && a.etag != "" && a.etag != t.etag && t.want.SHA256 == "" { // mirrors have other tags; the hash tells more
		return a, ErrChanged
	}
	return a, nil
}

// strong is an entity tag that stands for the very bytes (RFC 9110, 8.8.1); "" = it does not.
func strong(etag string) string {
	if strings.HasPrefix(etag, "W/") {
		return ""
	}
	return etag
}

// contentRange reads a Content-Range of bytes whose size is known (RFC 9110, 14.4).
func contentRange(v string) (from, to, size int64, ok bool) {
	rest, ok := strings.CutPrefix(v, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	from, err1 := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	ok = err1 == nil && err2 == nil && err3 == nil && from >= 0 && to >= from && size > to
	return from, to, size, ok
}

// watched is a body that ends with an error when nothing comes any more.
type watched struct {
	io.ReadCloser
	ctx    context.Context
	stall  *time.Timer
	limit  time.Duration
	cancel context.CancelCauseFunc
}

func (w *watched) Read(p []byte) (int, error) {
	w.stall.Reset(w.limit)
	n, err := w.ReadCloser.Read(p)
	w.stall.Stop() // only the server's time counts
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.stall.Stop()
	w.cancel(nil) // what was not read is not waited for
	return w.ReadCloser.Close()
}

// parts brings the parts that are missing, over several connections.
func (t *fetch) parts(ctx context.Context, file *os.File) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{fetch: t, file: file, more: sync.NewCond(new(sync.Mutex)), here: startProgress(t.journal.have(), t.journal.head.Size, t.Progress)}
	defer w.here.stop()
	defer context.AfterFunc(ctx, w.wake)()
	var all sync.WaitGroup
	for range min(t.Connections, t.journal.head.parts()) {
		all.Go(func() {
			if err := w.bring(ctx); err != nil {
				cancel(err)
			}
		})
	}
	sum, err := w.hash(ctx)
	if err != nil {
		cancel(err)
	}
	all.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return Result{}, cause
	}
	return Result{t.journal.head.Size, sum}, nil
}

// work is what connections and the hash share.
type work struct {
	*fetch
	file *os.File
	more *sync.Cond // a part is whole, or the work ends; its lock guards the journal and the rest
	next int        // the first part that nobody has taken
	here *progress
}

func (w *work) wake() {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	w.more.Broadcast()
}

// take is the next part that is to be brought; false if there is none.
func (w *work) take() (int, bool) {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	for w.next < len(w.journal.done) {
		part := w.next
		w.next++
		if !w.journal.done[part] {
			return part, true
		}
	}
	return 0, false
}

// bring brings parts until there are no more.
func (w *work) bring(ctx context.Context) error {
	buf := make([]byte, bufferSize)
	for {
		part, ok := w.take()
		if !ok {
			return nil
		}
		if err := w.bringPart(ctx, part, buf); err != nil {
			return err
		}
		if err := w.whole(part); err != nil {
			return fmt.Errorf("%w: %w", errDisk, err)
		}
	}
}

func (w *work) whole(part int) error {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	defer w.more.Broadcast()
	return w.journal.whole(part)
}

// bringPart brings a part. What breaks off is gone on with where it broke off.
func (w *work) bringPart(ctx context.Context, part int, buf []byte) error {
	offset, left := int64(part)*w.journal.head.PartSize, w.journal.head.length(part)
	for p := (patience{}); ; {
		n, err := w.piece(ctx, offset, left, buf)
		if n > 0 {
			p.tries = 0
		}
		offset, left = offset+n, left-n
		if left == 0 {
			return nil
		}
		if !passing(err) {
			return err
		}
		if err := p.wait(ctx, err); err != nil {
			return err
		}
	}
}

// piece brings what one answer gives of a part.
func (w *work) piece(ctx context.Context, offset, length int64, buf []byte) (n int64, err error) {
	a, err := w.ask(ctx, offset, length, w.journal.head.Size)
	if err != nil {
		return 0, err
	}
	defer func() { _ = a.Body.Close() }()
	for n < length {
		k, err := a.Body.Read(buf[:min(int64(len(buf)), length-n)])
		if k > 0 {
			if _, bad := w.file.WriteAt(buf[:k], offset+n); bad != nil {
				return n, fmt.Errorf("%w: %w", errDisk, bad)
			}
			n += int64(k)
			w.here.done.Add(int64(k))
			if bad := w.slow(ctx, k); bad != nil {
				return n, bad
			}
		}
		if errors.Is(err, io.EOF) {
			return n, io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// slow keeps to the bound on bytes per second.
func (t *fetch) slow(ctx context.Context, n int) error {
	for t.Limit != nil && n > 0 {
		k := min(n, max(t.Limit.Burst(), 1))
		if err := t.Limit.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// hash follows the parts with the hash, and returns it when all are in it.
func (w *work) hash(ctx context.Context) (string, error) {
	h := newHasher(w.file, w.journal)
	for h.parts < len(w.journal.done) {
		if !w.await(ctx, h.parts) {
			return "", context.Cause(ctx)
		}
		state, err := h.next()
		if err == nil {
			err = w.hashed(state)
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", errDisk, err)
		}
	}
	return h.hex(), nil
}

// await waits until a part is whole; false if the work ends before.
func (w *work) await(ctx context.Context, part int) bool {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	for !w.journal.done[part] && ctx.Err() == nil {
		w.more.Wait()
	}
	return w.journal.done[part]
}

func (w *work) hashed(h hashed) error {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	return w.journal.hashedTo(h)
}

// whole brings a file from a server that gives no parts: all of it, from its beginning. What breaks off is begun anew, as nothing can be gone on with.
func (t *fetch) whole(ctx context.Context, file *os.File, a answer) (Result, error) {
	if a.size >= 0 {
		if err := t.room(a.size); err != nil {
			return Result{}, errors.Join(err, a.Body.Close())
		}
	}
	for p := (patience{}); ; {
		result, err := t.stream(ctx, file, a)
		if err == nil || !passing(err) {
			return result, err
		}
		if err := p.wait(ctx, err); err != nil {
			return result, err
		}
		if a, err = t.look(ctx); err != nil {
			return result, err
		}
	}
}

func (t *fetch) stream(ctx context.Context, file *os.File, a answer) (Result, error) {
	defer func() { _ = a.Body.Close() }()
	if a.ranges {
		return Result{}, ErrChanged // it gives parts now: begin anew with them
	}
	if err := file.Truncate(0); err != nil {
		return Result{}, fmt.Errorf("%w: %w", errDisk, err)
	}
	here := startProgress(0, a.size, t.Progress)
	defer here.stop()
	sum, buf, n := sha256.New(), make([]byte, bufferSize), int64(0)
	for {
		k, err := a.Body.Read(buf)
		if k > 0 {
			if _, bad := file.WriteAt(buf[:k], n); bad != nil {
				return Result{}, fmt.Errorf("%w: %w", errDisk, bad)
			}
			sum.Write(buf[:k])
			n += int64(k)
			here.done.Store(n)
			if bad := t.slow(ctx, k); bad != nil {
				return Result{}, bad
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Result{}, err
		}
	}
	if want := max(a.size, t.want.Size); want >= 0 && n != want {
		return Result{}, io.ErrUnexpectedEOF
	}
	here.total.Store(n)
	return Result{n, hex.EncodeToString(sum.Sum(nil))}, nil
}
