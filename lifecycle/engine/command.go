package engine

import (
	"errors"
	"slices"
	"strings"

	"assistant/modeldir"
)

// command runs any program that speaks OpenAI's HTTP: whisper, vLLM, TTS, a container.
// Its slots are unlimited unless concurrency says otherwise: such servers queue by themselves. One that speaks
// llama-api-server's dialect has one slot: a second request would overwrite the first one's prompt.
var command = Kind{
	Name: modeldir.EngineCommand,
	Plan: func(m *modeldir.Model, at Place) (Plan, error) {
		if !knowsAddress(m) {
			return Plan{}, errors.New("nobody tells where command listens: use {{port}} in command or env, or set port or upstream")
		}
		if uses(m, "{{model_path}}") {
			if err := modelFile(m); err != nil {
				return Plan{}, err
			}
		}
		argv := Fill(m.Command, m, at)
		if _, err := program(argv[0]); err != nil {
			return Plan{}, err
		}
		env, _ := environmentAt(m, at)
		return Plan{
			Argv:  append(argv, m.Args...),
			Env:   env,
			Slots: commandSlots(m),
		}, nil
	},
}

func commandSlots(m *modeldir.Model) int {
	if m.Concurrency == 0 && m.Dialect == modeldir.DialectLlamaAPIServer {
		return 1
	}
	return m.Concurrency
}

func knowsAddress(m *modeldir.Model) bool {
	return m.Port > 0 || m.Upstream != "" || uses(m, "{{port}}")
}

// uses reports whether the model's command or environment holds the placeholder.
func uses(m *modeldir.Model, placeholder string) bool {
	has := func(s string) bool { return strings.Contains(s, placeholder) }
	if slices.ContainsFunc(m.Command, has) {
		return true
	}
	for _, v := range m.Env {
		if has(v) {
			return true
		}
	}
	return false
}
