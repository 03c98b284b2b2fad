package openai

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// Streams says whether the engine was asked for a stream, and so whether Stream and Whole or Answer read its answer.
func (p *Plan) Streams() bool { return p.kind == Chat || p.kind == Completion && !p.whole }

// WantsStream says whether the client asked for a stream.
func (p *Plan) WantsStream() bool { return p.stream && p.kind != Embeddings }

// Answer makes the answer to the client of a plain answer of the engine: JSON, or the events of a stream if that is what
// the client asked for.
func (p *Plan) Answer(said []byte) ([]byte, Counts, error) {
	if p.kind == Embeddings {
		return p.embeddings(said)
	}
	asked := *p
	asked.usage = p.usage || !p.stream
	var events bytes.Buffer
	joined := joiner{answer{kind: p.kind}}
	s := newStreamRepair(&asked, &events)
	if !p.stream {
		s.w = &joined
	}
	if err := s.event(said); err != nil {
		return nil, s.counts, err
	}
	if s.finish == "" {
		return nil, s.counts, p.Error(0, []byte("its answer has no end"))
	}
	if err := s.end(); err != nil || p.stream {
		return events.Bytes(), s.counts, err
	}
	return joined.json(), s.counts, nil
}

// embeddings writes a list of embeddings anew.
func (p *Plan) embeddings(said []byte) ([]byte, Counts, error) {
	counts := Counts{Prompt: p.prompt, Guessed: true}
	if prompt, _, ok := findUsage(said); ok {
		counts = Counts{Prompt: prompt}
	}
	out := append(make([]byte, 0, len(said)), `{"object":"list","data":[`...)
	found := false
	err := EachField(said, func(key, value []byte) (err error) {
		if string(key) == "data" && value[0] == '[' {
			found = true
			out, err = p.appendVectors(out, value)
		}
		return err
	})
	if err != nil || !found {
		return nil, counts, p.Error(0, said)
	}
	out = appendQuoted(append(out, `],"model":`...), p.model)
	out = fmt.Appendf(out, `,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, counts.Prompt, counts.Prompt)
	return out, counts, nil
}

// appendVectors writes the elements of a list of embeddings.
func (p *Plan) appendVectors(out, list []byte) ([]byte, error) {
	s := scanner{b: list}
	n := 0
	err := s.each(func(from, to int) error {
		var vector []byte
		index := strconv.Itoa(n)
		err := EachField(list[from:to], func(key, value []byte) error {
			switch string(key) {
			case "embedding":
				vector = value
			case "index":
				index = string(value)
			}
			return nil
		})
		if err != nil || vector == nil {
			return errors.Join(err, errors.New("an element without an embedding"))
		}
		if n++; n > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, `{"object":"embedding","index":`...), index...), `,"embedding":`...)
		if p.base64 && vector[0] == '[' {
			out, err = appendBase64(out, vector)
		} else {
			out = append(out, vector...)
		}
		out = append(out, '}')
		return err
	})
	return out, err
}

// appendBase64 writes an array of numbers as the base64 of 32-bit little-endian floats, which is what every official SDK
// asks for. openai-node takes an array of numbers for base64 and returns a quarter of it, without an error.
func appendBase64(out, vector []byte) ([]byte, error) {
	var raw []byte
	s := scanner{b: vector}
	err := s.each(func(from, to int) error {
		f, err := strconv.ParseFloat(string(vector[from:to]), 32)
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(f)))
		return err
	})
	out = base64.StdEncoding.AppendEncode(append(out, '"'), raw)
	return append(out, '"'), err
}

// ReadAnswer reads a plain answer, which is bounded as a joined one is.
func ReadAnswer(r io.Reader) ([]byte, error) {
	said, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(said) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return said, err
}
