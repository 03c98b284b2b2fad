package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const ollamaChat = `{"model":"m","messages":[{"role":"user","content":"Hi"}],"options":{"num_predict":3}`

func TestOllama(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "")
		s.model("e", `kind = "embedding"`, "--embeddings")
		s.start()
		a := s.ask(http.MethodPost, "/api/chat", ollamaChat+`}`)
		lines := strings.Split(strings.TrimSpace(a.body), "\n")
		if a.header.Get("Content-Type") != "application/x-ndjson" || len(lines) < 3 {
			t.Fatalf("status %d, %v: %s", a.status, a.header, a.body)
		}
		said := ""
		var line struct {
			Model   string
			Message struct{ Content string }
			Done    bool
			Reason  string `json:"done_reason"`
			Count   int    `json:"eval_count"`
		}
		for _, l := range lines {
			if err := json.Unmarshal([]byte(l), &line); err != nil {
				t.Fatalf("%v: %s", err, l)
			}
			said += line.Message.Content
		}
		if said != " 1 2 3" || !line.Done || line.Reason != "length" || line.Count == 0 || line.Model != "m" {
			t.Errorf("%q, at last %+v", said, line)
		}
		for path, body := range map[string]string{
			"/api/chat": ollamaChat + `,"stream":false}`, "/api/generate": `{"model":"m:latest","prompt":"Hi","stream":false,"options":{"num_predict":3}}`,
		} {
			if a := s.ask(http.MethodPost, path, body); a.status != http.StatusOK || !strings.Contains(a.body, `" 1 2 3"`) {
				t.Errorf("%s: status %d: %s", path, a.status, a.body)
			}
		}
		for path, want := range map[string]string{"/api/embed": `{"model":"e","input":["a","b"]}`, "/api/embeddings": `{"model":"e","prompt":"a"}`} {
			if a := s.ask(http.MethodPost, path, want); a.status != http.StatusOK || !strings.Contains(a.body, `"embedding`) {
				t.Errorf("%s: status %d: %.200s", path, a.status, a.body)
			}
		}
	})
}

func TestOllamasModels(t *testing.T) {
	s := newSite(t)
	s.model("m", "idle_timeout = \"1h\"\nctx_size = 4096\ndefaults = { temperature = 0.5 }\nvariants = [{ name = \"v\" }]")
	s.model("tagged:latest", "")
	s.model("r", `kind = "rerank"`)
	s.start()
	if a := s.get("/api/tags"); strings.Count(a.body, `"digest"`) != 3 || !strings.Contains(a.body, `"name":"m:latest"`) {
		t.Errorf("tags: status %d: %s", a.status, a.body)
	}
	if a := s.get("/api/version"); !strings.Contains(a.body, `"version":"`) {
		t.Errorf("version: status %d: %s", a.status, a.body)
	}
	for _, name := range []string{"m", "m:latest", "v", "tagged", "tagged:latest"} {
		if a := s.ask(http.MethodPost, "/api/show", fmt.Sprintf(`{"model":%q}`, name)); a.status != http.StatusOK || !strings.Contains(a.body, `"completion"`) {
			t.Errorf("show %s: status %d: %s", name, a.status, a.body)
		}
	}
	if a := s.ask(http.MethodPost, "/api/show", `{"model":"m"}`); !strings.Contains(a.body, "temperature 0.5") {
		t.Errorf("show: %s", a.body)
	}
	if a := s.ask(http.MethodPost, "/api/chat", `{"model":"tagged:latest","stream":false,"messages":[{"role":"user","content":"Hi"}]}`); a.status != http.StatusOK {
		t.Errorf("a tag that is the name's own: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/api/generate", `{"model":"m"}`); a.status != http.StatusOK || !strings.Contains(a.body, `"done_reason":"load"`) {
		t.Errorf("load: status %d: %s", a.status, a.body)
	}
	var ps struct {
		Models []struct {
			Name    string
			Expires time.Time `json:"expires_at"`
		}
	}
	a := s.get("/api/ps")
	if err := json.Unmarshal([]byte(a.body), &ps); err != nil || len(ps.Models) != 2 || ps.Models[0].Name != "m:latest" ||
		time.Until(ps.Models[0].Expires) < 50*time.Minute {
		t.Errorf("ps: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/api/chat", `{"model":"m","messages":[],"keep_alive":0}`); a.status != http.StatusOK || !strings.Contains(a.body, `"done_reason":"unload"`) {
		t.Errorf("unload: status %d: %s", a.status, a.body)
	}
	s.eventually("it is unloaded", func() bool { return s.status("m") == "unloaded" })
}

func TestOllamaIsRefusedInItsOwnForm(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--die-after-tokens", "2")
	s.model("bad", "", "--exit-code", "3")
	s.start()
	for body, status := range map[string]int{
		`{"model":"none","messages":[{"role":"user","content":"Hi"}]}`: 404, `{"messages":[]}`: 400, `{`: 400,
		`{"model":"bad","messages":[]}`: 502, `{"model":"bad","messages":[{"role":"user","content":"Hi"}]}`: 502,
	} {
		a := s.ask(http.MethodPost, "/api/chat", body)
		var told struct{ Error string }
		if err := json.Unmarshal([]byte(a.body), &told); err != nil || a.status != status || told.Error == "" {
			t.Errorf("%s: status %d, %v: %s", body, a.status, err, a.body)
		}
	}
	a := s.ask(http.MethodPost, "/api/chat", ollamaChat+`}`)
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, `{"error":`) {
		t.Errorf("an engine that dies: %s", a.body)
	}
}
