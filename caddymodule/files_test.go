package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A change of a model file is in force within 250 ms; how soon is logged, as a busy machine may be slower.
func TestModelFilesComeAndGo(t *testing.T) {
	s := newSite(t).start()
	var took []time.Duration
	for i := range 5 {
		name := "m" + string(rune('a'+i))
		s.model(name, "")
		began := time.Now()
		s.eventually(name+" is served", func() bool { return resolves(t, name) })
		took = append(took, time.Since(began))
		pid := s.chat(name)
		if err := os.Remove(filepath.Join(s.models, name+".toml")); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		s.eventually(name+" is gone", func() bool { return s.ask(http.MethodPost, chatPath, question(name)).status == http.StatusNotFound })
		took = append(took, time.Since(began))
		s.eventually("its engine ends", func() bool { return !alive(pid) })
		if _, listed := s.card(name); listed {
			t.Errorf("%s is still listed", name)
		}
	}
	slices.Sort(took)
	t.Logf("changes in force after %v, median %v", took, took[len(took)/2])
}

func TestRemovedModelFinishesItsStream(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "80", "--token-delay", "10ms")
	s.start()
	st := s.stream("m")
	if err := os.Remove(filepath.Join(s.models, "m.toml")); err != nil {
		t.Fatal(err)
	}
	s.eventually("the model is gone", func() bool { return s.get("/v1/models/m").status == http.StatusNotFound })
	st.completes()
	s.eventually("its engine ends", func() bool { return !alive(st.pid) })
}

func TestChangedModelFile(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "120", "--token-delay", "10ms")
	s.start()
	st := s.stream("m")

	s.model("m", "idle_timeout = \"7m\"\naliases = [\"x\"]", "--tokens", "120", "--token-delay", "10ms") // metadata only
	s.eventually("the alias is known", func() bool { return resolves(t, "x") })
	if pid := s.chat("x"); pid != st.pid {
		t.Errorf("after a change of metadata %d answers, want %d", pid, st.pid)
	}

	s.model("m", "", "--tokens", "5") // another process
	s.eventually("the alias is gone", func() bool { return !resolves(t, "x") })
	pid := s.chat("m")
	if pid == st.pid {
		t.Errorf("after a change of the command the old engine %d answers", pid)
	}
	st.completes()
	s.eventually("the old engine ends", func() bool { return !alive(st.pid) })

	s.file("m", "engine = \"command\"\nbogus = 1\n") // broken
	s.eventually("the list shows what is wrong", func() bool {
		c, _ := s.card("m")
		return strings.Contains(c.Status.Error, "bogus")
	})
	if c, _ := s.card("m"); c.Status.Value != "loaded" || !strings.Contains(c.Status.Error, "m.toml:2:1") {
		t.Errorf("status %q, error %q; want loaded, and the place", c.Status.Value, c.Status.Error)
	}
	if got := s.chat("m"); got != pid {
		t.Errorf("after a broken file %d answers, want %d", got, pid)
	}
}
