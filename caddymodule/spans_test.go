package caddymodule

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"assistant/internal/enginetest"
)

// spans are all that were exported in this process.
var spans exported

func init() {
	autoexport.RegisterSpanExporter("memory", func(context.Context) (sdktrace.SpanExporter, error) { return &spans, nil })
}

// exported keeps spans. The SDK's own such exporter forgets them when it is shut down, as a reload does.
type exported struct {
	mu  sync.Mutex
	all []sdktrace.ReadOnlySpan
}

func (e *exported) ExportSpans(_ context.Context, more []sdktrace.ReadOnlySpan) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, more...)
	return nil
}

func (*exported) Shutdown(context.Context) error { return nil }

// trace has Caddy trace the site's requests.
func (s *site) trace(t *testing.T) {
	t.Helper()
	t.Setenv("OTEL_TRACES_EXPORTER", "memory")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds
	s.before = []any{map[string]any{"handler": "tracing", "span": "request"}}
}

// span is one as it is compared: its times from the request's.
type span struct {
	sdktrace.ReadOnlySpan
	attributes map[string]any
}

func (s span) took() time.Duration { return s.EndTime().Sub(s.StartTime()) }

// traceOf sends a request and returns its spans by name, in the order of their beginnings. They all are of one tree.
func (s *site) traceOf(path, body string) (map[string][]span, answered) {
	s.tb.Helper()
	var id trace.TraceID
	binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	a := s.ask(http.MethodPost, path, body, "Traceparent", fmt.Sprintf("00-%s-00000000000000ff-01", id))
	var of []sdktrace.ReadOnlySpan
	s.eventually("the request's span is exported", func() bool {
		spans.mu.Lock()
		defer spans.mu.Unlock()
		of = slices.DeleteFunc(slices.Clone(spans.all), func(s sdktrace.ReadOnlySpan) bool { return s.SpanContext().TraceID() != id })
		return slices.ContainsFunc(of, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == "request" })
	})
	slices.SortStableFunc(of, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	byID, byName := map[trace.SpanID]sdktrace.ReadOnlySpan{}, map[string][]span{}
	for _, o := range of {
		byID[o.SpanContext().SpanID()] = o
		got := span{o, map[string]any{}}
		for _, kv := range o.Attributes() {
			got.attributes[string(kv.Key)] = kv.Value.AsInterface()
		}
		byName[o.Name()] = append(byName[o.Name()], got)
	}
	for _, o := range of {
		if o.Name() == "request" {
			continue
		}
		parent := byID[o.Parent().SpanID()]
		if parent == nil || o.StartTime().Before(parent.StartTime()) || o.EndTime().After(parent.EndTime()) {
			s.tb.Errorf("%s is not within its parent %v", o.Name(), parent)
			continue
		}
		want := "request"
		if o.Name() == spanQueue || o.Name() == spanColdStart {
			want = spanActivate
		}
		if parent.Name() != want {
			s.tb.Errorf("%s is below %s, want %s", o.Name(), parent.Name(), want)
		}
	}
	return byName, a
}

// one is the only span of its name.
func one(t *testing.T, spans map[string][]span, name string) span {
	t.Helper()
	if len(spans[name]) != 1 {
		t.Fatalf("%d spans %s, want one", len(spans[name]), name)
	}
	return spans[name][0]
}

