// Package gguf reads the headers of model files (ggml/docs/gguf.md): what a model says of itself, without loading it.
package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// Bounds on what a header may hold: far above any real model's, and low enough that a damaged or hostile file costs neither
// memory nor time. Vocabularies have up to 260,000 entries, models up to some thousand tensors.
const (
	maxPairs    = 1 << 16
	maxTensors  = 1 << 20
	maxString   = 1 << 24 // bytes; chat templates have some thousand
	maxItems    = 1 << 24 // of an array
	maxElements = 1 << 40 // of a tensor, to be counted
	MaxLayers   = 1 << 12 // items of an array of numbers that is kept: one per layer
)

var errGGUF = errors.New("not a GGUF file, or a damaged one")

// Header is what a GGUF file says of itself: numbers, and arrays of a number a layer, by key; names and sizes of tensors.
type Header struct {
	Arch    string
	Numbers map[string]float64
	Arrays  map[string][]float64
	Tensors []Tensor
	Count   int // of files the model is split over; 1 = whole
	Vocab   int // entries

	Parameters int64 // elements of all tensors

	Template string // of a chat, Jinja; "" = none
	BOS, EOS string // the tokens that begin and end a text; "" = none
}

// Tensor is what a header says of one.
type Tensor struct {
	Name  string
	Kind  uint32 // ggml's number of its type
	Bytes int64
}

// Read returns the header of the model at path and of its further parts (NAME-00001-of-0000N.gguf).
func Read(path string) (*Header, error) {
	h, err := readOne(path)
	if err != nil {
		return nil, err
	}
	if h.Count <= 1 {
		return h, nil
	}
	for i := 2; i <= h.Count; i++ {
		part, ok := PartPath(path, i, h.Count)
		if !ok {
			return nil, fmt.Errorf("%s is the first of %d files, but is not named …-00001-of-%05d.gguf", path, h.Count, h.Count)
		}
		more, err := readOne(part)
		if err != nil {
			return nil, err
		}
		h.Tensors = append(h.Tensors, more.Tensors...)
		h.Parameters += more.Parameters
	}
	return h, nil
}

// PartPath is the path of the i-th of n files, as llama.cpp names them (llama_split_path).
func PartPath(first string, i, n int) (string, bool) {
	stem, ok := strings.CutSuffix(first, fmt.Sprintf("-00001-of-%05d.gguf", n))
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", stem, i, n), ok
}

