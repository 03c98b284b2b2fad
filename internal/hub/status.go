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
	ID           string // derived from the source: the same source has the same
	Source       string // as it was asked for
	Resolved     string // in full: with the quantisation and tag that were chosen; "" before that is known
	Name         string // what the model may be called; "" before that is known
	State        State
	Done         int64 // bytes that are there; never less than before
	Total        int64 // bytes; -1 = not known
	BytesPerSec  float64
	Files        []FileStatus
	Quantization string
	Licence      string
	Error        string // of the last attempt; "" = none
	Started      time.Time
	Ended        time.Time // zero = it goes on
}

// FileStatus is how one file of a download stands.
type FileStatus struct {
	Name   string
	Role   string
	SHA256 string // "" = not known yet
	Path   string // where it is, once it is whole; "" before
	Done   int64
	Total  int64 // -1 = not known
}
