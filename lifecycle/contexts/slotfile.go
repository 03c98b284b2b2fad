package contexts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
)

// A slot's file, as llama.cpp writes it (llama_state_seq_save_file, and llama-server's own row of tokens in it): three
// words of 32 bits, magic, version and length of the row; the row; the state. Builds up to state version 3 write the
// tokens alone, b11669 (version 4) puts -1, 1 and their number before and the number of images, 0, behind.
const (
	slotMagic   = 0x67677371 // "ggsq"
	rowMark     = -1
	rowVersion  = 1
	rowOverhead = 4
)

// errFormat says that a file is not one of those we can read, so that nobody can tell what it holds.
var errFormat = errors.New("unknown format")

// readTokens returns the tokens of a slot's file, of which the engine said that they are n.
func readTokens(path string, n int) ([]int32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var head [3]uint32
	if err := binary.Read(f, binary.LittleEndian, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	words := int64(head[2])
	if head[0] != slotMagic || words != int64(n) && words != int64(n)+rowOverhead {
		return nil, fmt.Errorf("%w: %x, version %d, a row of %d for %d tokens", errFormat, head[0], head[1], words, n)
	}
	row := make([]int32, words)
	if err := binary.Read(f, binary.LittleEndian, row); err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	if words == int64(n) {
		return row, nil
	}
	if row[0] != rowMark || row[1] != rowVersion || int(row[2]) != n || row[words-1] != 0 {
		return nil, fmt.Errorf("%w: a row that begins %d and ends %d", errFormat, row[:3], row[words-1])
	}
	return row[3 : words-1], nil
}

// sumChunk is how much of a file is read at a time.
const sumChunk = 1 << 20

// checksum returns a file's length and XXH64. It finds damage, not malice: who can write here is this user.
// (Measured, 139 MB in memory, on busy cores: XXH64 50 ms, CRC-32C 100 ms, SHA-256 300 ms.)
func checksum(ctx context.Context, path string) (size int64, sum uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	h := xxhash.New()
	buf := make([]byte, sumChunk)
	for {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		n, err := f.Read(buf)
		_, _ = h.Write(buf[:n]) // never fails
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, h.Sum64(), nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}
