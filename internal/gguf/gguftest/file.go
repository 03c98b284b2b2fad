// Package gguftest writes headers of model files for tests.
package gguftest

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"assistant/internal/gguf"
)

// The types of values that are written.
const (
	typeU32    = 4
	typeI32    = 5
	typeBool   = 7
	typeString = 8
	typeArray  = 9
)

// File writes GGUF headers for tests. The tensors' data is left out: only the length of the file tells of it.
type File struct {
	pairs   [][]byte
	Tensors []gguf.Tensor
}

func str(s string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...)
}

// Add writes one more pair: a string, an int, a bool, or a slice of them.
func (f *File) Add(key string, v any) *File {
	b := str(key)
	le := binary.LittleEndian
	switch v := v.(type) {
	case string:
		b = append(le.AppendUint32(b, typeString), str(v)...)
	case int:
		b = le.AppendUint32(le.AppendUint32(b, typeU32), uint32(v)) //nolint:gosec // tests know
	case bool:
		b = append(le.AppendUint32(b, typeBool), map[bool]byte{true: 1}[v])
	case []int:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), typeI32), uint64(len(v)))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n)) //nolint:gosec // tests know
		}
	case []string:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), typeString), uint64(len(v)))
		for _, s := range v {
			b = append(b, str(s)...)
		}
	default:
		panic(fmt.Sprintf("%T", v))
	}
	f.pairs = append(f.pairs, b)
	return f
}

// Tensor writes one more tensor.
func (f *File) Tensor(name string, bytes int64) *File {
	f.Tensors = append(f.Tensors, gguf.Tensor{Name: name, Bytes: bytes})
	return f
}

// Bytes returns the header and the length of the whole file.
func (f *File) Bytes() ([]byte, int64) {
	le := binary.LittleEndian
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	b = le.AppendUint64(le.AppendUint64(b, uint64(len(f.Tensors))), uint64(len(f.pairs)))
	for _, p := range f.pairs {
		b = append(b, p...)
	}
	var offset int64
	for _, t := range f.Tensors {
		b = append(b, str(t.Name)...)
		b = le.AppendUint64(le.AppendUint32(b, 1), uint64(t.Bytes/2)) //nolint:gosec // tests know
		b = le.AppendUint64(le.AppendUint32(b, t.Kind), uint64(offset))
		offset += t.Bytes
	}
	return b, int64(len(b)) + offset
}

// Write makes the file, sparse.
func (f *File) Write(tb testing.TB, path string) string {
	tb.Helper()
	b, size := f.Bytes()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		tb.Fatal(err)
	}
	return path
}
