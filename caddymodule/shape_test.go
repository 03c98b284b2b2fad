package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/gguf/gguftest"
	"assistant/internal/keys"
)

// What a model's file says of requests is in them when the engine has them; variants share its instance.
func TestRequestsAreShaped(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", `system_prompt = "Be brief."
defaults = { temperature = 0.5 }
caps = { max_tokens = 9 }
[[variants]]
name = "v"
forced = { seed = 7, model = "m" }
`, "--echo")
		s.start()
		for body, want := range map[string]string{
			`{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":3}`:    `{"temperature":0.5,"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"max_tokens":3}`,
			`{"model":"v","messages":[{"role":"user","content":"Hi"}],"temperature":0.1}`: `{"seed":7,"max_tokens":9,"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"temperature":0.1}`,
		} {
			if e := s.ask(http.MethodPost, chatPath, body).echo(t); e.Body != want {
				t.Errorf("%s: the engine was asked\n%s, want\n%s", body, e.Body, want)
			}
		}
		e := s.ask(http.MethodPost, "/v1/completions", `{"model":"v","prompt":"Hi"}`).echo(t)
		if e.Body != `{"seed":7,"temperature":0.5,"max_tokens":9,"model":"m","prompt":"Hi"}` {
			t.Errorf("a text: %s", e.Body)
		}
		if e := s.ask(http.MethodPost, "/v1/embeddings", `{"model":"m","input":"x"}`).echo(t); e.Body != `{"model":"m","input":"x"}` {
			t.Errorf("what the model is not for: %s", e.Body)
		}
		if n := len(s.started()); n != 1 {
			t.Errorf("%d engines were started, want 1", n)
		}
		a := s.ask(http.MethodPost, chatPath, `{"model":"m","messages":[],"max_tokens":"9"}`)
		if a.status != http.StatusBadRequest || text(a.apiError(t).Param) != "max_tokens" {
			t.Errorf("no number: status %d: %s", a.status, a.body)
		}
		if card, ok := s.card("v"); !ok || card.Status.Value != "loaded" {
			t.Errorf("the list has %+v", card)
		}
		if a := s.get("/v1/models/v"); a.status != http.StatusOK {
			t.Errorf("its card: status %d: %s", a.status, a.body)
		}
	})
}

func TestFallbacksAnswer(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("broken", "fallbacks = [\"gone\", \"broken2\", \"good\"]\ndefaults = { seed = 1 }", "--exit-code", "3")
		s.model("broken2", "", "--exit-code", "3")
		s.model("good", "defaults = { top_k = 5 }", "--echo")
		s.model("dies", `fallbacks = ["good"]`, "--die-on-request")
		s.start()
		for _, model := range []string{"broken", "dies"} {
			a := s.ask(http.MethodPost, chatPath, question(model))
			e := a.echo(t)
			if a.header.Get("X-Assistant-Model") != "good" || !strings.HasPrefix(e.Body, `{"top_k":5,"model":`) {
				t.Errorf("%s: %q answered: %s", model, a.header.Get("X-Assistant-Model"), e.Body)
			}
		}
		if a := s.ask(http.MethodPost, chatPath, question("broken2")); a.status != http.StatusBadGateway || a.header.Get("X-Assistant-Model") != "" {
			t.Errorf("without a fallback: status %d, %v", a.status, a.header)
		}
	})
}

// A key's holder gets no model by a fallback that the key is not for.
func TestFallbacksAreTheKeys(t *testing.T) {
	s, alice, _, _ := keyed(t, "")
	s.model("m-broken", `fallbacks = ["other"]`, "--exit-code", "3")
	s.model("m-other", `fallbacks = ["mine"]`, "--exit-code", "3")
	s.get("/models?reload=1")
	s.eventually("the models are there", func() bool { return resolves(t, "m-broken") && resolves(t, "m-other") })
	if a := s.ask(http.MethodPost, chatPath, question("m-broken"), "Authorization", "Bearer "+alice); a.status != http.StatusBadGateway {
		t.Errorf("by one that she may not use: status %d: %s", a.status, a.body)
	}
	if a := s.ask(http.MethodPost, chatPath, question("m-other"), "Authorization", "Bearer "+alice); a.status != http.StatusOK {
		t.Errorf("by one that she may use: status %d: %s", a.status, a.body)
	}
}

