package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/activator"
	"assistant/internal/enginetest"
)

func init() { caddy.RegisterModule(failingApp{}) }

// failingApp is an app that cannot be started. It notes how many configurations of ours were started before it.
type failingApp struct{}

var startedBefore []int

func (failingApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "failing_test_app", New: func() caddy.Module { return failingApp{} }}
}

func (failingApp) Start() error {
	_ = withRuntime(func(rt *runtime) error {
		rt.mu.Lock()
		defer rt.mu.Unlock()
		startedBefore = append(startedBefore, len(rt.inUse))
		return nil
	})
	return errors.New("failing_test_app never starts")
}

func (failingApp) Stop() error { return nil }

// traffic is a hundred clients, each asking again and again over new connections. As the official SDKs do, they ask once
// more when a connection broke before a byte of an answer: at a reload Caddy's listeners drop those whose request no
// handler has seen yet, whatever the handler.
type traffic struct {
	stop     chan struct{}
	all      sync.WaitGroup
	answered atomic.Int64
	dropped  atomic.Int64
}

func (s *site) traffic(t *testing.T, model string) *traffic {
	t.Helper()
	tr := &traffic{stop: make(chan struct{})}
	for i := range 100 {
		tr.all.Go(func() {
			for {
				select {
				case <-tr.stop:
					return
				default:
				}
				a, err := do(t.Context(), http.MethodPost, s.url+chatPath, question(model))
				switch {
				case err != nil:
					tr.dropped.Add(1)
				case a.status != http.StatusOK || a.err != nil:
					t.Errorf("client %d: status %d, %v: %s", i, a.status, a.err, a.body)
					return
				default:
					tr.answered.Add(1)
				}
			}
		})
	}
	return tr
}

// goOn waits for so many more answers.
func (tr *traffic) goOn(s *site, n int64) {
	s.tb.Helper()
	want := tr.answered.Load() + n
	s.eventually("the traffic goes on", func() bool { return tr.answered.Load() >= want || s.tb.Failed() })
}

func (tr *traffic) end() {
	close(tr.stop)
	tr.all.Wait()
}

func TestReloadsUnderTraffic(t *testing.T) {
	overTransports(t, func(t *testing.T, s *site) {
		s.model("m", "", "--token-delay", "10ms", "--tokens", "150")
		s.start()
		st := s.stream("m")
		tr := s.traffic(t, "m")
		for i := range 5 {
			tr.goOn(s, 100)
			s.app["max_instances"] = 20 + i
			s.load()
			if got, want := limits(t).MaxInstances, 20+i; got != want {
				t.Errorf("after reload %d max_instances is %d, want %d", i, got, want)
			}
		}
		tr.goOn(s, 100)
		tr.end()
		st.completes()
		if n := len(s.started()); n != 1 {
			t.Errorf("%d engines were started, want 1 over all reloads", n)
		}
		if pid := s.chat("m"); pid != st.pid {
			t.Errorf("after the reloads %d answers, want %d", pid, st.pid)
		}
		// No request that a handler has begun was lost: the engine got as many as were answered.
		want := int(tr.answered.Load()) + 2 // the stream, and the last one
		if begun, ended := len(s.happened(enginetest.EventBegin)), len(s.happened(enginetest.EventEnd)); begun != want || ended != want {
			t.Errorf("the engine began %d requests and ended %d; clients got %d answers", begun, ended, want)
		}
		var metrics bytes.Buffer
		current(t).writeMetrics(&metrics)
		if line := fmt.Sprintf("assistant_requests_total{model=\"m\",code=\"200\"} %d\n", want); !strings.Contains(metrics.String(), line) ||
			strings.Count(metrics.String(), "assistant_requests_total{") != 1 {
			t.Errorf("metrics lack %q, or have other codes:\n%s", line, metrics.String())
		}
		t.Logf("%d answers; %d connections dropped before their request was read", tr.answered.Load(), tr.dropped.Load())
	})
}

// A start belongs to no configuration, and neither do those who wait for it.
func TestReloadDuringAColdStart(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--start-delay", "400ms")
	s.start()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a, err := do(t.Context(), http.MethodPost, s.url+chatPath, question("m"))
			if err != nil || a.status != http.StatusOK || a.err != nil {
				t.Errorf("%v, status %d: %s", err, a.status, a.body)
			}
		})
	}
	s.eventually("all wait", func() bool { return current(t).act.Statuses()["m"].Queued == 20 })
	s.load()
	if n := len(s.happened(enginetest.EventReady)); n != 0 {
		t.Fatal("the engine was ready before the reload was over: this shows nothing")
	}
	all.Wait()
	if n := len(s.started()); n != 1 {
		t.Errorf("%d engines were started, want 1", n)
	}
}

