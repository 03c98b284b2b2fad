package caddymodule

import (
	"context"
	"errors"
	"time"

	"assistant/internal/openai"
	"assistant/modeldir"
)

// patience gives an answer up that takes longer than the model's file allows, by ending the request's context.
type patience struct {
	model *modeldir.Model
	end   context.CancelCauseFunc
	whole *time.Timer // nil = no bound
	quiet *time.Timer // what is being waited for: the first byte, or the next; nil = no bound on either
	begun bool        // the first byte was there
}

// bePatient bounds what is sent from now on. The context that it makes is the request's until stop is called. From here on times count,
// not from when the request came: it may have waited for its turn, or for a cold start.
func (x *exchange) bePatient() (stop func()) {
	m := x.model
	if m.FirstByteTimeout == 0 && m.TokenTimeout == 0 && m.AnswerTimeout == 0 {
		return func() {}
	}
	r := x.r
	ctx, end := context.WithCancelCause(r.Context())
	p := &patience{model: m, end: end}
	if m.AnswerTimeout > 0 {
		p.whole = time.AfterFunc(m.AnswerTimeout, func() { end(openai.TooSlow(m.Name, "not ended", "answer_timeout", m.AnswerTimeout)) })
	}
	if m.FirstByteTimeout > 0 {
		p.quiet = time.AfterFunc(m.FirstByteTimeout, func() { end(openai.TooSlow(m.Name, "not begun", "first_byte_timeout", m.FirstByteTimeout)) })
	}
	x.r, x.patience = r.WithContext(ctx), p
	return func() {
		p.stop()
		x.r, x.patience = r, nil
	}
}

// heard notes that a piece of the answer came.
func (p *patience) heard() {
	limit := p.model.TokenTimeout
	switch {
	case p.begun && limit > 0:
		p.quiet.Reset(limit)
	case !p.begun:
		p.begun = true
		if p.quiet != nil {
			p.quiet.Stop()
		}
		if limit > 0 {
			p.quiet = time.AfterFunc(limit, func() { p.end(openai.TooSlow(p.model.Name, "said nothing more", "token_timeout", limit)) })
		}
	}
}

func (p *patience) stop() {
	for _, t := range []*time.Timer{p.whole, p.quiet} {
		if t != nil {
			t.Stop()
		}
	}
	p.end(nil)
}

// tooSlow is what the client is told if the model was given up; nil if it was not.
func (x *exchange) tooSlow() *openai.Error {
	var e *openai.Error
	if x.patience == nil || !errors.As(context.Cause(x.r.Context()), &e) {
		return nil
	}
	return e
}
