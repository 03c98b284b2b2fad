package caddymodule

import (
	"errors"
	"net"

	"assistant/activator"
	"assistant/internal/openai"
	"assistant/internal/upstream"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// What a client is told of who answered it.
const (
	modelHeader    = "X-Assistant-Model"    // the model, by its name
	fallbackHeader = "X-Assistant-Fallback" // if it is not the one that was asked: the code of the error that the client would have got
)

// answerOrFallBack has the model answer, or one of its fallbacks if it can't be had. Each is tried once; theirs are not asked. If none can be
// had, the client is told why the model that it asked can't.
func (x *exchange) answerOrFallBack() error {
	if x.remote != nil {
		return x.answerAway(x.remote)
	}
	if to := x.elsewhere(); to != nil {
		if err := x.answerAway(to); !errors.Is(err, errNobodyAway) {
			return err
		}
	}
	err := x.answer()
	if to := x.awayInstead(err); to != nil {
		x.h.rt.log.Info("a remote server is asked", "model", x.model.Name, "error", err)
		if away := x.answerAway(to); !errors.Is(away, errNobodyAway) {
			return away
		}
	}
	if len(x.fallbacks) == 0 || !x.unavailable(err) {
		return err
	}
	asked, why := x.model, x.apiError(err).Code
	for len(x.fallbacks) > 0 {
		name := x.fallbacks[0]
		x.fallbacks = x.fallbacks[1:]
		m := x.fallback(name)
		if m == nil {
			continue
		}
		if bad := x.useInstead(m); bad != nil {
			x.h.rt.log.Info("a fallback can't answer such a request", "model", asked.Name, "fallback", m.Name, "error", bad)
			continue
		}
		x.h.rt.log.Info("a fallback is asked", "model", asked.Name, "fallback", m.Name, "error", err)
		if !x.early {
			x.w.Header()[fallbackHeader] = []string{why}
		}
		if again := x.answer(); !x.unavailable(again) {
			return again
		}
	}
	if !x.early {
		x.w.Header().Del(modelHeader)
		x.w.Header().Del(fallbackHeader)
	}
	x.serveBy(asked)
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
	var api *openai.Error
	if errors.As(err, &api) {
		return api.Code == openai.CodeTimeout || api.Code == openai.CodeDownloading || api.Code == openai.CodeDownloadFailed
	}
	var head *upstream.HeadError
	return unreachable(err) || errors.As(err, &head)
}

// fallback is the model of that name, if the key may use it and it answers such requests; else nil.
func (x *exchange) fallback(name string) *modeldir.Model {
	m, ok := named(x.h.rt.catalog.Load(), x.key, name, x.ep.kind)
	if !ok || m == x.model || !x.ep.any && !engine.For(m).Serves(m, x.ep.kind) {
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
	x.serveBy(m)
	if err := x.detokenise(); err != nil {
		return err
	}
	return x.fit()
}

// serveBy makes a model the one that answers.
func (x *exchange) serveBy(m *modeldir.Model) {
	x.model, x.stats, x.conversation = m, x.h.rt.stats.of(m.Name), 0
}

// shape puts the model's own shape on the request, if that is for what the model is for.
func (x *exchange) shape() error {
	shape := (*openai.Shape)(x.model.Shape)
	if shape == nil || x.ep.any || x.ep.form || x.ep.kind != x.model.Kind {
		return nil
	}
	chat := x.ep.joins && x.ep.join == openai.Chat
	pieces, err := shape.Apply(x.body.Bytes(), x.req, openai.Shaping{Chat: chat, Answers: x.ep.joins})
	if err != nil || pieces == nil {
		return err
	}
	asked := x.body
	if len(x.fallbacks) > 0 {
		x.body = nil // reshape would close it
	}
	err = x.reshape(pieces)
	switch {
	case x.body == nil:
		x.body = asked
	case len(x.fallbacks) > 0:
		x.asked = asked
	}
	return err
}

// reshape makes pieces the body. The model is still called as the client called it: what the engine is to hear may be another.
func (x *exchange) reshape(pieces net.Buffers) error {
	size := int64(0)
	for _, piece := range pieces {
		size += int64(len(piece))
	}
	if err := x.take(&pieces, size, size); err != nil {
		return err
	}
	req, err := openai.Scan(x.body.Bytes())
	req.Model = x.req.Model
	x.req = req
	return err
}
