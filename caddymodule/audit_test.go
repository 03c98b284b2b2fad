package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assistant/internal/keys"
)

// auditLine is what the audit log has of a call.
type auditLine struct {
	Logger    string `json:"logger"`
	Action    string `json:"action"`
	Model     string `json:"model"`
	Key       string `json:"key"`
	Remote    string `json:"remote"`
	RequestID string `json:"request_id"`
	Outcome   string `json:"outcome"`
}

func (s *site) audited() (lines []auditLine) {
	s.tb.Helper()
	log, err := os.ReadFile(s.log())
	if err != nil {
		s.tb.Fatal(err)
	}
	for text := range strings.Lines(string(log)) {
		var line auditLine
		if json.Unmarshal([]byte(text), &line) == nil && line.Logger == auditName {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestManagementIsAudited(t *testing.T) {
	const path = "/test/manage"
	routes[path] = route{methods: map[string]serveFunc{http.MethodPost: func(h *Handler, w http.ResponseWriter, r *http.Request, key *keys.Key) {
		h.audit(w, r, key, "delete", "mine", errors.New("it is pinned"))
	}}}
	t.Cleanup(func() { delete(routes, path) })
	s, alice, _, _ := keyed(t, "")
	api := admin{t, "http://" + s.withAdmin()}
	s.load()
	api.ok("POST", "load", `{"model":"m-alias"}`, nil)
	api.ok("POST", "unload?model=mine", "", nil)
	api.ask("POST", "load", `{"model":"none"}`)
	api.ok("GET", "ps", "", nil)
	s.ask(http.MethodPost, path, "", append(bearer(alice), requestIDHeader, "the-id")...)
	got := s.audited()
	for i := range got {
		if !strings.HasPrefix(got[i].Remote, "127.0.0.1") {
			t.Errorf("from %q", got[i].Remote)
		}
		got[i].Remote = ""
	}
	if diff := cmp.Diff([]auditLine{
		{Logger: auditName, Action: "load", Model: "mine", Outcome: "ok"},
		{Logger: auditName, Action: "unload", Model: "mine", Outcome: "ok"},
		{Logger: auditName, Action: "load", Model: "none", Outcome: `the model "none" does not exist`},
		{Logger: auditName, Action: "delete", Model: "mine", Key: "alice", RequestID: "the-id", Outcome: "it is pinned"},
	}, got); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}
