package enginetest

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/fnv"
	"math"
	"strings"
)

// Dimensions is the length of an embedding.
const Dimensions = 384

// Embed returns the vector of a text: normalised, the same in every run, and
// the nearer to another's the more words they share.
func Embed(text string) []float32 {
	var v [Dimensions]float64
	for w := range strings.FieldsSeq(strings.ToLower(text)) {
		h := fnv.New64a()
		_, _ = h.Write([]byte(w)) // never fails
		for x, i := h.Sum64(), 0; i < 8; i++ {
			x = x*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
			v[x>>32%Dimensions] += 1 - 2*float64(x>>63)
		}
	}
	var sum float64
	for _, x := range v {
		sum += x * x
	}
	out := make([]float32, Dimensions)
	if sum == 0 {
		out[0] = 1
		return out
	}
	for i, x := range v {
		out[i] = float32(x / math.Sqrt(sum))
	}
	return out
}

type embeddingList struct {
	Model  string         `json:"model"`
	Object string         `json:"object"`
	Usage  map[string]int `json:"usage"`
	Data   []embedding    `json:"data"`
}

type embedding struct {
	Embedding any    `json:"embedding"` // []float32, or their little-endian bytes in base64
	Index     int    `json:"index"`
	Object    string `json:"object"`
	Encoding  string `json:"encoding_format,omitempty"`
}

func embeddings(r request, model string) (embeddingList, error) {
	inputs, err := texts(r.Input)
	if err != nil {
		return embeddingList{}, err
	}
	out := embeddingList{Model: model, Object: "list"}
	words := 0
	for i, in := range inputs {
		words += 2 + len(strings.Fields(in)) // as BERT does, with a mark at each end
		e := embedding{Embedding: Embed(in), Index: i, Object: "embedding"}
		if r.Encoding == "base64" {
			raw, err := binary.Append(nil, binary.LittleEndian, e.Embedding)
			if err != nil {
				return out, err
			}
			e.Embedding, e.Encoding = base64.StdEncoding.EncodeToString(raw), "base64"
		}
		out.Data = append(out.Data, e)
	}
	out.Usage = map[string]int{"prompt_tokens": words, "total_tokens": words}
	return out, nil
}

// texts reads an input: a string or an array of strings.
func texts(raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(raw, &many) == nil && len(many) > 0 {
		return many, nil
	}
	return nil, errors.New(`"input" must be a string or an array of strings`)
}
