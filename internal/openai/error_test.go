package openai

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestErrorWriteTo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    *Error
		status int
		body   string
		header http.Header // besides the ones of every error
	}{
		{
			"bad JSON", BadJSON("it is empty"), 400,
			`{"error":{"message":"could not read the request body as a JSON object: it is empty","type":"invalid_request_error","param":null,"code":null}}`, nil,
		},
		{
			"model required", ModelRequired(), 400,
			`{"error":{"message":"you must name a model in \"model\"","type":"invalid_request_error","param":"model","code":null}}`, nil,
		},
		{
			"model not found", ModelNotFound("a<b>\xff"), 404,
			`{"error":{"message":"the model \"a<b>\\xff\" does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`, nil,
		},
		{
			"method", MethodNotAllowed("GET, HEAD"), 405,
			`{"error":{"message":"this address only answers GET, HEAD","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}`,
			http.Header{"Allow": {"GET, HEAD"}},
		},
		{
			"too large", TooLarge(1000), 413,
			`{"error":{"message":"the request body is larger than 1000 bytes","type":"invalid_request_error","param":null,"code":"request_too_large"}}`, nil,
		},
		{
			"media", UnsupportedMedia("text/plain"), 415,
			`{"error":{"message":"the content type \"text/plain\" is not supported here","type":"invalid_request_error","param":null,"code":"unsupported_media_type"}}`, nil,
		},
		{
			"queue full", QueueFull("m", 1500*time.Millisecond), 429,
			`{"error":{"message":"too many requests wait for the model \"m\"","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`,
			http.Header{"Retry-After": {"2"}, "Retry-After-Ms": {"1500"}},
		},
		{
			"queue full, no idea how long", QueueFull("m", 0), 429,
			`{"error":{"message":"too many requests wait for the model \"m\"","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`,
			http.Header{"Retry-After": {"1"}, "Retry-After-Ms": {"1"}},
		},
		{
			"quota", KeyQuota("used up"), 429,
			`{"error":{"message":"used up","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`,
			http.Header{"X-Should-Retry": {"false"}},
		},
		{
			"loading", Loading("m", time.Hour), 503,
			`{"error":{"message":"the model \"m\" is still loading","type":"server_error","param":null,"code":"model_loading"}}`,
			http.Header{"Retry-After": {"60"}, "Retry-After-Ms": {"60000"}},
		},
		{
			"engine failed", EngineFailed("m", "exit status 1\nno such file: /x.gguf\n"), 502,
			`{"error":{"message":"the engine of the model \"m\" failed: exit status 1\nno such file: /x.gguf","type":"server_error","param":null,"code":"engine_failed"}}`,
			http.Header{"X-Should-Retry": {"false"}},
		},
		{
			"shutting down", ShuttingDown(), 503,
			`{"error":{"message":"the server is shutting down","type":"server_error","param":null,"code":"shutting_down"}}`,
			http.Header{"Retry-After": {"1"}, "Retry-After-Ms": {"1000"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "12345")
			tt.err.WriteTo(w)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			want := http.Header{"Content-Type": {"application/json"}, "X-Content-Type-Options": {"nosniff"}}
			maps.Copy(want, tt.header)
			if diff := cmp.Diff(want, w.Header()); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(strings.ReplaceAll(tt.body, "\n", `\n`)+"\n", w.Body.String()); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

// An engine's stderr can hold anything.
func TestErrorOfAnyBytes(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	if got := EngineFailed("m", string(all)).JSON(); !json.Valid(got) {
		t.Errorf("not JSON: %s", got)
	}
}

func TestStreamError(t *testing.T) {
	got := string(StreamError(EngineCrashed("m")))
	want := `data: {"error":{"message":"the engine of the model \"m\" ended in the middle of the answer","type":"server_error","param":null,"code":"engine_crashed"}}` + "\n\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestModelList(t *testing.T) {
	code := 1
	list := ModelList{Data: []ModelCard{
		{ID: "bare", Created: 1700000000, OwnedBy: "local"},
		{
			ID: "org/full", Created: 1700000001, OwnedBy: "local", Name: "Full", ContextLength: 4096,
			Architecture: &Architecture{InputModalities: []string{"text", "image"}, OutputModalities: []string{"text"}},
			Status:       &ModelStatus{Value: StatusFailed, Failed: true, ExitCode: &code, Error: "no such file"},
			Aliases:      []string{"default"}, Meta: map[string]any{"n_params": 134515008},
		},
	}}
	want := `{"object":"list","data":[{"id":"bare","object":"model","created":1700000000,"owned_by":"local"},` +
		`{"id":"org/full","object":"model","created":1700000001,"owned_by":"local","name":"Full","context_length":4096,` +
		`"architecture":{"input_modalities":["text","image"],"output_modalities":["text"]},` +
		`"status":{"value":"failed","failed":true,"exit_code":1,"error":"no such file"},"aliases":["default"],"meta":{"n_params":134515008}}]}`
	if got := string(list.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := string(ModelList{}.JSON()), `{"object":"list","data":[]}`; got != want {
		t.Errorf("empty: got %s, want %s", got, want)
	}
	if got, want := string(list.Data[0].JSON()), `{"id":"bare","object":"model","created":1700000000,"owned_by":"local"}`; got != want {
		t.Errorf("one: got %s, want %s", got, want)
	}
}

func BenchmarkModelList(b *testing.B) {
	list := ModelList{Data: make([]ModelCard, 10_000)}
	for i := range list.Data {
		list.Data[i] = ModelCard{ID: "model", OwnedBy: "local", Status: &ModelStatus{Value: StatusUnloaded}}
	}
	for b.Loop() {
		list.JSON()
	}
}
