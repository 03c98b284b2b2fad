package transfer

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Errors that callers tell apart, by errors.Is.
var (
	// ErrChanged: the file is another one on the server than it was before, again and again.
	ErrChanged = errors.New("the file changed on the server while it was brought")
	// ErrCorrupt: what was brought is not what it should be. It was thrown away.
	ErrCorrupt = errors.New("the content is not what it should be")
	// ErrNoSpace: the disk has not room for it.
	ErrNoSpace = errors.New("there is not enough room on the disk")
	// ErrBusy: another process brings the same file to the same place.
	ErrBusy = errors.New("another process brings this file")
)

// StatusError is an answer that is no part of a file.
type StatusError struct {
	Status     int
	Host       string
	RetryAfter time.Duration // 0 = it does not say
}

// Error tells who answered what. The address is left out: it may be signed.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered %d %s", e.Host, e.Status, http.StatusText(e.Status))
}

// expired tells whether the location may be good no more: it is to be asked for anew.
func (e *StatusError) expired() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

func newStatusError(res *http.Response) *StatusError {
	return &StatusError{Status: res.StatusCode, Host: res.Request.URL.Host, RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
}

// retryAfter reads a Retry-After (RFC 9110, 10.2.3): seconds, or a date. 0 = none.
func retryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		const longest = 24 * 60 * 60
		return time.Duration(min(s, longest)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