// Who may use a variant may not use its model, and who may use a name may use it where a pattern stands for it.
func TestKeysAndOtherNames(t *testing.T) {
	s := newSite(t)
	s.model("big", "aliases = [\"gpt-*\"]\n[[variants]]\nname = \"small\"\ncaps = { max_tokens = 2 }", "--tokens", "3")
	file := filepath.Join(s.root, "keys.toml")
	all := ""
	secrets := map[string]string{}
	for name, models := range map[string]string{"variant": "small", "pattern": "gpt-4o", "all": "*"} {
		key, sum := keys.New()
		secrets[name] = key
		all += fmt.Sprintf("[[keys]]\nname = %q\nsha256 = %q\nmodels = [%q]\n", name, sum, models)
	}
	if err := os.WriteFile(file, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["keys"] = file
	s.start()
	for who, may := range map[string]map[string]bool{
		"variant": {"small": true, "big": false, "gpt-4o": false},
		"pattern": {"small": false, "big": false, "gpt-4o": true, "gpt-4": false},
		"all":     {"small": true, "big": true, "gpt-4": true},
	} {
		for model, want := range may {
			a := s.ask(http.MethodPost, chatPath, question(model), "Authorization", "Bearer "+secrets[who])
			if got := a.status == http.StatusOK; got != want || !got && a.status != http.StatusNotFound {
				t.Errorf("%s asks %s: status %d", who, model, a.status)
			}
		}
	}
}

func TestTimeoutsOfAModel(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		const fallback = "\nfallbacks = [\"good\"]"
		s.model("slow", `first_byte_timeout = "50ms"`, "--answer-delay", "1h")
		s.model("slow-joined", "first_byte_timeout = \"50ms\"\ncancel_by_stream = true", "--answer-delay", "1h")
		s.model("stuck", `token_timeout = "50ms"`, "--token-delay", "1h")
		s.model("endless", `answer_timeout = "200ms"`, "--tokens", "100000", "--token-delay", "1ms")
		s.model("patient", "first_byte_timeout = \"1h\"\ntoken_timeout = \"1h\"\nanswer_timeout = \"1h\"")
		s.model("replaced", `first_byte_timeout = "50ms"`+fallback, "--answer-delay", "1h")
		s.edgeModel("edge", `answer_timeout = "200ms"`, "--tokens", "100000", "--token-delay", "5ms")
		s.model("good", "")
		s.start()
		for _, model := range []string{"slow", "slow-joined"} {
			a := s.ask(http.MethodPost, chatPath, question(model))
			if e := a.apiError(t); a.status != http.StatusGatewayTimeout || text(e.Code) != "timeout" || !strings.Contains(e.Message, "first_byte_timeout") {
				t.Errorf("%s: status %d: %s", model, a.status, a.body)
			}
		}
		for _, model := range []string{"stuck", "endless", "edge"} {
			a := s.ask(http.MethodPost, chatPath, fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"Hi"}]}`, model))
			if !strings.Contains(a.body, `"code":"timeout"`) || strings.Contains(a.body, "[DONE]") || a.err != nil {
				t.Errorf("%s: status %d, %v: %.500s", model, a.status, a.err, a.body)
			}
			s.eventually("the engine is free", func() bool { return engineFree(t, model) })
		}
		a := s.ask(http.MethodPost, messagesPath, `{"model":"stuck","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}`)
		if got := events(a.body); len(got) == 0 || got[len(got)-1] != "error" || !strings.Contains(a.body, "token_timeout") {
			t.Errorf("messages: %s", a.body)
		}
		s.chat("patient")
		s.stream("patient").completes()
		if a := s.ask(http.MethodPost, chatPath, question("replaced")); a.status != http.StatusOK || a.header.Get("X-Assistant-Model") != "good" {
			t.Errorf("replaced: status %d: %s", a.status, a.body)
		}
	})
}

// What a model reads, and how much of it, is in the list without anybody asking its engine.
func TestListTellsWhatTheFileSays(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(s.root, "m.gguf")
	new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", 2048).Tensor("token_embd.weight", 64).Write(t, file)
	t.Setenv("LLAMA_SERVER", s.engine)
	s.file("m", fmt.Sprintf("model_path = %q\nengine = \"llama-server\"\n", file))
	s.file("sees", fmt.Sprintf("model_path = %q\nengine = \"llama-server\"\nctx_size = 77\nargs = [\"--mmproj\", %q]\n", file, file))
	s.file("args", fmt.Sprintf("model_path = %q\nengine = \"llama-server\"\nctx_size = 77\nargs = [\"--mmproj=%s\", \"-c\", \"88\"]\n", file, file))
	s.file("env", fmt.Sprintf("model_path = %q\nengine = \"llama-server\"\nctx_size = 77\nargs = [\"-c\", \"0\"]\nenv = { LLAMA_ARG_MMPROJ = %q }\n", file, file))
	s.start()
	card := func(id string) (c struct {
		ContextLength int `json:"context_length"`
		Architecture  struct {
			In []string `json:"input_modalities"`
		}
	},
	) {
		t.Helper()
		if a := s.get("/v1/models/" + id); json.Unmarshal([]byte(a.body), &c) != nil {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
		return c
	}
	s.eventually("the file was read", func() bool { return card("m").ContextLength == 2048 })
	if c := card("sees"); c.ContextLength != 77 || strings.Join(c.Architecture.In, " ") != "text image" {
		t.Errorf("%+v", c)
	}
	for id, context := range map[string]int{"args": 88, "env": 2048} {
		if c := card(id); c.ContextLength != context || strings.Join(c.Architecture.In, " ") != "text image" {
			t.Errorf("%s: %+v", id, c)
		}
	}
	picture := `{"model":%q,"messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:,"}}]}]}`
	a := s.ask(http.MethodPost, chatPath, fmt.Sprintf(picture, "m"))
	if e := a.apiError(t); a.status != http.StatusBadRequest || text(e.Param) != "messages" || !strings.Contains(e.Message, "image input is not supported") {
		t.Errorf("a picture: status %d: %s", a.status, a.body)
	}
	if len(s.started()) > 0 {
		t.Error("an engine was started for a picture that it can't see")
	}
}
