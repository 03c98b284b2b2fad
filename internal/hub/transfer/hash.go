package transfer

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"hash"
	"io"
	"os"
	"slices"
)

// hasher computes the hash of a file whose parts come in any order: it follows the parts that are here from the beginning on. What it has is
// kept in the journal, so that nothing is read twice, whatever happens.
type hasher struct {
	file  *os.File
	head  head
	sum   hash.Hash
	parts int // in it
	buf   []byte
}

// newHasher goes on where the journal says, if that can be.
func newHasher(file *os.File, j *journal) *hasher {
	h := &hasher{file: file, head: j.head, sum: sha256.New(), buf: make([]byte, bufferSize)}
	if j.hash.Parts > 0 && !slices.Contains(j.done[:j.hash.Parts], false) {
		if err := h.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(j.hash.State); err == nil { //nolint:errcheck,forcetypeassert // documented of crypto/sha256
			h.parts = j.hash.Parts
		} else {
			h.sum.Reset()
		}
	}
	return h
}

// next takes in the next part, which is here.
func (h *hasher) next() (hashed, error) {
	part := io.NewSectionReader(h.file, int64(h.parts)*h.head.PartSize, h.head.length(h.parts))
	if _, err := io.CopyBuffer(onlyWriter{h.sum}, onlyReader{part}, h.buf); err != nil {
		return hashed{}, err
	}
	writeBack(h.file, int64(h.parts)*h.head.PartSize, h.head.length(h.parts))
	h.parts++
	state, err := h.sum.(encoding.BinaryMarshaler).MarshalBinary() //nolint:errcheck,forcetypeassert // documented of crypto/sha256
	return hashed{h.parts, state}, err
}

func (h *hasher) hex() string { return hex.EncodeToString(h.sum.Sum(nil)) }

// onlyReader and onlyWriter keep io.CopyBuffer to its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
