package enginetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// request is what the engine reads of a body.
type request struct {
	Model         string          `json:"model"`
	Stream        bool            `json:"stream"`
	MaxTokens     *int            `json:"max_tokens"`
	MaxCompletion *int            `json:"max_completion_tokens"`
	StreamOptions streamOptions   `json:"stream_options"`
	Encoding      string          `json:"encoding_format"`
	Input         json.RawMessage `json:"input"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

var errSyntax = errors.New("syntax error while parsing the request")

// readRequest picks the fields of a request out of its body. It skips the
// conversation instead of decoding it, so that large bodies in a benchmark
// measure the router and not this engine.
func readRequest(body []byte) (request, error) {
	var r request
	short, err := withoutLong(body)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(short, &r)
}

// withoutLong returns a JSON object less its top-level members messages and prompt.
func withoutLong(body []byte) ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	i := skipSpace(body, 0)
	if i == len(body) || body[i] != '{' {
		return nil, errSyntax
	}
	for i = skipSpace(body, i+1); i < len(body) && body[i] == '"'; {
		start := i
		colon := skipSpace(body, skipString(body, i))
		end := skipValue(body, colon)
		if colon >= len(body) || body[colon] != ':' || end >= len(body) {
			return nil, errSyntax
		}
		if key := strings.Trim(string(body[start:colon]), "\" \t\r\n"); key != "messages" && key != "prompt" {
			if out.Len() > 1 {
				out.WriteByte(',')
			}
			out.Write(body[start:end])
		}
		i = end
		if body[i] == ',' {
			i = skipSpace(body, i+1)
		}
	}
	if i >= len(body) || body[i] != '}' {
		return nil, errSyntax
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// skipValue returns the index of the comma or bracket that ends the value in b
// at or after i, or len(b).
func skipValue(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = skipString(b, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// skipString returns the index after the string that opens at b[i], or len(b).
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			break
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
	return len(b)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}
