package ollama

import (
	"errors"
	"strings"
	"testing"
	"time"

	"assistant/internal/openai"
)

var known = Model{
	Name: "qwen", Modified: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Size: 5e8, Digest: strings.Repeat("ab", 32), Format: "gguf", Family: "qwen2",
	ParameterSize: "494M", Quantization: "Q4_K_M", ContextLength: 32768, Template: "{% if a %}<b>", Parameters: []string{"temperature 0.7", `stop "<|x|>"`},
	Capabilities: []string{"completion", "tools"},
	Details:      map[string]any{"general.parameter_count": 494000000, "tokenizer.ggml.tokens": []string{"a", "b", "c", "d", "e", "f"}, "a.list": []any{1, 2}},
}

const (
	facts = `{"parent_model":"","format":"gguf","family":"qwen2","families":["qwen2"],"parameter_size":"494M","quantization_level":"Q4_K_M","context_length":32768}`
	blank = `{"parent_model":"","format":"","family":"","families":null,"parameter_size":"","quantization_level":""}`
	never = "0001-01-01T00:00:00Z"
)

func TestModelsAreListed(t *testing.T) {
	digest := known.Digest
	sameJSON(t, Tags([]Model{known, {Name: "a/b:c"}, {Name: "host:1/b", Family: "x", Families: []string{"x", "clip"}}}), `{"models":[`+
		`{"name":"qwen:latest","model":"qwen:latest","modified_at":"2026-01-02T03:04:05.000000006Z","size":500000000,"digest":"`+digest+`","details":`+facts+`,"capabilities":["completion","tools"]},`+
		`{"name":"a/b:c","model":"a/b:c","modified_at":"`+never+`","size":0,"digest":"","details":`+blank+`},`+
		`{"name":"host:1/b:latest","model":"host:1/b:latest","modified_at":"`+never+`","size":0,"digest":"","details":`+
		strings.NewReplacer(`"family":""`, `"family":"x"`, "null", `["x","clip"]`).Replace(blank)+`}]}`)
	sameJSON(t, Tags(nil), `{"models":[]}`)
}

func TestRunningModelsAreListed(t *testing.T) {
	soon, later := known.Modified, known.Modified.Add(time.Hour)
	sameJSON(t, PS([]Running{{Model: Model{Name: "b:1"}, ExpiresAt: soon}, {Model: Model{Name: "a:1"}, ExpiresAt: soon}, {Model: known, ExpiresAt: later, SizeVRAM: 7, ContextLength: 4096}}), `{"models":[`+
		`{"name":"qwen:latest","model":"qwen:latest","size":500000000,"digest":"`+known.Digest+`","details":`+facts+`,"expires_at":"2026-01-02T04:04:05.000000006Z","size_vram":7,"context_length":4096},`+
		`{"name":"a:1","model":"a:1","size":0,"digest":"","details":`+blank+`,"expires_at":"2026-01-02T03:04:05.000000006Z","size_vram":0,"context_length":0},`+
		`{"name":"b:1","model":"b:1","size":0,"digest":"","details":`+blank+`,"expires_at":"2026-01-02T03:04:05.000000006Z","size_vram":0,"context_length":0}]}`)
	sameJSON(t, PS(nil), `{"models":[]}`)
}

func TestModelsAreShown(t *testing.T) {
	show := func(tokens string) string {
		return `{"modelfile":"# Made of what is known of the model, to be read: it can't be changed here.\nFROM qwen\nPARAMETER temperature 0.7\n` +
			`PARAMETER stop \"<|x|>\"\nTEMPLATE \"\"\"{% if a %}<b>\"\"\"\n","parameters":"temperature                    0.7\nstop                           \"<|x|>\"",` +
			`"template":"{% if a %}<b>","details":` + facts + `,"model_info":{"general.architecture":"qwen2","general.basename":"qwen","general.parameter_count":494000000,` +
			`"qwen2.context_length":32768,"a.list":[1,2],"tokenizer.ggml.tokens":` + tokens + `},"capabilities":["completion","tools"],"modified_at":"2026-01-02T03:04:05.000000006Z"}`
	}
	sameJSON(t, Show(known, false), show(`[]`))
	sameJSON(t, Show(known, true), show(`["a","b","c","d","e","f"]`))
	if n := len(known.Details["tokenizer.ggml.tokens"].([]string)); n != 6 {
		t.Errorf("%d tokens are left", n)
	}
	sameJSON(t, Show(Model{Name: "x"}, false), `{"modelfile":"# Made of what is known of the model, to be read: it can't be changed here.\nFROM x\n",`+
		`"details":`+blank+`,"model_info":{"general.basename":"x"},"modified_at":"`+never+`"}`)
}

func TestShowIsRead(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"m"}`: "m", `{"name":"m:latest","verbose":false}`: "m", `{"model":"m:1","name":"x"}`: "m:1", `{"model":"","name":"n","verbose":true}`: "n, verbose",
	} {
		name, verbose, err := ReadShow([]byte(body))
		if verbose {
			name += ", verbose"
		}
		if err != nil || name != want {
			t.Errorf("%s: got %s, %v", body, name, err)
		}
	}
	for body, param := range map[string]string{`{`: "", `{}`: "model", `{"model":1}`: "model", `{"name":1}`: "name", `{"model":"m","verbose":1}`: "verbose"} {
		_, _, err := ReadShow([]byte(body))
		var e *openai.Error
		if !errors.As(err, &e) || e.Status != 400 || e.Param != param {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

func TestVersionIsTold(t *testing.T) {
	sameJSON(t, Version("0.13.0"), `{"version":"0.13.0"}`)
}
