package responses

import "encoding/json"

// logprob is how likely a token was.
type logprob struct {
	Token   string       `json:"token"`
	Bytes   []int        `json:"bytes"`
	Logprob float64      `json:"logprob"`
	Top     []topLogprob `json:"top_logprobs"`
}

type topLogprob struct {
	Token   string  `json:"token"`
	Bytes   []int   `json:"bytes"`
	Logprob float64 `json:"logprob"`
}

// readLogprobs reads those of a chunk, if they were asked for, with as many alternatives as were.
func (b *builder) readLogprobs(raw json.RawMessage) []logprob {
	if !b.call.logprobs || raw == nil {
		return nil
	}
	var of struct {
		Content []logprob `json:"content"`
	}
	if json.Unmarshal(raw, &of) != nil { // no reason to give up the text
		return nil
	}
	for i := range of.Content {
		p := &of.Content[i]
		p.Bytes = bytesOf(p.Bytes, p.Token)
		p.Top = p.Top[:min(len(p.Top), b.call.topLogprobs)]
		if p.Top == nil {
			p.Top = []topLogprob{}
		}
		for k := range p.Top {
			p.Top[k].Bytes = bytesOf(p.Top[k].Bytes, p.Top[k].Token)
		}
	}
	return of.Content
}

// bytesOf are a token's bytes, which some engines leave out.
func bytesOf(given []int, token string) []int {
	if given != nil {
		return given
	}
	given = []int{}
	for _, c := range []byte(token) {
		given = append(given, int(c))
	}
	return given
}

// noNil makes nothing an empty list.
func noNil(list []logprob) []logprob {
	if list == nil {
		return []logprob{}
	}
	return list
}
