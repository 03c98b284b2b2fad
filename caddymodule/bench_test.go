package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"assistant/modeldir"
)

// runtimeOf makes a runtime with n models, none of which runs.
func runtimeOf(b *testing.B, n int) *runtime {
	b.Helper()
	made, err := newRuntime()
	if err != nil {
		b.Fatal(err)
	}
	rt := made.(*runtime)
	models := make([]*modeldir.Model, n)
	for i := range models {
		name := fmt.Sprintf("model-%05d", i)
		models[i] = &modeldir.Model{
			Name: name, Key: name, File: "/models/" + name + ".toml", Kind: modeldir.Chat, CtxSize: 4096,
			Engine: modeldir.EngineCommand, Command: []string{"/bin/true", "{{port}}"}, Aliases: []string{name + "-alias"},
		}
	}
	c := modeldir.NewCatalog(models)
	rt.catalog.Store(c)
	rt.act.SetCatalog(c)
	rt.lookForMissing(c)
	b.ReportAllocs()
	return rt
}

func benchmarkModels(b *testing.B, n int) {
	h := &Handler{rt: runtimeOf(b, n), app: &App{Insecure: true}}
	r := httptest.NewRequest(http.MethodGet, "/v1/models", http.NoBody)
	for b.Loop() {
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, nil); err != nil || w.Code != http.StatusOK {
			b.Fatal(w.Code, err)
		}
	}
}

// BenchmarkModelsChanged10000 is the list right after a change: nothing of the last one can be used.
func BenchmarkModelsChanged10000(b *testing.B) {
	rt := runtimeOf(b, 10_000)
	for b.Loop() {
		rt.listing.Store(nil)
		rt.list()
	}
}

func BenchmarkModels1000(b *testing.B)  { benchmarkModels(b, 1_000) }
func BenchmarkModels10000(b *testing.B) { benchmarkModels(b, 10_000) }

// BenchmarkNoDialect is what engines that need no repair pay for those that do, for each request.
func BenchmarkNoDialect(b *testing.B) {
	x := &exchange{model: &modeldir.Model{Name: "m", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer}}
	b.ReportAllocs()
	for b.Loop() {
		if err := x.planRepairs(); err != nil || x.plan != nil {
			b.Fatal(x.plan, err)
		}
	}
}

// BenchmarkWarmRequest is a request to an engine that runs, with all that the handler does for it.
func BenchmarkWarmRequest(b *testing.B) {
	s := newSite(b)
	s.model("m", "", "--tokens", "3")
	s.start()
	s.chat("m")
	rt := current(b)
	h := &Handler{rt: rt, app: rt.inForce(), Transport: transportLean}
	for name, more := range map[string]string{"plain": "", "stream": `"stream":true,`} {
		b.Run(name, func(b *testing.B) {
			body := fmt.Sprintf(`{"model":"m",%s"messages":[{"role":"user","content":"Hi"}]}`, more)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1"+chatPath, strings.NewReader(body))
				r.RemoteAddr = "127.0.0.1:1"
				r.Header.Set("Content-Type", "application/json")
				r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
				w := httptest.NewRecorder()
				if err := h.ServeHTTP(w, r, nil); err != nil || w.Code != http.StatusOK {
					b.Fatal(w.Code, err, w.Body)
				}
			}
		})
	}
}
