package caddymodule

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"assistant/internal/openai"
	"assistant/modeldir"
)

// OpenTelemetry's metrics of generative AI, by their names in Prometheus: units are spelt out, and {token} is none. Names, attributes and
// bounds of buckets are those of github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md of November 2026, which
// is still in development.
const (
	genAIDuration = "gen_ai_server_request_duration_seconds"
	genAIFirst    = "gen_ai_server_time_to_first_token_seconds"
	genAIPace     = "gen_ai_server_time_per_output_token_seconds"
	genAIUsage    = "gen_ai_client_token_usage"
)

// provider is the attribute gen_ai.provider.name: it tells whose flavour of telemetry this is.
const provider = "assistant"

var (
	durationBuckets = []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	tokenBuckets    = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	perTokenBuckets = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5}
	usageBuckets    = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
)

// operation is the attribute gen_ai.operation.name: a well-known one, or the kind of model that answers.
func (ep endpoint) operation() string {
	switch {
	case ep.joins && ep.join == openai.Completion:
		return "text_completion"
	case ep.kind == modeldir.Embedding:
		return "embeddings"
	case ep.kind == "": // any model answers
		return "tokenize"
	}
	return string(ep.kind)
}

// operationStats are the histograms of one model and operation. Each exists from its first value on.
type operationStats struct {
	model, name string
	set         *metrics.Set

	duration, token, perToken, input, output func() *metrics.PrometheusHistogram
}

// of returns the histograms of an operation. Only the first of its name costs more than a look-up.
func (m *modelStats) of(operation string) *operationStats {
	for {
		known := m.operations.Load()
		if o := (*known)[operation]; o != nil {
			return o
		}
		more := maps.Clone(*known)
		more[operation] = newOperationStats(m.set, m.name, operation)
		m.operations.CompareAndSwap(known, &more)
	}
}

func newOperationStats(set *metrics.Set, model, name string) *operationStats {
	o := &operationStats{model: model, name: name, set: set}
	later := func(metric, more string, bounds []float64) func() *metrics.PrometheusHistogram {
		return sync.OnceValue(func() *metrics.PrometheusHistogram { return o.histogram(metric, more, bounds) })
	}
	o.duration = later(genAIDuration, "", durationBuckets)
	o.token = later(genAIFirst, "", tokenBuckets)
	o.perToken = later(genAIPace, "", perTokenBuckets)
	o.input = later(genAIUsage, `,gen_ai_token_type="input"`, usageBuckets)
	o.output = later(genAIUsage, `,gen_ai_token_type="output"`, usageBuckets)
	return o
}

func (o *operationStats) histogram(metric, more string, bounds []float64) *metrics.PrometheusHistogram {
	return o.set.GetOrCreatePrometheusHistogramExt(fmt.Sprintf(
		`%s{gen_ai_operation_name=%q,gen_ai_provider_name=%q,gen_ai_request_model=%q,gen_ai_response_model=%q%s}`,
		metric, o.name, provider, o.model, o.model, more), bounds)
}

// ended adds an exchange that ended now, with the code of its failure if it failed.
func (o *operationStats) ended(a *account, failure string, now time.Time) {
	took := now.Sub(a.began)
	if failure != "" {
		o.histogram(genAIDuration, fmt.Sprintf(`,error_type=%q`, failure), durationBuckets).Update(took.Seconds())
		return
	}
	o.duration().Update(took.Seconds())
	if a.told {
		o.input().Update(float64(a.prompt))
		if a.completion > 0 { // vectors have none
			o.output().Update(float64(a.completion))
		}
	}
	if !a.streamed || a.token.IsZero() {
		return
	}
	token := a.token.Sub(a.began)
	o.token().Update(token.Seconds())
	if a.told && a.completion > 1 {
		o.perToken().Update((took - token).Seconds() / float64(a.completion-1))
	}
}
