package gguf_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/gguf"
	"assistant/internal/gguf/gguftest"
)

// read reads a file of size bytes that begins with b.
func read(t *testing.T, b []byte, size int64) (*gguf.Header, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return gguf.Read(path)
}

func header(t *testing.T, f *gguftest.File) *gguf.Header {
	t.Helper()
	b, size := f.Bytes()
	h, err := read(t, b, size)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeader(t *testing.T) {
	template := strings.Repeat("x", 9000)
	f := new(gguftest.File).Add("general.architecture", "llama").Add("llama.block_count", 2).
		Add("llama.attention.head_count_kv", []int{4, 0}).
		Add("tokenizer.ggml.bos_token_id", 1).Add("tokenizer.ggml.eos_token_id", 9).
		Add("tokenizer.ggml.tokens", []string{"a", "b", "c"}).Add("tokenizer.chat_template", template).
		Tensor("token_embd.weight", 640).Tensor("blk.0.attn_q.weight", 320).Tensor("blk.1.attn_q.weight", 96)
	h := header(t, f)
	if h.Arch != "llama" || h.Vocab != 3 || h.Number("block_count", 0) != 2 || h.Layer("attention.head_count_kv", 0, 9) != 4 || h.Count != 1 ||
		h.Template != template || h.BOS != "b" || h.EOS != "" {
		t.Errorf("%.1000v", h)
	}
	sizes := map[string]int64{}
	for _, tensor := range h.Tensors {
		sizes[tensor.Name] = tensor.Bytes
	}
	if sizes["token_embd.weight"] != 640 || sizes["blk.0.attn_q.weight"] != 320 || sizes["blk.1.attn_q.weight"] != 96 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestHeaderOfASplitModel(t *testing.T) {
	dir := t.TempDir()
	part := func(i int) *gguftest.File {
		return new(gguftest.File).Add("general.architecture", "llama").Add("split.count", 3).Add("split.no", i-1).
			Tensor(fmt.Sprintf("blk.%d.attn_q.weight", i), int64(100*i))
	}
	for i := 1; i <= 3; i++ {
		part(i).Write(t, filepath.Join(dir, fmt.Sprintf("m-%05d-of-00003.gguf", i)))
	}
	h, err := gguf.Read(filepath.Join(dir, "m-00001-of-00003.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, tensor := range h.Tensors {
		sum += tensor.Bytes
	}
	if len(h.Tensors) != 3 || sum != 600 {
		t.Errorf("%d tensors of %d bytes, want 3 of 600", len(h.Tensors), sum)
	}
	if err := os.Remove(filepath.Join(dir, "m-00003-of-00003.gguf")); err != nil {
		t.Fatal(err)
	}
	if _, err := gguf.Read(filepath.Join(dir, "m-00001-of-00003.gguf")); err == nil || !strings.Contains(err.Error(), "m-00003-of-00003.gguf") {
		t.Errorf("a part is missing: %v", err)
	}
	wrong := part(1).Write(t, filepath.Join(dir, "other.gguf"))
	if _, err := gguf.Read(wrong); err == nil || !strings.Contains(err.Error(), "of-00003.gguf") {
		t.Errorf("the name does not tell of the others: %v", err)
	}
}

func TestDamagedHeaders(t *testing.T) {
	good, size := new(gguftest.File).Add("general.architecture", "llama").Add("llama.block_count", 1).Tensor("blk.0.x", 64).Tensor("blk.0.y", 64).Bytes()
	for name, b := range map[string][]byte{
		"empty":        {},
		"another kind": []byte("PK\x03\x04 and so on, longer than a header's beginning"),
		"cut off":      good[:len(good)-9],
		"version 1":    append([]byte("GGUF\x01\x00\x00\x00"), good[8:]...),
		"big-endian":   append([]byte("GGUF\x00\x00\x00\x03"), good[8:]...),
		"many tensors": append(append([]byte{}, good[:8]...), bytes.Repeat([]byte{0xff}, 40)...),
		"long string":  append(append([]byte{}, good[:24]...), bytes.Repeat([]byte{0x7f}, 40)...),
	} {
		if _, err := read(t, b, int64(len(b))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := read(t, good, size-100); err == nil {
		t.Error("a download that was cut off: no error")
	}
}

func FuzzHeader(f *testing.F) {
	b, _ := new(gguftest.File).Add("general.architecture", "gemma3").Add("gemma3.block_count", 3).Add("tokenizer.ggml.eos_token_id", 1).
		Add("gemma3.attention.head_count_kv", []int{1, 2, 0}).Add("tokenizer.chat_template", "{{ bos_token }}").
		Add("tokenizer.ggml.tokens", []string{"a", "bc"}).Tensor("blk.0.attn_q.weight", 64).Tensor("output.weight", 32).Bytes()
	f.Add(b)
	path := filepath.Join(f.TempDir(), "m.gguf")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := gguf.Read(path)
		if err != nil {
			return
		}
		for _, tensor := range h.Tensors {
			if tensor.Bytes < 0 || tensor.Bytes > int64(len(b)) {
				t.Errorf("%s has %d bytes, the file %d", tensor.Name, tensor.Bytes, len(b))
			}
		}
	})
}
