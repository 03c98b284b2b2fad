package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"assistant/internal/hub/transfer"
)

// What errors are about, for those who tell them on.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("access denied")
)

const (
	maxList     = 32 << 20         // bytes of a list of files: some thousand files have 1 MiB
	maxManifest = 4 << 20          // bytes of a manifest or of what is read to be shown: the OCI distribution specification's bound
	maxSize     = 16 << 40         // bytes of a file: larger than any model, and low enough that sums of many are numbers
	askTimeout  = 30 * time.Second // of one small request, so that a dead mirror is left for the next
)

// doer sends requests: an http.Client, or one that fetches tokens.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// staying is the Resolver's client, which stops at a redirect to another origin.
func (r *Resolver) staying() *http.Client {
	c := *r.client()
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if transfer.Leaves(req, via) {
			return http.ErrUseLastResponse
		}
		return transfer.Bounded(via)
	}
	return &c
}

// following is the Resolver's client, which follows redirects and takes no Authorization along to another origin.
func (r *Resolver) following() *http.Client {
	c := *r.client()
	c.CheckRedirect = transfer.FollowSafely
	return &c
}

func (r *Resolver) client() *http.Client {
	if r.Client == nil {
		return http.DefaultClient // asks HTTPS_PROXY and its kin
	}
	return r.Client
}

// statusError is an answer that is not what was asked for.
type statusError struct {
	host   string
	status int
	header http.Header
	text   string // of its body, the beginning
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s answered %d %s", e.host, e.status, http.StatusText(e.status))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.status == http.StatusNotFound || e.status == http.StatusGone
	case ErrDenied:
		return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
	}
	return false
}

// Passing tells whether an error of Resolve is one that may be over soon: a connection that failed, or a server that can't just now.
func Passing(err error) bool {
	busy := func(status int) bool {
		return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return busy(e.status)
	}
	if e, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return busy(e.StatusCode)
	}
	if _, ok := errors.AsType[*reachError](err); ok {
		return !errors.Is(err, ErrDenied)
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

func newStatusError(resp *http.Response) *statusError {
	e := &statusError{host: resp.Request.URL.Host, status: resp.StatusCode, header: resp.Header}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		return e
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 300))
	if err == nil {
		e.text = strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	}
	return e
}

// get reads a whole answer of at most limit bytes.
func get(ctx context.Context, client doer, address string, header http.Header, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := send(ctx, client, address, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, newStatusError(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read what %s answers: %w", resp.Request.URL.Host, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s answers with more than %d bytes, which is no list of files", resp.Request.URL.Host, limit)
	}
	return b, nil
}

func send(ctx context.Context, client doer, address string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", "assistant")
	resp, err := client.Do(req)
	if err == nil {
		return resp, nil
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the address, which may be long, and signed
	}
	if isRefusal(err) {
		err = fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return nil, &reachError{req.URL.Host, err}
}

// reachError is that a server gave no answer.
type reachError struct {
	host string
	err  error
}

func (e *reachError) Error() string { return fmt.Sprintf("ask %s: %v", e.host, e.err) }
func (e *reachError) Unwrap() error { return e.err }

// isRefusal tells whether there is no login for a registry, or it was turned down where tokens are given.
func isRefusal(err error) bool {
	if e, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden
	}
	return errors.Is(err, auth.ErrBasicCredentialNotFound)
}

// locate finds where a file is really had from: registries send on to a signed address of another host, and it is better to ask
// once for that than with every part. It asks for one byte, not by HEAD: such addresses are often signed for GET alone. The client
// must stay at its origin.
func locate(ctx context.Context, client doer, address string, header http.Header) (transfer.Location, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ranged := http.Header{"Range": {"bytes=0-0"}}
	maps.Copy(ranged, header)
	resp, err := send(ctx, client, address, ranged)
	if err != nil {
		return transfer.Location{}, nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent:
		at := transfer.Location{URL: resp.Request.URL.String()}
		if auth := resp.Request.Header.Get("Authorization"); auth != "" {
			at.Header = http.Header{"Authorization": {auth}}
		}
		return at, resp.Header, nil
	case resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.Header.Get("Location") != "":
		to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if err == nil {
			err = transfer.Safely(resp.Request.URL, to)
		}
		if err != nil {
			return transfer.Location{}, nil, fmt.Errorf("%s leads nowhere: %w", resp.Request.URL.Host, err)
		}
		return transfer.Location{URL: to.String()}, resp.Header, nil
	default:
		return transfer.Location{}, nil, newStatusError(resp)
	}
}

// join is errors.Join on one line.
func join(all []error) error {
	var joined error
	for _, err := range all {
		switch {
		case err == nil:
		case joined == nil:
			joined = err
		default:
			joined = fmt.Errorf("%w; %w", joined, err)
		}
	}
	return joined
}

// checkSize refuses sizes that no file has.
func checkSize(name string, size int64) error {
	if size < 0 || size > maxSize {
		return fmt.Errorf("%s is said to have %d bytes, which no model has", name, size)
	}
	return nil
}
