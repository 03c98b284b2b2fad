package engine

import (
	"os"
	"testing"

	"assistant/internal/openai"
	"assistant/modeldir"
)

func TestDialect(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		model modeldir.Model
		want  openai.Dialect
		slots int
	}{
		{"none", modeldir.Model{}, openai.Dialect{}, 0},
		{"llama-api-server", modeldir.Model{Dialect: modeldir.DialectLlamaAPIServer, CtxSize: 512}, openai.Dialect{Repairs: openai.LlamaAPIServer, Context: 512}, 1},
		{
			"that sees",
			modeldir.Model{Dialect: modeldir.DialectLlamaAPIServer, Args: []string{"--llava-mmproj", "p.gguf"}},
			openai.Dialect{Repairs: openai.LlamaAPIServer, Images: true},
			1,
		},
		{"with slots", modeldir.Model{Dialect: modeldir.DialectLlamaAPIServer, Concurrency: 3}, openai.Dialect{Repairs: openai.LlamaAPIServer}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.model
			m.Engine, m.Command = modeldir.EngineCommand, []string{exe, "{{port}}"}
			kind := For(&m)
			if got := kind.Dialect(&m); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			plan, err := kind.Plan(&m, Place{Port: 1})
			if err != nil || plan.Slots != tt.slots {
				t.Errorf("%d slots, %v; want %d", plan.Slots, err, tt.slots)
			}
		})
	}
	if got := llamaServer.Dialect(&modeldir.Model{CtxSize: 512}).Repairs; got != 0 {
		t.Errorf("llama-server has repairs %b: its bytes are to pass as they are", got)
	}
}
