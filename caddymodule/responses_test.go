package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/keys"
)

// response is what tests read of one.
type response struct {
	ID, Status string
	Output     []struct {
		Content []struct{ Text string }
	}
	Error *struct{ Code, Message string }
}

func (r response) text() (text string) {
	for _, item := range r.Output {
		for _, part := range item.Content {
			text += part.Text
		}
	}
	return text
}

func (a answered) response(tb testing.TB) (r response) {
	tb.Helper()
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || a.status != http.StatusOK {
		tb.Fatalf("status %d, %v: %s", a.status, err, a.body)
	}
	return r
}

// respond asks for a response. more is put into the request.
func (s *site) respond(more string, header ...string) answered {
	s.tb.Helper()
	return s.ask(http.MethodPost, responsesPath, `{"model":"m","input":"Hi","max_output_tokens":3`+more+`}`, header...)
}

func TestResponses(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "")
		s.start()
		first := s.respond("").response(t)
		if first.text() != " 1 2 3" || first.Status != "incomplete" {
			t.Errorf("%+v", first)
		}
		s.load() // what is stored stays
		if again := s.get(responsesPath + "/" + first.ID).response(t); again.text() != " 1 2 3" {
			t.Errorf("fetched: %+v", again)
		}
		next := s.respond(fmt.Sprintf(`,"previous_response_id":%q`, first.ID)).response(t)
		if a := s.get(responsesPath + "/" + next.ID + "/input_items"); a.status != http.StatusOK || strings.Count(a.body, `"role":"user"`) != 1 {
			t.Errorf("input items: status %d: %s", a.status, a.body)
		}
		if a := s.ask(http.MethodDelete, responsesPath+"/"+first.ID, ""); a.status != http.StatusOK || !strings.Contains(a.body, `"deleted":true`) {
			t.Errorf("delete: status %d: %s", a.status, a.body)
		}
		if a := s.get(responsesPath + "/" + first.ID); a.status != http.StatusNotFound {
			t.Errorf("after its deletion: status %d: %s", a.status, a.body)
		}
		a := s.respond(`,"stream":true`)
		names := events(a.body)
		if len(names) == 0 || names[0] != "response.created" || names[len(names)-1] != "response.incomplete" {
			t.Errorf("events %v:\n%s", names, a.body)
		}
	})
}

func TestResponsesAreRefused(t *testing.T) {
	s := newSite(t)
	s.model("m", "")
	s.start()
	for what, want := range map[string]struct {
		a      answered
		status int
		param  string
	}{
		"no such model":    {s.ask(http.MethodPost, responsesPath, `{"model":"none","input":"Hi"}`), 404, "model"},
		"no input":         {s.ask(http.MethodPost, responsesPath, `{"model":"m","input":7}`), 400, "input"},
		"no such one":      {s.get(responsesPath + "/resp_0"), 404, ""},
		"no such previous": {s.respond(`,"previous_response_id":"resp_0"`), 400, "previous_response_id"},
		"post to one":      {s.ask(http.MethodPost, responsesPath+"/resp_0", "{}"), 405, ""},
		"put":              {s.ask(http.MethodPut, responsesPath+"/resp_0", "{}"), 405, ""},
	} {
		if e := want.a.apiError(t); want.a.status != want.status || text(e.Param) != want.param || e.Message == "" {
			t.Errorf("%s: status %d: %s", what, want.a.status, want.a.body)
		}
	}
}

func TestResponseInTheBackground(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--start-delay", "100ms")
	s.start()
	r := s.respond(`,"background":true`).response(t)
	if r.Status != "queued" {
		t.Errorf("at first: %+v", r)
	}
	s.eventually("the response ends", func() bool {
		r = s.get(responsesPath + "/" + r.ID).response(t)
		return r.Status != "queued" && r.Status != "in_progress"
	})
	if r.Status != "incomplete" || r.text() != " 1 2 3" {
		t.Errorf("at last: %+v", r)
	}
}

func TestResponseInTheBackgroundIsCancelled(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--token-delay", "1h")
	s.start()
	r := s.respond(`,"background":true`).response(t)
	s.eventually("the model is at it", func() bool {
		return s.get(responsesPath+"/"+r.ID).response(t).Status == "in_progress"
	})
	if r = s.ask(http.MethodPost, responsesPath+"/"+r.ID+"/cancel", "").response(t); r.Status != "cancelled" {
		t.Errorf("%+v", r)
	}
	s.eventually("the slot is free", func() bool { return engineFree(t, "m") })
	if r = s.get(responsesPath + "/" + r.ID).response(t); r.Status != "cancelled" {
		t.Errorf("later: %+v", r)
	}
}

func TestResponseInTheBackgroundFails(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--die-on-request")
	s.start()
	r := s.respond(`,"background":true`).response(t)
	s.eventually("the response fails", func() bool {
		r = s.get(responsesPath + "/" + r.ID).response(t)
		return r.Status == "failed"
	})
	if r.Error == nil || r.Error.Message == "" {
		t.Errorf("%+v", r)
	}
}

// A response is its key's, and counts against its bounds until it has ended.
func TestResponsesOfKeys(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(s.root, "keys.toml")
	var secrets []string
	for _, name := range []string{"a", "b"} {
		secret, err := keys.Create(file, keys.Entry{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, "Bearer "+secret)
	}
	made, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bounded := strings.Replace(string(made), "[[keys]]", "[[keys]]\nconcurrent_requests = 1", 1)
	if err := os.WriteFile(file, []byte(bounded), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["keys"] = file
	s.model("m", "", "--token-delay", "1h")
	s.start()
	r := s.respond(`,"background":true`, "Authorization", secrets[0]).response(t)
	path := responsesPath + "/" + r.ID
	if a := s.ask(http.MethodGet, path, "", "Authorization", secrets[1]); a.status != http.StatusNotFound {
		t.Errorf("another's: status %d: %s", a.status, a.body)
	}
	if a := s.respond("", "Authorization", secrets[0]); a.status != http.StatusTooManyRequests {
		t.Errorf("a second one: status %d: %s", a.status, a.body)
	}
	s.ask(http.MethodPost, path+"/cancel", "", "Authorization", secrets[0]).response(t)
	var again answered
	s.eventually("the key is free again", func() bool {
		again = s.respond(`,"background":true`, "Authorization", secrets[0])
		return again.status == http.StatusOK
	})
	s.ask(http.MethodPost, responsesPath+"/"+again.response(t).ID+"/cancel", "", "Authorization", secrets[0])
}
