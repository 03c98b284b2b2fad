package caddymodule

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestEngineKilledInAStream(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--tokens", "100000", "--token-delay", "5ms")
		s.start()
		st := s.stream("m")
		if err := syscall.Kill(st.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		data, _ := st.rest()
		if len(data) == 0 || data[len(data)-1] == "[DONE]" {
			t.Fatalf("%d events, the last one no error", len(data))
		}
		e := answered{body: data[len(data)-1]}.apiError(t)
		if text(e.Code) != "engine_crashed" || e.Type != "server_error" {
			t.Errorf("the last event is an error of type %q, code %q", e.Type, text(e.Code))
		}
		s.eventually("the engine is gone", func() bool { return !alive(st.pid) }) // its listener may outlive the stream by microseconds
		if pid := s.chat("m"); pid == st.pid {
			t.Errorf("the next request was answered by %d, who is dead", pid)
		}
	})
}

func TestEngineDiesOnARequest(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--die-on-request")
		s.start()
		a := s.ask(http.MethodPost, chatPath, question("m"))
		if e := a.apiError(t); a.status != http.StatusBadGateway || text(e.Code) != "engine_crashed" {
			t.Errorf("status %d, code %q; want 502 engine_crashed", a.status, text(e.Code))
		}
		if n := len(s.happened("begin")); n != 1 {
			t.Errorf("a POST that reached the engine was sent %d times, want once", n)
		}
	})
}

// oddModel writes the file of a model whose engine answers oddly; see [serveOddly].
func (s *site) oddModel(name, how, more string) {
	s.tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.file(name, fmt.Sprintf("engine = \"command\"\ncommand = [%q, %q, \"{{port}}\", %q]\nready_path = \"/\"\n%s\n", exe, oddWord, how, more))
}

func TestEngineDiesInAPlainBody(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.oddModel("sized", "sized", "")
		s.oddModel("chunked", "chunked", "")
		s.start()
		for _, framing := range []string{"sized", "chunked"} {
			a, err := do(t.Context(), http.MethodPost, s.url+chatPath, question(framing))
			if err == nil && a.err == nil {
				t.Errorf("%s: half an answer looks like a whole one: status %d: %q", framing, a.status, a.body)
			}
		}
	})
}

func TestEngineThatExitsAtStart(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--exit-code", "3", "--stderr", "error: boom")
	s.start()
	for range 2 { // the second is refused at once: the model rests
		a := s.ask(http.MethodPost, chatPath, question("m"))
		e := a.apiError(t)
		if a.status != http.StatusBadGateway || text(e.Code) != "engine_failed" || !strings.Contains(e.Message, "error: boom") {
			t.Errorf("status %d, code %q: %s; want 502 with what the engine said", a.status, text(e.Code), e.Message)
		}
		if a.header.Get("X-Should-Retry") != "false" || a.header.Get("Retry-After") == "" {
			t.Errorf("X-Should-Retry %q, Retry-After %q", a.header.Get("X-Should-Retry"), a.header.Get("Retry-After"))
		}
	}
	if n := len(s.started()); n != 1 {
		t.Errorf("%d starts, want 1", n)
	}
	if c, _ := s.card("m"); c.Status.Value != "failed" || !strings.Contains(c.Status.Error, "error: boom") {
		t.Errorf("status %q: %s", c.Status.Value, c.Status.Error)
	}
}

func TestMissingProgram(t *testing.T) {
	s := newSite(t)
	program := filepath.Join(s.root, "not-there")
	s.file("m", fmt.Sprintf("engine = \"command\"\ncommand = [%q, \"{{port}}\"]\n", program))
	s.start()
	s.eventually("the list shows what is missing", func() bool {
		c, _ := s.card("m")
		return c.Status.Value == "failed" && strings.Contains(c.Status.Error, program)
	})
	a := s.ask(http.MethodPost, chatPath, question("m"))
	if e := a.apiError(t); a.status != http.StatusBadGateway || text(e.Code) != "engine_failed" || !strings.Contains(e.Message, program) {
		t.Errorf("status %d, code %q: %s; want 502 naming %s", a.status, text(e.Code), e.Message, program)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec "+s.engine+" --port $1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if pid := s.chat("m"); pid == 0 {
		t.Error("not served once the program is there")
	}
	if c, _ := s.card("m"); c.Status.Value != "loaded" {
		t.Errorf("status %q: %s", c.Status.Value, c.Status.Error)
	}
	current(t).act.Unload("m", false)
	s.eventually("the list forgets what was missing", func() bool {
		c, _ := s.card("m")
		return c.Status.Value == "unloaded" && c.Status.Error == ""
	})
}
