// Package transfer brings one file over HTTP, in parts that survive a crash.
package transfer

import (
	"context"
	"net/http"
)

// File is what to bring.
type File struct {
	Size   int64  // bytes; -1 = not known before
	SHA256 string // of its content, lower-case hexadecimal; "" = not known

	// Locate tells where the file is to be had now, the best place first. It is asked again when a location has expired or failed.
	Locate func(context.Context) ([]Location, error)
}

// Location is one place a file can be had from.
type Location struct {
	URL    string
	Header http.Header // of requests to it, such as Authorization; not sent on to another host by a redirect
}
