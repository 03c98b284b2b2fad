package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"assistant/internal/openai"
	"assistant/internal/upstream"
	"assistant/lifecycle"
	"assistant/lifecycle/engine"
)

// What a client is told of what its request could not have.
const (
	ignoredHeader = "X-Assistant-Ignored"   // parameters that the engine does not honour
	prunedHeader  = "X-Assistant-Truncated" // "likely": the conversation is longer than what the engine reads of it
)

// planRepairs plans how the request is sent to an engine with a dialect. What such an engine can't do is refused before
// any is started for it.
func (x *exchange) planRepairs() error {
	kind := engine.For(x.model)
	if why := kind.Unserved(x.model); why != "" {
		return openai.Unserved(x.name(), why)
	}
	return x.planFor(kind)
}

// planFor makes the plan that a kind of engine needs, nil if it needs none.
func (x *exchange) planFor(kind engine.Kind) (err error) {
	x.plan, x.planned = nil, kind.Repairs
	if x.ep.raw {
		return nil
	}
	d := kind.Dialect(x.model)
	if d.Repairs == 0 {
		return nil
	}
	x.plan, err = openai.NewPlan(x.body.Bytes(), x.req, x.name(), x.ep.join, d)
	return err
}

// sendRepaired sends the request as the engine's dialect has it, and the client the answer that the API promises.
// Returning early closes the engine's answer, which ends its generation.
func (x *exchange) sendRepaired(run *lifecycle.Running, to upstream.Transport) error {
	body := x.plan.Body(x.body.Bytes())
	res, err := to.Do(x.r.Context(), &upstream.Request{In: x.r, Body: body, Length: int64(len(body))})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out := &repairedWriter{x: x, header: res.Header}
	counts, err := x.repair(out, run, res)
	_, _ = x.tap.Write(counts.JSON())
	switch {
	case err == nil:
		return nil
	case out.err != nil:
		return x.broken(&upstream.ClientError{Err: out.err})
	case out.begun && x.tooSlow() != nil:
		return x.broken(err)
	case x.r.Context().Err() != nil:
		return context.Cause(x.r.Context())
	}
	var told *openai.Error
	isTold := errors.As(err, &told)
	switch {
	case out.begun && isTold:
		x.failStream(told)
		return nil
	case out.begun:
		return x.broken(&upstream.BodyError{Written: true, Err: err})
	case isTold:
		return told
	}
	return &upstream.HeadError{Err: err} // nothing of the answer was told to the client
}

// repair makes the answer of the engine's.
func (x *exchange) repair(out *repairedWriter, run *lifecycle.Running, res *upstream.Response) (openai.Counts, error) {
	from := noticed{res.Body, func() { x.answered(run) }}
	if x.plan.Streams() && openai.IsStream(res.StatusCode, res.Header) {
		x.streamed = true
		if x.plan.WantsStream() {
			return x.plan.Stream(out, from)
		}
		answer, counts, err := x.plan.Whole(from)
		if err == nil {
			out.whole(answer)
		}
		return counts, err
	}
	said, err := openai.ReadAnswer(from)
	if err != nil {
		return openai.Counts{}, err
	}
	if res.StatusCode != http.StatusOK || x.plan.Streams() {
		return openai.Counts{}, x.plan.Error(res.StatusCode, said)
	}
	answer, counts, err := x.plan.Answer(said)
	switch {
	case err != nil:
	case x.plan.WantsStream():
		_, err = out.Write(answer)
	default:
		out.whole(answer)
	}
	return counts, err
}

// repairedWriter is the client. It is told the status with the first byte of the answer, so that until then an error
// can have its own.
type repairedWriter struct {
	x      *exchange
	header http.Header // the engine's
	begun  bool
	err    error
}

// Write sends events of a stream, at once.
func (c *repairedWriter) Write(p []byte) (int, error) {
	if !c.begun {
		c.begin("text/event-stream", -1)
	}
	n, err := flushing{w: c.x.w, to: http.NewResponseController(c.x.w), seen: c.x.seen}.Write(p)
	c.err = err
	return n, err
}

// whole sends an answer in one piece. A client that is gone has none.
func (c *repairedWriter) whole(answer []byte) {
	c.begin("application/json", len(answer))
	if c.x.early {
		answer = fmt.Appendf(nil, "data: %s\n\n", answer)
	}
	c.x.seen(answer)
	_, _ = c.x.w.Write(answer)
}

// begin sends the head.
func (c *repairedWriter) begin(contentType string, length int) {
	c.begun = true
	if c.x.early {
		return
	}
	h := c.x.w.Header()
	for name, values := range c.header {
		switch name {
		case requestIDHeader, "Content-Type", "Content-Length", "Content-Encoding", "Cache-Control",
			"User", "Requires-Tool-Call": // llama-api-server's own: the answer's id, and whether a tool is called
		case "Vary": // we may have said something of it
			h[name] = append(h[name], values...)
		default:
			h[name] = values
		}
	}
	h["Content-Type"] = []string{contentType}
	if length >= 0 {
		h["Content-Length"] = []string{strconv.Itoa(length)}
	} else {
		h["Cache-Control"] = []string{"no-cache"}
	}
	if len(c.x.plan.Ignored) > 0 {
		h[ignoredHeader] = []string{strings.Join(c.x.plan.Ignored, ", ")}
	}
	if c.x.plan.Pruned {
		h[prunedHeader] = []string{"likely"}
	}
	c.x.status = http.StatusOK
	c.x.w.WriteHeader(http.StatusOK)
}