// A configuration that is rejected must not have touched anything, however far it came.
func TestFailedReloadChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	other := t.TempDir()
	for name, c := range map[string]struct {
		spoil func(s *site)
		tries int
	}{
		"another app does not start": {func(s *site) { s.more = map[string]any{"failing_test_app": map[string]any{}} }, 12},
		"an address is taken": {func(s *site) {
			s.more = map[string]any{"http": map[string]any{"servers": map[string]any{"x": map[string]any{"listen": []string{taken.Addr().String()}}}}}
		}, 4},
		"the handler is wrong":  {func(s *site) { s.handler["transport"] = "pigeon" }, 1},
		"the app is wrong":      {func(s *site) { s.app["max_instances"] = -1 }, 1},
		"config.toml is absent": {func(s *site) { s.app["config"] = "/not/there/config.toml" }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.model("one", "")
			s.model("two", "")
			s.start()
			one, two := s.chat("one"), s.chat("two")
			before, good := limits(t), *s
			startedBefore = nil
			for range c.tries { // apps start in no order
				s.handler = map[string]any{"handler": "assistant"}
				s.app = map[string]any{"config_dir": other, "state_dir": good.app["state_dir"], "max_instances": 1, "max_load": 0}
				c.spoil(s)
				if err := s.tryLoad(); err == nil {
					t.Fatal("the bad configuration was loaded")
				}
			}
			if c.tries == 12 && !slices.Contains(startedBefore, 2) {
				t.Errorf("our app never started before the failing one (%v): this shows nothing", startedBefore)
			}
			if got := limits(t); got != before {
				t.Errorf("limits %+v, want %+v", got, before)
			}
			if !resolves(t, "one") || !resolves(t, "two") {
				t.Error("the models are gone")
			}
			if a, b := s.chat("one"), s.chat("two"); a != one || b != two {
				t.Errorf("engines %d and %d answer, want %d and %d", a, b, one, two)
			}
			s.app, s.handler, s.more = good.app, good.handler, nil
			s.load()
			if n, _ := runtimes.References(runtimeKey); n != 1 {
				t.Errorf("%d references to the runtime, want 1", n)
			}
			s.model("three", "")
			s.eventually("the directory is still watched", func() bool { return resolves(t, "three") })
		})
	}
}

// limits returns those of the configuration in force.
func limits(t *testing.T) activator.Settings {
	t.Helper()
	return current(t).inForce().settings()
}

func TestReloadWithoutTheAppDrains(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "100", "--token-delay", "10ms")
	s.model("idle", "")
	s.start()
	idle := s.chat("idle")
	st := s.stream("m")
	app, handler := s.app, s.handler
	s.app, s.handler = nil, map[string]any{"handler": "static_response", "body": "no models here"}
	s.load()
	if a := s.get("/v1/models"); a.body != "no models here" {
		t.Errorf("without the app: %s", a.body)
	}
	if _, running := runtimes.References(runtimeKey); running {
		t.Error("the runtime is still there")
	}
	s.eventually("the idle engine ends", func() bool { return !alive(idle) })
	if !alive(st.pid) {
		t.Fatal("the busy engine was stopped in its stream")
	}

	s.app, s.handler = app, handler // while the old one still drains
	s.load()
	pid := s.chat("m")
	if pid == st.pid {
		t.Errorf("the new configuration got engine %d, which is on its way out", pid)
	}
	st.completes()
	s.eventually("the old engine ends", func() bool { return !alive(st.pid) })
	if again := s.chat("m"); again != pid {
		t.Errorf("then %d answers, want %d", again, pid)
	}
}

func TestValidateStartsAndStealsNothing(t *testing.T) {
	s := newSite(t)
	s.model("m", "", "--tokens", "60", "--token-delay", "10ms")
	validate := func() {
		t.Helper()
		var cfg caddy.Config
		if err := json.Unmarshal(s.json(), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err != nil {
			t.Fatal(err)
		}
	}
	validate()
	if _, running := runtimes.References(runtimeKey); running {
		t.Error("validation leaves a runtime")
	}
	if _, err := do(t.Context(), http.MethodGet, s.url, ""); err == nil {
		t.Error("validation listens")
	}
	s.start()
	pid := s.chat("m")
	before := limits(t)
	st := s.stream("m")
	s.app["max_instances"] = 1
	for range 3 {
		validate()
	}
	if got := limits(t); got != before {
		t.Errorf("validation changed limits: %+v, want %+v", got, before)
	}
	st.completes()
	if got := s.chat("m"); got != pid {
		t.Errorf("after validation %d answers, want %d", got, pid)
	}
	if n := len(s.started()); n != 1 {
		t.Errorf("%d engines were started, want 1", n)
	}
}

func TestStopLeavesNoEngine(t *testing.T) {
	s := newSite(t)
	s.model("one", "")
	s.model("two", "", "--ignore-term", "1")
	s.start()
	s.chat("one")
	s.chat("two")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, pid := range s.started() {
		s.eventually("the engines end", func() bool { return !alive(pid) })
	}
	t.Logf("gone after %v", time.Since(began).Round(time.Millisecond))
}
