// Package hub brings models from where they are published, once whoever asks, and keeps them in a store that models share.
package hub

import "time"

// State is how a download stands.
type State string

// The states of a download. Paused, Failed and Cancelled ones keep what they have for the next start, but for Cancelled.
const (
	Resolving   State = "resolving" // finding out what the source stands for
	Downloading State = "downloading"
	Verifying   State = "verifying"
	Paused      State = "paused"
	Completed   State = "completed"
	Failed      State = "failed"
	Cancelled   State = "cancelled"
)

// Status is how a download stands at a moment.
type Status struct {
	ID           string       `json:"id"`                 // derived from the source: the same source has the same
	Source       string       `json:"source"`             // as it was asked for
	Resolved     string       `json:"resolved,omitempty"` // in full: with the quantisation and tag that were chosen; "" before that is known
	Name         string       `json:"name,omitempty"`     // what the model may be called; "" before that is known
	As           []string     `json:"as,omitempty"`       // the names that model files are to be written for
	State        State        `json:"state"`
	Done         int64        `json:"done"`  // bytes that are there; never less than before
	Total        int64        `json:"total"` // bytes; -1 = not known
	BytesPerSec  float64      `json:"bytes_per_second"`
	Files        []FileStatus `json:"files,omitempty"`
	Quantization string       `json:"quantization,omitempty"`
	Licence      string       `json:"licence,omitempty"`
	Error        string       `json:"error,omitempty"` // of the last attempt; "" = none
	Started      time.Time    `json:"started"`
	Ended        time.Time    `json:"ended,omitzero"` // zero = it goes on
}

// FileStatus is how one file of a download stands.
type FileStatus struct {
	Name   string `json:"name,omitempty"`
	Role   string `json:"role"`
	SHA256 string `json:"sha256,omitempty"` // "" = not known yet
	Path   string `json:"path,omitempty"`   // where it is, once it is whole; "" before
	Done   int64  `json:"done"`
	Total  int64  `json:"total"` // -1 = not known
}
