package memory

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// file writes GGUF headers for tests. The tensors' data is left out: only the length of the file tells of it.
type file struct {
	pairs   [][]byte
	tensors []tensor
}

func str(s string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...)
}

func (f *file) add(key string, v any) *file {
	b := str(key)
	le := binary.LittleEndian
	switch v := v.(type) {
	case string:
		b = append(le.AppendUint32(b, typeString), str(v)...)
	case int:
		b = le.AppendUint32(le.AppendUint32(b, typeU32), uint32(v))
	case bool:
		b = append(le.AppendUint32(b, typeBool), map[bool]byte{true: 1}[v])
	case []int:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), typeI32), uint64(len(v)))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
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

func (f *file) tensor(name string, bytes int64) *file {
	f.tensors = append(f.tensors, tensor{name: name, bytes: bytes})
	return f
}

// bytes returns the header and the length of the whole file.
func (f *file) bytes() ([]byte, int64) {
	le := binary.LittleEndian
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	b = le.AppendUint64(le.AppendUint64(b, uint64(len(f.tensors))), uint64(len(f.pairs)))
	for _, p := range f.pairs {
		b = append(b, p...)
	}
	var offset int64
	for _, t := range f.tensors {
		b = append(b, str(t.name)...)
		b = le.AppendUint64(le.AppendUint32(b, 1), uint64(t.bytes/2))
		b = le.AppendUint64(le.AppendUint32(b, t.kind), uint64(offset))
		offset += t.bytes
	}
	return b, int64(len(b)) + offset
}

// write makes the file, sparse.
func (f *file) write(t *testing.T, path string) string {
	t.Helper()
	b, size := f.bytes()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *file) header(t *testing.T) *header {
	t.Helper()
	b, size := f.bytes()
	h, err := parseHeader(bufio.NewReader(bytes.NewReader(b)), size)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeader(t *testing.T) {
	f := new(file).add("general.architecture", "llama").add("llama.block_count", 2).
		add("llama.attention.head_count_kv", []int{4, 0}).
		add("tokenizer.ggml.tokens", []string{"a", "b", "c"}).add("tokenizer.chat_template", strings.Repeat("x", 9000)).
		tensor("token_embd.weight", 640).tensor("blk.0.attn_q.weight", 320).tensor("blk.1.attn_q.weight", 96)
	h := f.header(t)
	if h.arch != "llama" || h.vocab != 3 || h.number("block_count", 0) != 2 || h.layer("attention.head_count_kv", 0, 9) != 4 || h.count != 1 {
		t.Errorf("%+v", h)
	}
	sizes := map[string]int64{}
	for _, tensor := range h.tensors {
		sizes[tensor.name] = tensor.bytes
	}
	if sizes["token_embd.weight"] != 640 || sizes["blk.0.attn_q.weight"] != 320 || sizes["blk.1.attn_q.weight"] != 96 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestHeaderOfASplitModel(t *testing.T) {
	dir := t.TempDir()
	part := func(i int) *file {
		return new(file).add("general.architecture", "llama").add("split.count", 3).add("split.no", i-1).
			tensor(fmt.Sprintf("blk.%d.attn_q.weight", i), int64(100*i))
	}
	for i := 1; i <= 3; i++ {
		part(i).write(t, filepath.Join(dir, fmt.Sprintf("m-%05d-of-00003.gguf", i)))
	}
	h, err := readHeaders(filepath.Join(dir, "m-00001-of-00003.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, tensor := range h.tensors {
		sum += tensor.bytes
	}
	if len(h.tensors) != 3 || sum != 600 {
		t.Errorf("%d tensors of %d bytes, want 3 of 600", len(h.tensors), sum)
	}
	if err := os.Remove(filepath.Join(dir, "m-00003-of-00003.gguf")); err != nil {
		t.Fatal(err)
	}
	if _, err := readHeaders(filepath.Join(dir, "m-00001-of-00003.gguf")); err == nil || !strings.Contains(err.Error(), "m-00003-of-00003.gguf") {
		t.Errorf("a part is missing: %v", err)
	}
	wrong := part(1).write(t, filepath.Join(dir, "other.gguf"))
	if _, err := readHeaders(wrong); err == nil || !strings.Contains(err.Error(), "of-00003.gguf") {
		t.Errorf("the name does not tell of the others: %v", err)
	}
}

func TestDamagedHeaders(t *testing.T) {
	good, size := new(file).add("general.architecture", "llama").add("llama.block_count", 1).tensor("blk.0.x", 64).tensor("blk.0.y", 64).bytes()
	for name, b := range map[string][]byte{
		"empty":        {},
		"another kind": []byte("PK\x03\x04 and so on, longer than a header's beginning"),
		"cut off":      good[:len(good)-9],
		"version 1":    append([]byte("GGUF\x01\x00\x00\x00"), good[8:]...),
		"big-endian":   append([]byte("GGUF\x00\x00\x00\x03"), good[8:]...),
		"many tensors": append(append([]byte{}, good[:8]...), bytes.Repeat([]byte{0xff}, 40)...),
		"long string":  append(append([]byte{}, good[:24]...), bytes.Repeat([]byte{0x7f}, 40)...),
	} {
		if _, err := parseHeader(bufio.NewReader(bytes.NewReader(b)), int64(len(b))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := parseHeader(bufio.NewReader(bytes.NewReader(good)), size-100); err == nil {
		t.Error("a download that was cut off: no error")
	}
}

func FuzzHeader(f *testing.F) {
	b, _ := new(file).add("general.architecture", "gemma3").add("gemma3.block_count", 3).add("gemma3.embedding_length", 64).
		add("gemma3.attention.sliding_window", 512).add("gemma3.attention.head_count_kv", []int{1, 2, 0}).
		add("tokenizer.ggml.tokens", []string{"a", "bc"}).tensor("blk.0.attn_q.weight", 64).tensor("output.weight", 32).bytes()
	f.Add(b, int64(4096))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		h, err := parseHeader(bufio.NewReader(bytes.NewReader(b)), size)
		if err != nil {
			return
		}
		n, err := settings{context: 4096, slots: 1, streams: 1, batch: 512, keyBits: 16, valueBits: 16}.need(h)
		if err != nil {
			return
		}
		for l := range n.Layers() + 1 {
			if hard, soft := n.Host(l); hard < 0 || soft < 0 {
				t.Errorf("%d layers: %d and %d", l, hard, soft)
			}
		}
	})
}

func FuzzFit(f *testing.F) {
	f.Add("CUDA0 15000 1024 300 \nHost 500 0 20 \n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, l := range parseFit(out) {
			if l.model < 0 || l.context < 0 || l.compute < 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}