func readOne(path string) (*Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h, err := parse(bufio.NewReaderSize(f, 1<<16), info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// parser reads a header; the first failure stays.
type parser struct {
	r    *bufio.Reader
	left int64 // bytes of the file not read yet
	err  error

	tokens []byte // of the vocabulary, one after the other
	ends   []int  // where each of them ends
}

func parse(r *bufio.Reader, size int64) (*Header, error) {
	p := &parser{r: r, left: size}
	magic, version := p.u32(), p.u32()
	tensors, pairs := p.u64(), p.u64()
	if p.err != nil || magic != 0x46554747 || version < 2 || version > 3 || tensors > maxTensors || pairs > maxPairs {
		return nil, errGGUF
	}
	h := &Header{Numbers: map[string]float64{}, Arrays: map[string][]float64{}, Count: 1}
	for range pairs {
		p.pair(h)
		if p.err != nil {
			return nil, errGGUF
		}
	}
	h.BOS, h.EOS = p.token(h, "bos"), p.token(h, "eos")
	if n := h.Numbers["split.count"]; n >= 1 && n < 100000 {
		h.Count = int(n)
	}
	p.tensors(h, int(tensors), size)
	if p.err != nil {
		return nil, errGGUF
	}
	return h, nil
}

// The types of values.
const (
	typeU8 = iota
	typeI8
	typeU16
	typeI16
	typeU32
	typeI32
	typeF32
	typeBool
	typeString
	typeArray
	typeU64
	typeI64
	typeF64
)

func (p *parser) pair(h *Header) {
	key := p.text()
	switch kind := p.u32(); kind {
	case typeString:
		switch s := p.text(); key {
		case "general.architecture":
			h.Arch = s
		case "tokenizer.chat_template":
			h.Template = s
		}
	case typeArray:
		p.array(h, key)
	default:
		h.Numbers[key] = p.number(kind)
	}
}

// array keeps short arrays of numbers and passes over the rest, vocabularies above all.
func (p *parser) array(h *Header, key string) {
	kind, n := p.u32(), p.u64()
	if n > maxItems || kind == typeArray {
		p.err = errGGUF
		return
	}
	if key == "tokenizer.ggml.tokens" {
		h.Vocab = int(n)
		if kind == typeString {
			p.vocabulary(n)
			return
		}
	}
	if kind == typeString {
		for range n {
			p.skip(p.u64())
			if p.err != nil {
				return
			}
		}
		return
	}
	if n > MaxLayers {
		p.skip(n * width(kind))
		return
	}
	items := make([]float64, 0, n)
	for range n {
		items = append(items, p.number(kind))
	}
	h.Arrays[key] = items
}

// vocabulary keeps the tokens, of which the header says later which ones begin and end a text.
func (p *parser) vocabulary(n uint64) {
	for range n {
		size := p.u64()
		if p.err != nil || size > maxString || int64(size) > p.left {
			p.err = errGGUF
			return
		}
		begin := len(p.tokens)
		p.tokens = append(p.tokens, make([]byte, size)...)
		_, p.err = io.ReadFull(p.r, p.tokens[begin:])
		p.left -= int64(size)
		p.ends = append(p.ends, len(p.tokens))
	}
}

// token returns the text of the token that the header names as bos or eos.
func (p *parser) token(h *Header, which string) string {
	id, ok := h.Numbers["tokenizer.ggml."+which+"_token_id"]
	if !ok || id < 0 || int(id) >= len(p.ends) {
		return ""
	}
	begin := 0
	if id >= 1 {
		begin = p.ends[int(id)-1]
	}
	return string(p.tokens[begin:p.ends[int(id)]])
}

// tensors reads the list of tensors. A tensor is as long as it is to the next one, or to the end of
// the file: that needs no table of types, and holds for types that are yet to come.
func (p *parser) tensors(h *Header, n int, size int64) {
	type place struct {
		name   string
		kind   uint32
		offset uint64
	}
	var places []place
	for range n {
		at := place{name: p.text()}
		dimensions := p.u32()
		if dimensions > 8 {
			p.err = errGGUF
			return
		}
		elements := uint64(1)
		for range dimensions {
			elements *= p.u64()
		}
		h.Parameters += int64(min(elements, maxElements))
		at.kind = p.u32()
		at.offset = p.u64()
		if p.err != nil {
			return
		}
		places = append(places, at)
	}
	slices.SortFunc(places, func(a, b place) int {
		switch {
		case a.offset < b.offset:
			return -1
		case a.offset > b.offset:
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	data := size - p.left // where the tensors' data begins, less the padding
	end := uint64(max(0, size-data))
	for _, at := range slices.Backward(places) {
		if at.offset > end {
			p.err = errGGUF // it lies beyond the file: a download that was cut off
			return
		}
		h.Tensors = append(h.Tensors, Tensor{at.name, at.kind, int64(end - at.offset)}) //nolint:gosec // within the file
		end = at.offset
	}
}

func width(kind uint32) uint64 {
	switch kind {
	case typeU8, typeI8, typeBool:
		return 1
	case typeU16, typeI16:
		return 2
	case typeU32, typeI32, typeF32:
		return 4
	default:
		return 8
	}
}

func (p *parser) number(kind uint32) float64 {
	switch kind {
	case typeU8, typeBool:
		return float64(p.bytes(1)[0])
	case typeI8:
		return float64(int8(p.bytes(1)[0])) //nolint:gosec // its bits
	case typeU16:
		return float64(binary.LittleEndian.Uint16(p.bytes(2)))
	case typeI16:
		return float64(int16(binary.LittleEndian.Uint16(p.bytes(2)))) //nolint:gosec // its bits
	case typeU32:
		return float64(p.u32())
	case typeI32:
		return float64(int32(p.u32())) //nolint:gosec // its bits
	case typeF32:
		return float64(math.Float32frombits(p.u32()))
	case typeU64:
		return float64(p.u64())
	case typeI64:
		return float64(int64(p.u64())) //nolint:gosec // its bits
	case typeF64:
		return math.Float64frombits(p.u64())
	default:
		p.err = errGGUF
		return 0
	}
}

func (p *parser) u32() uint32 { return binary.LittleEndian.Uint32(p.bytes(4)) }
func (p *parser) u64() uint64 { return binary.LittleEndian.Uint64(p.bytes(8)) }

// bytes reads up to 8 bytes; zeros after a failure.
func (p *parser) bytes(n int) []byte {
	b := make([]byte, 8)
	if p.err != nil {
		return b
	}
	_, p.err = io.ReadFull(p.r, b[:n])
	p.left -= int64(n)
	return b
}

func (p *parser) text() string {
	n := p.u64()
	if p.err != nil || n > maxString || int64(n) > p.left {
		p.err = errGGUF
		return ""
	}
	b := make([]byte, n)
	_, p.err = io.ReadFull(p.r, b)
	p.left -= int64(n)
	return string(b)
}

func (p *parser) skip(n uint64) {
	if p.err != nil || n > math.MaxInt32 || int64(n) > p.left {
		p.err = errGGUF
		return
	}
	_, p.err = p.r.Discard(int(n))
	p.left -= int64(n)
}

// Number returns the architecture's number under a key such as "block_count", or fallback. It is never negative.
func (h *Header) Number(key string, fallback float64) float64 {
	if n, ok := h.Numbers[h.Arch+"."+key]; ok && n >= 0 && n < 1<<40 {
		return n
	}
	return fallback
}

// Layer returns the number of layer i under a key that has one for all layers or one for each.
func (h *Header) Layer(key string, i int, fallback float64) float64 {
	if items, ok := h.Arrays[h.Arch+"."+key]; ok {
		if i < len(items) && items[i] >= 0 && items[i] < 1<<40 {
			return items[i]
		}
		return fallback
	}
	return h.Number(key, fallback)
}