func TestSpansOfAColdAndAWarmRequest(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.trace(t)
		s.model("m", "", "--start-delay", "150ms", "--answer-delay", "50ms", "--token-delay", "5ms", "--tokens", "10")
		s.start()
		const body = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}`
		got, _ := s.traceOf(chatPath, body)
		activate, start, engine := one(t, got, spanActivate), one(t, got, spanColdStart), one(t, got, spanEngine)
		if activate.attributes["assistant.cold_start"] != true || activate.attributes["assistant.instance"] != "m#1" {
			t.Errorf("activation: %v", activate.attributes)
		}
		if start.took() < 150*time.Millisecond || activate.took() < start.took() || start.attributes["assistant.ready_ms"].(float64) < 100 {
			t.Errorf("the start took %v of the activation's %v, %v", start.took(), activate.took(), start.attributes)
		}
		if len(start.Events()) != 1 || start.Events()[0].Name != "spawned" {
			t.Errorf("the start's events: %v", start.Events())
		}
		if engine.StartTime().Before(activate.EndTime()) || engine.took() < 100*time.Millisecond || engine.SpanKind() != trace.SpanKindClient {
			t.Errorf("the engine's span lasts %v from %v", engine.took(), engine.StartTime().Sub(activate.EndTime()))
		}
		if events := engine.Events(); len(events) != 1 || events[0].Name != "first_token" ||
			events[0].Time.Sub(engine.StartTime()) < 50*time.Millisecond || engine.EndTime().Sub(events[0].Time) < 50*time.Millisecond {
			t.Errorf("the engine's events: %v", events)
		}
		for name, want := range map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "assistant", "gen_ai.request.model": "m", "gen_ai.response.model": "m",
			"gen_ai.usage.output_tokens": int64(11), "gen_ai.request.stream": true, "assistant.instance": "m#1",
		} {
			if engine.attributes[name] != want {
				t.Errorf("%s is %v, want %v", name, engine.attributes[name], want)
			}
		}
		got, _ = s.traceOf(chatPath, body)
		if warm := one(t, got, spanActivate); warm.attributes["assistant.cold_start"] != false || len(got[spanColdStart])+len(got[spanQueue]) > 0 {
			t.Errorf("a warm request: %v, %v", warm.attributes, got)
		}
		one(t, got, spanEngine)
	})
}

func TestSpansOfAQueue(t *testing.T) {
	s := newSite(t)
	s.trace(t)
	s.model("m", "concurrency = 1", "--token-delay", "20ms", "--tokens", "10")
	s.start()
	s.chat("m")
	busy := s.stream("m")
	got, _ := s.traceOf(chatPath, `{"model":"m","max_tokens":1,"messages":[]}`)
	busy.completes()
	activate, queue := one(t, got, spanActivate), one(t, got, spanQueue)
	if queue.took() < 20*time.Millisecond || !queue.StartTime().Equal(activate.StartTime()) || len(got[spanColdStart]) > 0 {
		t.Errorf("the queue took %v of %v", queue.took(), activate.took())
	}
}

func TestSpansOfFailures(t *testing.T) {
	s := newSite(t)
	s.trace(t)
	s.model("bad", "", "--exit-code", "1")
	s.model("dies", "", "--die-after-tokens", "2")
	s.model("mute", "", "--die-on-request")
	s.model("slow", "token_timeout = \"50ms\"", "--token-delay", "10s")
	s.start()
	for _, c := range []struct{ model, span, code string }{
		{"bad", spanActivate, "engine_failed"},
		{"dies", spanEngine, "engine_crashed"},
		{"mute", spanEngine, "engine_crashed"},
		{"slow", spanEngine, "timeout"},
	} {
		got, _ := s.traceOf(chatPath, fmt.Sprintf(`{"model":%q,"stream":true,"messages":[]}`, c.model))
		failed := one(t, got, c.span)
		if failed.Status().Code != codes.Error || failed.attributes["error.type"] != c.code {
			t.Errorf("%s: status %v, %v; want %s", c.model, failed.Status(), failed.attributes, c.code)
		}
	}
}

// The engine's own spans are of the same trace, if it has any.
func TestTheEngineIsToldTheTrace(t *testing.T) {
	s := newSite(t)
	s.trace(t)
	s.model("m", "", "--echo")
	s.start()
	got, a := s.traceOf(chatPath, question("m"))
	var echo enginetest.Echo
	if err := json.Unmarshal([]byte(a.body), &echo); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	of := one(t, got, "request").SpanContext()
	if parent, want := echo.Header.Get("Traceparent"), fmt.Sprintf("00-%s-%s-01", of.TraceID(), of.SpanID()); parent != want {
		t.Errorf("the engine got the traceparent %q, want %q", parent, want)
	}
}
