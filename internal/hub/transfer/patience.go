package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

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
