package caddymodule

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// metrics are the site's.
func (s *site) metrics() string {
	s.tb.Helper()
	var out bytes.Buffer
	current(s.tb).writeMetrics(&out)
	return out.String()
}

// counts are the histograms of generative AI, by name and labels, and how many values each has.
func genAICounts(text string) map[string]string {
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(gen_ai_\w+)_count\{gen_ai_operation_name="(\w+)",gen_ai_provider_name="assistant",gen_ai_request_model="(\w+)",gen_ai_response_model="(\w+)"(.*)\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		if m[3] == m[4] {
			got[strings.TrimSpace(m[1]+" "+m[2]+" "+m[3]+m[5])] = m[6]
		}
	}
	return got
}

func TestGenAIMetrics(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "4", "--token-delay", "2ms")
	s.model("joined", "cancel_by_stream = true", "--tokens", "4")
	s.model("bad", "", "--exit-code", "1")
	s.file("vectors", fmt.Sprintf("kind = \"embedding\"\ncommand = [%q, \"--port\", \"{{port}}\", \"--embeddings\", \"--events\", %q]\n", s.engine, s.events))
	s.start()
	const usage = `"stream":true,"stream_options":{"include_usage":true},`
	for path, bodies := range map[string][]string{
		chatPath: {
			`{"model":"m",` + usage + `"messages":[]}`, `{"model":"m","messages":[]}`, `{"model":"joined","messages":[]}`, `{"model":"bad","messages":[]}`,
			`{"model":"nothing","messages":[]}`,
		},
		"/v1/completions": {`{"model":"m","stream":true,"prompt":"Hi"}`},
		"/v1/embeddings":  {`{"model":"vectors","input":"Hi"}`},
		messagesPath:      {message},
	} {
		for _, body := range bodies {
			s.ask(http.MethodPost, path, body)
		}
	}
	want := map[string]string{
		"gen_ai_server_request_duration_seconds chat m":                              "3",
		"gen_ai_server_request_duration_seconds chat joined":                         "1",
		"gen_ai_server_request_duration_seconds text_completion m":                   "1",
		"gen_ai_server_request_duration_seconds embeddings vectors":                  "1",
		`gen_ai_server_request_duration_seconds chat bad,error_type="engine_failed"`: "1",
		"gen_ai_server_time_to_first_token_seconds chat m":                           "1", // of a whole there is no first token
		"gen_ai_server_time_to_first_token_seconds chat joined":                      "1", // unless it was a stream to us
		"gen_ai_server_time_to_first_token_seconds text_completion m":                "1",
		"gen_ai_server_time_per_output_token_seconds chat m":                         "1",
		"gen_ai_server_time_per_output_token_seconds chat joined":                    "1",
		"gen_ai_server_time_per_output_token_seconds text_completion m":              "1",
		`gen_ai_client_token_usage chat m,gen_ai_token_type="input"`:                 "3",
		`gen_ai_client_token_usage chat m,gen_ai_token_type="output"`:                "3",
		`gen_ai_client_token_usage chat joined,gen_ai_token_type="input"`:            "1",
		`gen_ai_client_token_usage chat joined,gen_ai_token_type="output"`:           "1",
		`gen_ai_client_token_usage text_completion m,gen_ai_token_type="input"`:      "1",
		`gen_ai_client_token_usage text_completion m,gen_ai_token_type="output"`:     "1",
		`gen_ai_client_token_usage embeddings vectors,gen_ai_token_type="input"`:     "1",
	}
	text := s.metrics()
	if diff := cmp.Diff(want, genAICounts(text)); diff != "" {
		t.Errorf("counts (- wanted):\n%s", diff)
	}
	for metric, bounds := range map[string]string{
		genAIDuration: "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92 +Inf",
		genAIFirst:    "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 +Inf",
		genAIPace:     "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 +Inf",
	} {
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^`+metric+`_bucket\{gen_ai_operation_name="chat",.*request_model="joined".*le="([^"]+)"`).FindAllStringSubmatch(text, -1) {
			got = append(got, m[1])
		}
		if strings.Join(got, " ") != bounds {
			t.Errorf("buckets of %s: %s, want %s", metric, got, bounds)
		}
	}
	if !slices.Contains(strings.Split(text, "\n"), "# TYPE "+genAIUsage+" histogram") {
		t.Errorf("%s is no histogram of Prometheus'", genAIUsage)
	}
}

// The times are those of the conventions: the first token's with the wait for the engine, the others' without it.
func TestGenAITimes(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "11", "--answer-delay", "300ms", "--token-delay", "30ms")
	s.start()
	s.ask(http.MethodPost, chatPath, `{"model":"m","stream":true,"messages":[]}`)
	text := s.metrics()
	sum := func(metric string) (seconds float64) {
		m := regexp.MustCompile(`(?m)^` + metric + `_sum\{.*\} (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no %s:\n%s", metric, text)
		}
		if _, err := fmt.Sscan(m[1], &seconds); err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	if token := sum(genAIFirst); token < .3 || sum(genAIDuration)-token < .3 {
		t.Errorf("first token after %v s of %v, want the 0.3 s before it and not the 0.3 s of the 10 after it", token, sum(genAIDuration))
	}
	if per := sum(genAIPace); per < .02 || per > .2 {
		t.Errorf("%v s a token, want about 0.03", per)
	}
}
