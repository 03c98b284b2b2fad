package ollama

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// embedAnswer is that of /api/embed.
type embedAnswer struct {
	Model      string            `json:"model"`
	Embeddings []json.RawMessage `json:"embeddings"`
	Total      time.Duration     `json:"total_duration"` // in nanoseconds
	Load       time.Duration     `json:"load_duration"`  // 0: nobody knows
	Prompt     int               `json:"prompt_eval_count"`
}

// embeddingsAnswer is that of /api/embeddings.
type embeddingsAnswer struct {
	Embedding json.RawMessage `json:"embedding"`
}

// Embed reads the body of POST /api/embed, as [Chat]: input is a text or an array of texts, of which dimensions, if it is given, shortens
// the vectors. An input that is empty loads the model. options, keep_alive and truncate are checked for nothing and ignored: engines refuse
// a text that is too long.
func Embed(body []byte) (*Call, error) {
	c, req, err := newEmbedding(embed, body)
	if err != nil {
		return nil, err
	}
	input := req.Fields["input"]
	switch {
	case input == nil, string(input) == `""`:
	case input[0] == '"':
		c.inputs = 1
	default:
		list, err := texts(req, "input")
		if err != nil {
			return nil, err
		}
		c.inputs = len(list)
	}
	dimensions, err := req.Count("dimensions")
	if err != nil {
		return nil, err
	}
	c.dimensions = max(0, dimensions)
	c.writeInput(input)
	return c, nil
}

// Embeddings reads the body of POST /api/embeddings, which Embed has replaced: prompt is one text.
func Embeddings(body []byte) (*Call, error) {
	c, req, err := newEmbedding(embeddings, body)
	if err != nil {
		return nil, err
	}
	prompt, err := req.Quoted("prompt")
	if err != nil {
		return nil, err
	}
	if isText(prompt) {
		c.inputs = 1
	}
	c.writeInput(prompt)
	return c, nil
}

func newEmbedding(of kind, body []byte) (*Call, dialect.Object, error) {
	c, req, err := newCall(of, body)
	if err == nil {
		c.path = "/v1/embeddings"
		_, err = req.Object("options")
	}
	return c, req, err
}

// writeInput makes the body.
func (c *Call) writeInput(input []byte) {
	b := c.begin(len(input))
	if c.inputs == 0 {
		c.action = Load
	} else {
		b.Field("input", input)
		b.Field("encoding_format", []byte(`"float"`))
	}
	b.Close('}')
	c.body = b.Buf
}

// embedded makes the client's answer of vectors.
func (c *Call) embedded(body []byte) ([]byte, error) {
	var told struct {
		Data []struct {
			Index     int             `json:"index"`
			Embedding json.RawMessage `json:"embedding"`
		} `json:"data"`
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		} `json:"usage"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(body, &told); err != nil {
		return nil, badVectors(err.Error())
	}
	if len(told.Error) > 0 && string(told.Error) != "null" {
		return nil, openai.ReadError(0, body)
	}
	vectors := make([]json.RawMessage, c.inputs)
	for _, v := range told.Data {
		if v.Index < 0 || v.Index >= c.inputs {
			return nil, badVectors(fmt.Sprintf("it has vector %d of %d texts", v.Index, c.inputs))
		}
		if len(v.Embedding) == 0 || v.Embedding[0] != '[' {
			return nil, badVectors(fmt.Sprintf("vector %d is no list of numbers", v.Index))
		}
		vector, err := c.shorten(v.Embedding)
		if err != nil {
			return nil, badVectors(err.Error())
		}
		vectors[v.Index] = vector
	}
	for i, vector := range vectors {
		if vector == nil {
			return nil, badVectors(fmt.Sprintf("it lacks vector %d of %d texts", i, c.inputs))
		}
	}
	if c.kind == embeddings {
		return openai.Marshal(embeddingsAnswer{vectors[0]}), nil
	}
	return openai.Marshal(embedAnswer{Model: c.model, Embeddings: vectors, Total: time.Since(c.start), Prompt: told.Usage.Prompt}), nil
}

func badVectors(why string) error {
	return &openai.Error{
		Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeEngineFailed, Message: "the engine's answer: " + why,
	}
}

// shorten cuts a vector to the dimensions that were asked for and gives it the length 1 again, as Ollama does. Not all engines can.
func (c *Call) shorten(vector json.RawMessage) (json.RawMessage, error) {
	if c.dimensions == 0 {
		return vector, nil
	}
	var all []float64
	if err := json.Unmarshal(vector, &all); err != nil {
		return nil, err
	}
	if len(all) <= c.dimensions {
		return vector, nil
	}
	short, sum := all[:c.dimensions], 0.0
	for _, x := range short {
		sum += x * x
	}
	length := max(math.Sqrt(sum), 1e-12)
	for i, x := range short {
		short[i] = x / length
	}
	return openai.Marshal(short), nil
}
