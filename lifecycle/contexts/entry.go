package contexts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A kept context is two files: NAME.kv is what the engine wrote, NAME.json what we know about it and its own checksum
// in a second line.
const (
	stateExt   = ".kv"
	sidecarExt = ".json"
)

// sidecarVersion is that of the format. Others are dropped.
const sidecarVersion = 1

// entry is a kept context.
type entry struct {
	Version  int      `json:"version"`
	Identity Identity `json:"identity"`
	prefix
	Size          int64         `json:"size"`          // bytes of NAME.kv
	Sum           uint64        `json:"sum"`           // its checksum
	Conversations []uint64      `json:"conversations"` // one of which it may be, as its engine served them
	Cost          time.Duration `json:"cost"`          // nanoseconds to compute one of its tokens
	Saved         time.Time     `json:"saved"`

	name      string
	sidecar   int64     // bytes of NAME.json
	used      time.Time // saved, or restored and of use; it is the time of change of NAME.json
	wholeOnly bool      // the engine made no use of a part of it
}

func (e *entry) bytes() int64 { return e.Size + e.sidecar }

// halfLife is how fast the expected return of somebody to a conversation falls: to a half in a day. It is a guess: people
// come back the same day or not for long.
const halfLife = 24 * time.Hour

// maxAge ends what nobody came back to. It is worth 1/128 by then, and it is what people said.
const maxAge = 7 * halfLife

func (e *entry) old(now time.Time) bool { return now.Sub(e.used) > maxAge }

// value is what a byte of the entry is worth: the time that it is expected to save, in nanoseconds a byte.
//
//	2^(-idle ÷ halfLife) × tokens × cost ÷ bytes
func (e *entry) value(now time.Time) float64 {
	idle := max(0, now.Sub(e.used))
	return math.Exp2(-float64(idle)/float64(halfLife)) * float64(e.Tokens) * float64(e.Cost) / float64(max(1, e.bytes()))
}

// restoreSpeed is how fast a file is at least checked and taken in, in bytes a nanosecond: 1 GB/s, which is a disk's
// (139 MB: 20 ms for the engine and 50 ms for the check, when in memory).
const restoreSpeed = 1

// worthwhile says whether so many tokens of the entry cost more to compute than the entry to restore.
func (e *entry) worthwhile(common int) bool {
	if common < block || e.wholeOnly && !e.mostly(common) {
		return false
	}
	return time.Duration(common)*e.Cost > time.Duration(e.Size/restoreSpeed)
}

// mostly says whether so many tokens are nearly all of the entry: a conversation that goes on has all but a few.
func (e *entry) mostly(common int) bool { return 10*common >= 9*e.Tokens }

// encode returns the sidecar's text.
func (e *entry) encode() ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text, "\n%016x\n", xxhash.Sum64(text)), nil
}

// errSidecar says that a sidecar is not one of ours, or not whole.
var errSidecar = errors.New("not a whole record of a context")

// decode reads a sidecar's text.
func decode(text []byte) (*entry, error) {
	record, sum, ok := bytes.Cut(text, []byte("\n"))
	want, err := strconv.ParseUint(string(bytes.TrimSuffix(sum, []byte("\n"))), 16, 64)
	if !ok || err != nil || xxhash.Sum64(record) != want {
		return nil, errSidecar
	}
	e := &entry{sidecar: int64(len(text))}
	if err := json.Unmarshal(record, e); err != nil {
		return nil, fmt.Errorf("%w: %w", errSidecar, err)
	}
	if e.Version != sidecarVersion || e.Tokens < block || len(e.Blocks) != e.Tokens/block || e.Size <= 0 || e.Cost <= 0 {
		return nil, errSidecar
	}
	return e, nil
}

// load reads the entry of a sidecar and looks whether its state is there, in full length.
func load(sidecar string) (*entry, error) {
	text, err := os.ReadFile(sidecar)
	if err != nil {
		return nil, err
	}
	e, err := decode(text)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(sidecar)
	if err != nil {
		return nil, err
	}
	e.used = info.ModTime()
	base := filepath.Base(sidecar)
	e.name = base[:len(base)-len(sidecarExt)]
	state, err := os.Lstat(filepath.Join(filepath.Dir(sidecar), e.name+stateExt))
	if err != nil {
		return nil, err
	}
	if !state.Mode().IsRegular() || state.Size() != e.Size {
		return nil, fmt.Errorf("%w: %d bytes, should be %d", errSidecar, state.Size(), e.Size)
	}
	return e, nil
}
