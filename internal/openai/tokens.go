package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/tiktoken-go/tokenizer/codec"
)

// TextOfTokens returns the request for embeddings with its input as text, where that is an array of token ids or an array of such
// arrays; nil where it is not. The ids are of OpenAI's cl100k_base, the vocabulary of its embedding models, by which langchain-openai and
// others cut what they embed (tiktoken). Other models would take them for words of their own, and answer with vectors of nonsense.
//
// Errors are *Error with status 400.
func TextOfTokens(body []byte, req Request) ([]byte, error) {
	from, to := req.InputSpan[0], req.InputSpan[1]
	input := body[from:to]
	if !holdsNumbers(input) {
		return nil, nil
	}
	lists, err := tokenLists(input)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(lists))
	for i, ids := range lists {
		if texts[i], err = cl100k().Decode(ids); err != nil || len(ids) == 0 {
			return nil, badTokens()
		}
	}
	out := make([]byte, 0, len(body))
	out = append(out, body[:from]...)
	out = append(out, Marshal(texts)...)
	return append(out, body[to:]...), nil
}

// cl100k is made when it is first needed: it takes some 20 MB.
var cl100k = sync.OnceValue(codec.NewCl100kBase)

// holdsNumbers reports whether an input begins as one of token ids does.
func holdsNumbers(input []byte) bool {
	first := bytes.TrimLeft(input, "[ \t\r\n")
	return len(input) > 0 && input[0] == '[' && len(first) > 0 && (first[0] >= '0' && first[0] <= '9' || first[0] == '-')
}

func tokenLists(input []byte) ([][]uint, error) {
	var one []uint
	if json.Unmarshal(input, &one) == nil {
		return [][]uint{one}, nil
	}
	var lists [][]uint
	if json.Unmarshal(input, &lists) != nil {
		return nil, badTokens()
	}
	return lists, nil
}

func badTokens() *Error {
	return InvalidRequest("input", fmt.Sprintf(
		`"input" must be text, or tokens of OpenAI's cl100k_base: an array of numbers from 0 to %d, or an array of such arrays`+
			` (for tokens of the model's own, token_ids = "model" is to be in its file)`, lastToken))
}

// lastToken is the highest ordinary id of cl100k_base (https://github.com/openai/tiktoken, openai_public.py).
const lastToken = 100255
