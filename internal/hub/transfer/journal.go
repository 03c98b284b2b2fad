package transfer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A journal notes what of a file is here, in lines of JSON: first what file it is, then each part that is whole, and now and then the state of the
// hash. It is only ever added to, so that a crash costs no more than its last line.
//
// What it says holds for a process that was killed: what it had written is the kernel's by then. After the machine itself went down the disk may
// lack what the journal claims; that shows by the boot's id, and the hash is then computed anew over all of it.
type journal struct {
	f *os.File

	head head
	done []bool // by part
	hash hashed
}

// head is the first line: what file it is about.
type head struct {
	Size     int64  `json:"size"` // bytes
	PartSize int64  `json:"part_size"`
	ETag     string `json:"etag,omitempty"`
	SHA256   string `json:"sha256,omitempty"` // as it should be
	Boot     string `json:"boot,omitempty"`
}

// hashed is how far the hash is.
type hashed struct {
	Parts int    `json:"parts"` // the first so many are in it
	State []byte `json:"state"` // of crypto/sha256
}

type line struct {
	Head *head   `json:"head,omitempty"`
	Part *int    `json:"part,omitempty"`
	Hash *hashed `json:"hash,omitempty"`
}

// parts is how many parts a file has.
func (h head) parts() int { return int((h.Size + h.PartSize - 1) / h.PartSize) }

// maxParts bounds what a damaged journal makes us reserve: 16 TiB in the smallest parts that a whole file of that size would have.
const maxParts = 1 << 24

var errJournal = errors.New("the journal is damaged")

// openJournal opens the journal at path, which no other process may have open, and reads it. What is damaged is as if it was not there.
func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	j := &journal{f: f}
	if err := j.read(f); err != nil {
		j.head, j.done, j.hash = head{}, nil, hashed{}
	}
	return j, nil
}

// read takes in all whole lines.
func (j *journal) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		b, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // and if there is a last line, it was not written to its end
			return nil
		}
		if err != nil {
			return err
		}
		var l line
		if err := json.Unmarshal(bytes.TrimSpace(b), &l); err != nil {
			return fmt.Errorf("%w: %w", errJournal, err)
		}
		if err := j.take(l); err != nil {
			return err
		}
	}
}

func (j *journal) take(l line) error {
	switch {
	case l.Head != nil:
		if l.Head.Size <= 0 || l.Head.PartSize <= 0 || l.Head.Size/l.Head.PartSize >= maxParts {
			return errJournal
		}
		j.head, j.done, j.hash = *l.Head, make([]bool, l.Head.parts()), hashed{}
	case l.Part != nil:
		if *l.Part < 0 || *l.Part >= len(j.done) {
			return errJournal
		}
		j.done[*l.Part] = true
	case l.Hash != nil:
		if l.Hash.Parts < 0 || l.Hash.Parts > len(j.done) {
			return errJournal
		}
		j.hash = *l.Hash
	}
	return nil
}

// begin makes it the journal of a file of which nothing is here.
func (j *journal) begin(h head) error {
	if err := j.f.Truncate(0); err != nil {
		return err
	}
	j.head, j.done, j.hash = h, make([]bool, h.parts()), hashed{}
	return j.add(line{Head: &h})
}

// whole notes that a part is here.
func (j *journal) whole(part int) error {
	j.done[part] = true
	return j.add(line{Part: &part})
}

// hashedTo notes the state of the hash.
func (j *journal) hashedTo(h hashed) error {
	j.hash = h
	return j.add(line{Hash: &h})
}

func (j *journal) add(l line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = j.f.Write(append(b, '\n'))
	return err
}

// have is how many bytes of the file are here.
func (j *journal) have() (sum int64) {
	for i, done := range j.done {
		if done {
			sum += j.head.length(i)
		}
	}
	return sum
}

// length is how long a part is, in bytes.
func (h head) length(part int) int64 {
	return min(h.PartSize, h.Size-int64(part)*h.PartSize)
}

// remove removes it: the file is whole.
func (j *journal) remove() error { return os.Remove(j.f.Name()) }

func (j *journal) close() error { return j.f.Close() }
