package memory

import (
	"os"
	"path/filepath"
	"testing"

	"assistant/internal/gguf/gguftest"
)

func headerOf(t *testing.T, f *gguftest.File) header {
	t.Helper()
	h, err := readHeader(f.Write(t, filepath.Join(t.TempDir(), "m.gguf")))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// FuzzNeed: whatever a header says, nothing is needed in the negative.
func FuzzNeed(f *testing.F) {
	b, _ := new(gguftest.File).Add("general.architecture", "gemma3").Add("gemma3.block_count", 3).Add("gemma3.embedding_length", 64).
		Add("gemma3.attention.sliding_window", 512).Add("gemma3.attention.head_count_kv", []int{1, 2, 0}).
		Add("tokenizer.ggml.tokens", []string{"a", "bc"}).Tensor("blk.0.attn_q.weight", 64).Tensor("output.weight", 32).Bytes()
	f.Add(b, int64(4096))
	path := filepath.Join(f.TempDir(), "m.gguf")
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if os.WriteFile(path, b, 0o600) != nil || os.Truncate(path, max(int64(len(b)), size%(1<<40))) != nil {
			t.Skip("no such file can be made")
		}
		h, err := readHeader(path)
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
