package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"assistant/internal/enginetest"
)

// form is a multipart form with a file of so many bytes, and its content type.
func form(tb testing.TB, size int, fields ...string) (body, contentType string) {
	tb.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	file, err := w.CreateFormFile("file", "speech.wav")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := file.Write(bytes.Repeat([]byte{0, 0xff, '\r', '\n'}, size/4)); err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.String(), w.FormDataContentType()
}

func (a answered) echo(tb testing.TB) (e enginetest.Echo) {
	tb.Helper()
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != http.StatusOK {
		tb.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	return e
}

func TestFormsArePassedOn(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("whisper", `kind = "transcription"`, "--echo")
		s.start()
		for _, path := range []string{"/v1/audio/transcriptions", "/v1/audio/translations"} {
			body, kind := form(t, 3<<20, "model", "whisper", "response_format", "text")
			e := s.ask(http.MethodPost, path, body, "Content-Type", kind).echo(t)
			if e.Path != path || e.BodySize != len(body) || e.Header.Get("Content-Type") != kind {
				t.Errorf("%s: the engine was asked %s with %d bytes of %s", path, e.Path, e.BodySize, e.Header.Get("Content-Type"))
			}
		}
		body, kind := form(t, 4, "model", "none")
		if a := s.ask(http.MethodPost, "/v1/audio/transcriptions", body, "Content-Type", kind); a.status != http.StatusNotFound {
			t.Errorf("no such model: status %d: %s", a.status, a.body)
		}
		if a := s.ask(http.MethodPost, "/v1/audio/transcriptions", `{"model":"whisper"}`); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("JSON: status %d: %s", a.status, a.body)
		}
		if a := s.ask(http.MethodPost, "/v1/audio/transcriptions", body[:len(body)-20], "Content-Type", kind); a.status != http.StatusBadRequest {
			t.Errorf("a form that was cut: status %d: %s", a.status, a.body)
		}
	})
}

func TestPassedOnAsTheyAre(t *testing.T) {
	s := newSite(t)
	for _, kind := range []string{"rerank", "image", "moderation", "chat"} {
		s.model(kind, fmt.Sprintf("kind = %q", kind), "--echo")
	}
	s.start()
	for path, c := range map[string]struct{ model, asked string }{
		"/v1/rerank": {"rerank", "/v1/rerank"}, "/rerank": {"rerank", "/rerank"}, "/v2/rerank": {"rerank", "/v1/rerank"},
		"/v1/images/generations": {"image", "/v1/images/generations"}, "/v1/moderations": {"moderation", "/v1/moderations"},
		"/tokenize": {"rerank", "/tokenize"}, "/detokenize": {"chat", "/detokenize"},
	} {
		if path == "/tokenize" {
			continue // the fake engine answers it as llama-server does
		}
		body := fmt.Sprintf(`{ "model":%q, "query":"q", "documents":["a", {"text":"b"}], "stream":"?" }`, c.model)
		if e := s.ask(http.MethodPost, path, body).echo(t); e.Path != c.asked || e.Body != body {
			t.Errorf("%s: the engine was asked %s: %s", path, e.Path, e.Body)
		}
	}
	if a := s.ask(http.MethodPost, "/tokenize", `{"model":"rerank","content":"Hi"}`); a.status != http.StatusOK || !strings.Contains(a.body, "tokens") {
		t.Errorf("tokenize: status %d: %s", a.status, a.body)
	}
}

// A model of another kind is not started for what it can't answer.
func TestUnservedNamesWhoCould(t *testing.T) {
	s := newSite(t)
	s.file("chat", "model_path = \"/nowhere.gguf\"\nengine = \"llama-server\"\n")
	s.model("ranker", `kind = "rerank"`)
	s.start()
	for path, want := range map[string]string{
		"/v1/rerank": `such as "ranker"`, "/v1/embeddings": "which no model here is", "/v1/images/generations": "which no model here is",
	} {
		a := s.ask(http.MethodPost, path, `{"model":"chat","input":"Hi"}`)
		if e := a.apiError(t); a.status != http.StatusBadRequest || text(e.Code) != "unsupported_model" || !strings.Contains(e.Message, want) {
			t.Errorf("%s: status %d: %s, want %s", path, a.status, a.body, want)
		}
	}
}

// LangChain sends tokens of OpenAI's vocabulary.
func TestTokensAreMadeTextOfAgain(t *testing.T) {
	s := newSite(t)
	s.model("m", `kind = "embedding"`, "--echo")
	s.model("own", "kind = \"embedding\"\ntoken_ids = \"model\"", "--echo")
	s.start()
	for model, want := range map[string]string{"m": `["hello world"]`, "own": `[[15339,1917]]`} {
		e := s.ask(http.MethodPost, "/v1/embeddings", fmt.Sprintf(`{"model":%q,"input":[[15339,1917]]}`, model)).echo(t)
		if !strings.Contains(e.Body, `"input":`+want) {
			t.Errorf("%s: the engine was asked %s", model, e.Body)
		}
	}
}
