package caddymodule

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	s, alice, _, _ := keyed(t, "")
	api := admin{t, "http://" + s.withAdmin()}
	s.load()
	api.ok("POST", "load", `{"model":"m-alias"}`, nil)
	api.ok("POST", "unload?model=mine", "", nil)
	api.ask("POST", "load", `{"model":"none"}`)
	api.ok("GET", "ps", "", nil)
	for path, body := range map[string]string{"/models/load": "mine", "/models/unload": "mine", "/api/v1/models/load": "m-alias", "/api/v1/models/unload": "other"} {
		s.ask(http.MethodPost, path, `{"model":"`+body+`"}`, append(bearer(alice), requestIDHeader, path)...)
	}
	got := s.audited()
	for i := range got {
		if !strings.HasPrefix(got[i].Remote, "127.0.0.1") {
			t.Errorf("from %q", got[i].Remote)
		}
		got[i].Remote = ""
	}
	slices.SortStableFunc(got, func(a, b auditLine) int { return strings.Compare(a.RequestID, b.RequestID) })
	if diff := cmp.Diff([]auditLine{
		{Logger: auditName, Action: "load", Model: "mine", Outcome: "ok"},
		{Logger: auditName, Action: "unload", Model: "mine", Outcome: "ok"},
		{Logger: auditName, Action: "load", Model: "none", Outcome: `the model "none" does not exist`},
		{Logger: auditName, Action: "load", Model: "mine", Key: "alice", RequestID: "/api/v1/models/load", Outcome: "ok"},
		{Logger: auditName, Action: "unload", Key: "alice", RequestID: "/api/v1/models/unload", Outcome: `the model "other" does not exist`},
		{Logger: auditName, Action: "load", Model: "mine", Key: "alice", RequestID: "/models/load", Outcome: "ok"},
		{Logger: auditName, Action: "unload", Model: "mine", Key: "alice", RequestID: "/models/unload", Outcome: "ok"},
	}, got); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}
