package memory

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// Key names a model as it is configured: what changes its memory is in it, and its name is not, so that two names for the
// same share what was learnt. A model file that was replaced has another key.
func Key(m *modeldir.Model) string {
	var size, modified int64
	if info, err := os.Stat(m.ModelPath); err == nil && m.ModelPath != "" {
		size, modified = info.Size(), info.ModTime().UnixNano()
	}
	what := struct {
		Path                        string
		Size, Modified              int64
		Engine                      string
		Kind                        modeldir.Kind
		Context, Batch, Concurrency int
		Wasm, EmbeddingModel        string
		Args, Command, Devices      []string
		Env                         map[string]string
		Layers, MainGPU             *int
		SplitMode                   string
		TensorSplit                 []float64
	}{
		m.ModelPath, size, modified, engine.For(m).Name, m.Kind, m.CtxSize, m.BatchSize, m.Concurrency, m.Wasm, m.EmbeddingModelPath,
		m.Args, m.Command, m.Devices, m.Env, m.NGPULayers, m.MainGPU, m.SplitMode, m.TensorSplit,
	}
	b, err := json.Marshal(what) // maps in the order of their keys
	if err != nil {
		return "" // numbers that JSON has no word for: shared, but harmless
	}
	hash := sha256.Sum256(b)
	return hex.EncodeToString(hash[:16])
}
