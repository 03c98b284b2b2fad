package caddymodule

import (
	"bytes"
	"errors"

	"assistant/activator"
	"assistant/internal/openai"
	"assistant/internal/upstream"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// modelHeader tells which model answered, where it is not the one that the client named.
const modelHeader = "X-Assistant-Model"

// answerOrFallBack has the model answer, or one of its fallbacks if it can't be had. Each is tried once.
func (x *exchange) answerOrFallBack() error {
	err := x.answer()
	for _, name := range x.model.Fallbacks {
		if !x.unavailable(err) {
			return err
		}
		m := x.fallback(name)
		if m == nil {
			continue
		}
		x.h.rt.log.Info("a fallback answers", "model", x.model.Name, "fallback", m.Name, "error", err)
		if err = x.useInstead(m); err == nil {
			err = x.answer()
		}
	}
	return err
}

// unavailable reports whether an error says that the model can't be had, or its engine was lost before it said anything. The client has
// been told nothing then.
func (x *exchange) unavailable(err error) bool {
	if err == nil || x.r.Context().Err() != nil {
		return false
	}
	var fault *activator.Error
	if errors.As(err, &fault) {
		return fault.Fault != activator.FaultShutdown
	}
	var slow *openai.Error
	if errors.As(err, &slow) {
		return slow.Code == openai.CodeTimeout
	}
	var head *upstream.HeadError
	return unreachable(err) || errors.As(err, &head)
}

// fallback is the model of that name, if the key may use it and it answers such requests; else nil.
func (x *exchange) fallback(name string) *modeldir.Model {
	m, ok := x.h.rt.catalog.Load().Resolve(name, x.ep.kind)
	if !ok || m == x.model || !may(x.key, m) || !x.ep.any && !engine.For(m).Serves(m, x.ep.kind) {
		return nil
	}
	return m
}

// useInstead makes the request one to another model.
func (x *exchange) useInstead(m *modeldir.Model) error {
	if x.asked != nil {
		x.body.Close()
		x.body, x.asked = x.asked, nil
		req, err := openai.Scan(x.body.Bytes())
		if err != nil {
			return err
		}
		req.Model = x.req.Model
		x.req = req
	}
	x.model, x.stats = m, x.h.rt.stats.of(m.Name)
	x.w.Header().Set(modelHeader, m.Name)
	return x.fit()
}

// shape puts the model's own shape on the request.
func (x *exchange) shape() error {
	shape := (*openai.Shape)(x.model.Shape)
	if shape == nil || x.ep.any || x.ep.form {
		return nil
	}
	chat := x.ep.joins && x.ep.join == openai.Chat
	body, err := shape.Apply(x.body.Bytes(), x.req, openai.Shaping{Chat: chat, Answers: x.ep.joins})
	if err != nil {
		return err
	}
	if len(x.model.Fallbacks) > 0 {
		x.asked, x.body = x.body, nil // take closes the body that was
	}
	if err := x.take(bytes.NewReader(body), int64(len(body)), int64(len(body))); err != nil {
		return err
	}
	named := x.req.Model
	x.req, err = openai.Scan(x.body.Bytes())
	x.req.Model = named // what the engine is to hear may be another
	return err
}
