package caddymodule

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func (s *site) status(model string) string {
	s.tb.Helper()
	card, _ := s.card(model)
	return card.Status.Value
}

// Open WebUI's "llama.cpp" connections.
func TestLlamaCppRouterContract(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--start-delay", "50ms")
	s.start()
	var props struct {
		Role string
		Max  int `json:"max_instances"`
	}
	if a := s.get("/props"); json.Unmarshal([]byte(a.body), &props) != nil || props.Role != "router" || props.Max != 10 {
		t.Errorf("props: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/models/load", `{"model":"m"}`); a.status != http.StatusOK || !strings.Contains(a.body, `"success":true`) {
		t.Fatalf("load: status %d: %s", a.status, a.body)
	}
	s.eventually("it is loaded", func() bool { return s.status("m") == "loaded" })
	if a := s.get("/props?model=m"); a.status != http.StatusOK || !strings.Contains(a.body, `"model_alias":"m"`) {
		t.Errorf("the model's props: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, "/models/unload", `{"model":"m"}`); a.status != http.StatusOK {
		t.Errorf("unload: status %d: %s", a.status, a.body)
	}
	s.eventually("it is unloaded", func() bool { return s.status("m") == "unloaded" })
	s.model("new", "")
	if a := s.get("/models?reload=1"); a.status != http.StatusOK || !strings.Contains(a.body, `"id":"new"`) {
		t.Errorf("list: status %d: %s", a.status, a.body)
	}
}

// What llama.cpp's router tells of its models while they come and go.
func TestLlamaCppEvents(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--start-delay", "50ms")
	s.model("bad", "", "--exit-code", "3")
	s.start()
	s.chat("m")
	expect := s.followLlama().expect
	expect("how it stands", `"model":"m","event":"model_status","data":{"status":"loaded"`)
	s.ask(http.MethodPost, "/models/unload", `{"model":"m"}`)
	expect("unloaded", `"model":"m"`, `"status":"unloaded"`)
	s.ask(http.MethodPost, "/models/load", `{"model":"m"}`)
	expect("loading", `"model":"m"`, `"status":"loading"`)
	expect("loaded", `"model":"m"`, `"status":"loaded"`)
	s.ask(http.MethodPost, "/models/load", `{"model":"bad"}`)
	expect("failed", `"model":"bad"`, `"failed":true`, `"error":"`)
	s.model("new", "")
	expect("the list anew", `"event":"models_reload"`)
}

// Open WebUI's "LM Studio" connections.
func TestLMStudioManagement(t *testing.T) {
	s := newSite(t)
	s.model("m", "ctx_size = 4096", "--start-delay", "50ms")
	s.model("e", `kind = "embedding"`)
	s.model("r", `kind = "rerank"`)
	s.start()
	list := func() (models []lmModel) {
		t.Helper()
		var got struct{ Models []lmModel }
		a := s.get("/api/v1/models")
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
			t.Fatalf("status %d, %v: %s", a.status, err, a.body)
		}
		return got.Models
	}
	if got := list(); len(got) != 2 || got[0].Key != "e" || got[0].Type != "embedding" || got[1].Type != "llm" || got[1].Loaded == nil || len(got[1].Loaded) > 0 {
		t.Errorf("%+v", got)
	}
	a := s.ask(http.MethodPost, "/api/v1/models/load", `{"model":"m","context_length":16384}`)
	if a.status != http.StatusOK || !strings.Contains(a.body, `"status":"loaded"`) || s.status("m") != "loaded" {
		t.Errorf("load: status %d: %s", a.status, a.body)
	}
	got := list()
	if len(got[1].Loaded) != 1 || got[1].Loaded[0].Config.ContextLength != 4096 {
		t.Fatalf("%+v", got)
	}
	a = s.ask(http.MethodPost, "/api/v1/models/unload", `{"instance_id":"`+got[1].Loaded[0].ID+`"}`)
	if a.status != http.StatusOK || !strings.Contains(a.body, `"instance_id":"m"`) {
		t.Errorf("unload: status %d: %s", a.status, a.body)
	}
	s.eventually("it is unloaded", func() bool { return s.status("m") == "unloaded" })
}

func TestManagementIsRefused(t *testing.T) {
	s := newSite(t)
	s.model("bad", "", "--exit-code", "3")
	s.start()
	for _, path := range []string{"/models/load", "/models/unload", "/api/v1/models/load", "/api/v1/models/unload"} {
		for body, want := range map[string]struct {
			status int
			param  string
		}{
			`{"model":"none"}`: {404, "model"}, `{}`: {400, ""}, `{"model":7}`: {400, "model"}, `{"model":""}`: {400, "model"}, `[`: {400, ""},
			`{"model":"` + strings.Repeat("m", maxAsked) + `"}`: {413, ""},
		} {
			a := s.ask(http.MethodPost, path, body)
			if e := a.apiError(t); a.status != want.status || want.param != "" && text(e.Param) != want.param {
				t.Errorf("%s %.30s: status %d: %s", path, body, a.status, a.body)
			}
		}
		if a := s.get(path); a.status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: status %d", path, a.status)
		}
	}
	if a := s.ask(http.MethodPost, "/api/v1/models/load", `{"model":"bad"}`); a.status != http.StatusBadGateway {
		t.Errorf("a model that does not start: status %d: %s", a.status, a.body)
	}
	if a := s.get("/props?model=none"); a.status != http.StatusNotFound {
		t.Errorf("props of no model: status %d: %s", a.status, a.body)
	}
}
