package caddymodule

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"assistant/activator"
	"assistant/internal/openai"
	"assistant/lifecycle"
)

// Spans hang below the one that Caddy's tracing directive has begun for a request; where there is none, there are none of ours, and they cost
// a look into the context. Attributes are those of github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md, as far as
// there are any.
const (
	spanActivate  = "assistant.activate"   // from asking for a lease to having one
	spanQueue     = "assistant.queue"      // the part in which the request waited for room or for a slot
	spanColdStart = "assistant.cold_start" // the part in which it waited for its instance to start
	spanEngine    = "assistant.engine"     // from sending the request to the last byte of the answer
)

// shortestQueue is what a wait must last to have a span of its own: decisions take less.
const shortestQueue = time.Millisecond

// startSpan begins a span below that of the context; nil if nobody records one.
func startSpan(ctx context.Context, name string, at time.Time, kind trace.SpanKind) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	return parent.TracerProvider().Tracer("assistant").Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(kind))
}

// failSpan says what a span failed with.
func failSpan(span trace.Span, code string) {
	span.SetAttributes(attribute.String("error.type", code))
	span.SetStatus(codes.Error, code)
}

// traceActivation tells of a wait for a lease that has just ended.
func (x *exchange) traceActivation(asked time.Time, lease *activator.Lease, err error) {
	ctx, span := startSpan(x.r.Context(), spanActivate, asked, trace.SpanKindInternal)
	if span == nil {
		return
	}
	now := time.Now()
	defer span.End(trace.WithTimestamp(now))
	span.SetAttributes(attribute.String("gen_ai.request.model", x.model.Name))
	if err != nil {
		failSpan(span, x.failureOf(err))
		return
	}
	span.SetAttributes(attribute.String("assistant.instance", lease.Instance()), attribute.Bool("assistant.cold_start", lease.Cold))
	switch {
	case lease.Cold:
		ready := traceColdStart(ctx, asked, lease.Running())
		traceQueue(ctx, ready, now)
	case lease.Waited > 0:
		traceQueue(ctx, asked, now)
	}
}

// traceColdStart tells of the start that a request waited for, and of the wait before it. A start that was under way when the request came is
// told from then on. It returns when the instance was ready.
func traceColdStart(ctx context.Context, asked time.Time, run *lifecycle.Running) (ready time.Time) {
	spawned := run.ReadyAt.Add(-run.Loaded)
	decided := spawned.Add(-run.Spawned)
	traceQueue(ctx, asked, decided)
	began := decided
	if began.Before(asked) {
		began = asked
	}
	_, span := startSpan(ctx, spanColdStart, began, trace.SpanKindInternal)
	if !spawned.Before(began) {
		span.AddEvent("spawned", trace.WithTimestamp(spawned))
	}
	span.SetAttributes(
		attribute.Float64("assistant.spawn_ms", millis(run.Spawned)),
		attribute.Float64("assistant.ready_ms", millis(run.Loaded)),
	)
	span.End(trace.WithTimestamp(run.ReadyAt))
	return run.ReadyAt
}

func traceQueue(ctx context.Context, from, to time.Time) {
	if to.Sub(from) < shortestQueue {
		return
	}
	_, span := startSpan(ctx, spanQueue, from, trace.SpanKindInternal)
	span.End(trace.WithTimestamp(to))
}

// engineSpan begins the span of an answer; nil if nobody records one.
func (x *exchange) engineSpan() trace.Span {
	_, span := startSpan(x.r.Context(), spanEngine, time.Now(), trace.SpanKindClient)
	return span
}

// endEngineSpan ends it, with what the engine said and what err says of it.
func (x *exchange) endEngineSpan(span trace.Span, err error) {
	span.SetAttributes(
		attribute.String("gen_ai.operation.name", x.ep.operation()),
		attribute.String("gen_ai.provider.name", provider),
		attribute.String("gen_ai.request.model", x.model.Name),
		attribute.String("gen_ai.response.model", x.model.Name),
		attribute.Bool("gen_ai.request.stream", x.req.Stream),
		attribute.String("assistant.instance", x.instance),
	)
	if !x.token.IsZero() {
		span.AddEvent("first_token", trace.WithTimestamp(x.token))
	}
	if prompt, completion, told := x.tap.Tokens(); told {
		span.SetAttributes(attribute.Int("gen_ai.usage.input_tokens", prompt), attribute.Int("gen_ai.usage.output_tokens", completion))
	}
	if err != nil {
		failSpan(span, x.failureOf(err))
	} else if code := x.failure(); code != "" {
		failSpan(span, code)
	}
	span.End()
}

// failureOf is the code of an error whose client has perhaps not been told yet.
func (x *exchange) failureOf(err error) string {
	var api *openai.Error
	switch {
	case handled(err) && x.failed != "":
		return x.failed
	case errors.As(err, &api): // before the context is asked, which ends for slow models too
		return codeOf(api)
	case x.gone(err):
		return codeClientGone
	}
	return codeOf(x.apiError(err))
}
