package upstream

import (
	"context"
	"errors"
	"fmt"
)

// ErrUpgrade says that the request asks for another protocol (Upgrade, CONNECT), which this package leaves to others.
// Nothing was sent.
var ErrUpgrade = errors.New("upstream: request to switch protocols")

// RequestError says that the client's request cannot be put on the wire. Nothing was sent.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return "upstream: invalid request: " + e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// DialError says that the instance could not be connected to. Nothing was sent: the request may go to another one.
type DialError struct {
	Address string
	Err     error
}

func (e *DialError) Error() string { return fmt.Sprintf("upstream: dial %s: %v", e.Address, e.Err) }
func (e *DialError) Unwrap() error { return e.Err }

// HeadError says that the engine failed after it was sent some of the request, before it gave a valid head of a response.
type HeadError struct{ Err error }

func (e *HeadError) Error() string { return "upstream: no response: " + e.Err.Error() }
func (e *HeadError) Unwrap() error { return e.Err }

// BodyError says that the engine failed in the middle of a response's body.
type BodyError struct {
	Written bool // some of the body was given to the client's writer
	Err     error
}

func (e *BodyError) Error() string { return "upstream: response broken off: " + e.Err.Error() }
func (e *BodyError) Unwrap() error { return e.Err }

// ClientError says that the client could not be written to.
type ClientError struct{ Err error }

func (e *ClientError) Error() string { return "upstream: write to client: " + e.Err.Error() }
func (e *ClientError) Unwrap() error { return e.Err }

// canceled is the error of a request whose context ended; [errors.Is] finds [context.Canceled] or
// [context.DeadlineExceeded] in it.
func canceled(ctx context.Context) error { return fmt.Errorf("upstream: %w", ctx.Err()) }
