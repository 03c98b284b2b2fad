package contexts

import (
	"encoding/binary"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// block is how many tokens beginnings are compared by. What is shorter is not kept: it is computed again in a moment.
const block = 64

// prefix is a row of tokens in short: a hash of its first block, of its first two, and so on, and of the whole.
type prefix struct {
	Tokens int      `json:"tokens"`
	Blocks []uint64 `json:"blocks"`
	Whole  uint64   `json:"whole"`
}

func prefixOf(tokens []int32) prefix {
	p := prefix{Tokens: len(tokens), Blocks: make([]uint64, 0, len(tokens)/block)}
	h := xxhash.New()
	for len(tokens) >= block {
		hashTokens(h, tokens[:block])
		p.Blocks = append(p.Blocks, h.Sum64())
		tokens = tokens[block:]
	}
	hashTokens(h, tokens)
	p.Whole = h.Sum64()
	return p
}

func hashTokens(h *xxhash.Digest, tokens []int32) {
	var buf [4 * block]byte
	b := buf[:0]
	for _, t := range tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(t)) //nolint:gosec // its bits are what counts
	}
	_, _ = h.Write(b) // never fails
}

// row is a row of tokens and its short form.
type row struct {
	tokens []int32
	prefix prefix
}

func rowOf(tokens []int32) row { return row{tokens, prefixOf(tokens)} }

// begins says whether r begins with all of p.
func (r row) begins(p prefix) bool {
	n := p.Tokens / block
	if p.Tokens > len(r.tokens) || n > 0 && r.prefix.Blocks[n-1] != p.Blocks[n-1] {
		return false
	}
	return prefixOf(r.tokens[:p.Tokens]).Whole == p.Whole
}

// common returns how many tokens r and p have in common at their beginning: exactly, if that is all of p, else in
// whole blocks.
func (r row) common(p prefix) int {
	n := min(len(r.prefix.Blocks), len(p.Blocks))
	equal := sort.Search(n, func(i int) bool { return r.prefix.Blocks[i] != p.Blocks[i] })
	if equal == len(p.Blocks) && r.begins(p) {
		return p.Tokens
	}
	return equal * block
}
