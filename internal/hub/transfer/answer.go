package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is what a server gives of a file.
type answer struct {
	Body   io.ReadCloser
	ranges bool   // it gives parts
	size   int64  // of the whole file, in bytes; -1 = it does not say
	etag   string // "" = it does not say
}

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
