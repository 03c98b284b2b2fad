package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"assistant/internal/realtest"
)

// post asks for JSON, which must be answered with 200.
func (s *server) post(path, body string, into any) {
	s.t.Helper()
	res, err := s.client.Post(s.https+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(said, into)
	}
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d, %v: %s", path, res.StatusCode, err, said)
	}
}

// What llama-server has beside OpenAI's API is had through us, from cold.
func TestLlamaServersOwnEndpoints(t *testing.T) {
	realtest.Need(t, "ASSISTANT_TEST_MODELS")
	s := startServer(t, map[string]string{
		"smollm2.toml": smollm2(t, ""), "ranker.toml": modelTOML(t, "ranker", minilmFile, `kind = "rerank"`),
	})
	var tokens struct{ Tokens []int }
	s.post("/tokenize", `{"model":"smollm2","content":"Hello, world"}`, &tokens)
	again, err := json.Marshal(map[string]any{"model": "smollm2", "tokens": tokens.Tokens})
	if err != nil {
		t.Fatal(err)
	}
	var text struct{ Content string }
	s.post("/detokenize", string(again), &text)
	if len(tokens.Tokens) < 3 || text.Content != "Hello, world" {
		t.Errorf("%d tokens, %q", len(tokens.Tokens), text.Content)
	}
	for _, path := range []string{"/v1/rerank", "/rerank", "/v2/rerank"} {
		var ranked struct {
			Results []struct {
				Index int
				Score *float64 `json:"relevance_score"`
			}
		}
		s.post(path, `{"model":"ranker","query":"weather","documents":["It rains today.","A cat."],"top_n":1}`, &ranked)
		if len(ranked.Results) != 1 || ranked.Results[0].Score == nil {
			t.Errorf("%s: %+v", path, ranked)
		}
	}
	res, err := s.client.Get(s.https + "/props?model=smollm2")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var props struct {
		Template string `json:"chat_template"`
	}
	if err := json.NewDecoder(res.Body).Decode(&props); err != nil || !strings.Contains(props.Template, "im_start") {
		t.Errorf("props: status %d, %v, template %.80q", res.StatusCode, err, props.Template)
	}
}
