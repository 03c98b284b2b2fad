package ollama

import (
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// Pull is a request to bring a model here: POST /api/pull.
type Pull struct {
	Name   string // as it was asked for
	Stream bool   // default true
}

// ReadPull reads the body of POST /api/pull. Errors are as those of [Chat].
func ReadPull(body []byte) (Pull, error) {
	p := Pull{Stream: true}
	req, err := dialect.ReadRequest(body)
	if err != nil {
		return p, err
	}
	for _, field := range []string{"model", "name"} {
		if p.Name, err = req.Text(field); err != nil {
			return p, err
		}
		if p.Name != "" {
			break
		}
	}
	if p.Name == "" {
		return p, openai.ModelRequired()
	}
	if req.Has("stream") {
		p.Stream, err = req.Flag("stream")
	}
	return p, err
}

// Source is the model_source that Ollama's clients mean: theirs is Ollama's registry, or the hub where the name begins with its address.
func (p Pull) Source() string {
	for _, hub := range []string{"hf.co/", "huggingface.co/"} {
		if repo, ok := strings.CutPrefix(p.Name, hub); ok {
			return "hf:" + repo
		}
	}
	if scheme, _, ok := strings.Cut(p.Name, ":"); ok && (scheme == "hf" || scheme == "oci" || scheme == "https" || scheme == "http" || scheme == "file" || scheme == "ollama") {
		return p.Name // ours
	}
	return "ollama:" + p.Name
}

// Pulling is a line of the answer to it.
type Pulling struct {
	Status    string `json:"status,omitempty"`
	Digest    string `json:"digest,omitempty"`
	Total     int64  `json:"total,omitempty"`     // bytes
	Completed int64  `json:"completed,omitempty"` // bytes
	Error     string `json:"error,omitempty"`
}

// Lines of an answer that say no more than their status.
const (
	PullingManifest = "pulling manifest"
	Verifying       = "verifying sha256 digest"
	WritingManifest = "writing manifest"
	Success         = "success"
)

// PullingFile is the line that tells how far a file is.
func PullingFile(name, sha256 string, done, total int64) Pulling {
	const shown = 12 // digits of a digest, as Ollama's have
	p := Pulling{Status: "pulling " + name, Total: max(total, 0), Completed: done}
	if len(sha256) >= shown {
		p.Status, p.Digest = "pulling "+sha256[:shown], "sha256:"+sha256
	}
	return p
}

// Line is a line of NDJSON.
func (p Pulling) Line() []byte { return append(openai.Marshal(p), '\n') }
