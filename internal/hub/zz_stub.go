package hub

import "errors"

// Until the manager is merged, which has these.
var (
	ErrNotFound = errors.New("there is no such download")
	ErrEnded    = errors.New("the download has ended")
	ErrClosed   = errors.New("the server is shutting down")
)

type StartOptions struct{ As string }
