package engine

import (
	"embed"
	"fmt"
	"strings"

	"assistant/internal/gguf"
)

// templateNone is the prompt template of models that are given texts, not chats.
const templateNone = "none"

// templateMark tells a way of writing a chat by what a model's own template has in it.
type templateMark struct {
	mark string
	name string // llama-api-server's
}

// templateMarks are tried in this order: what is more special first.
var templateMarks = []templateMark{
	{"<|im_sep|>", "phi-4-chat"},
	{"<|im_start|>", "chatml"},
	{"<|header_start|>", "llama-4-chat"},
	{"<|start_header_id|>", "llama-3-chat"},
	{"<start_of_turn>", "gemma-instruct"},
	{"<|channel|>", "gpt-oss"},
	{"<｜User｜>", "deepseek-chat-25"},
	{"[gMASK]<sop>", "glm-4-chat"},
	{"[|user|]", "exaone-chat"},
	{"<seed:bos>", "seed-instruct"},
	{"<<SYS>>", "llama-2-chat"},
	{"[INST]", "mistral-instruct"},
	{"<extra_id_1>", "nemotron-chat"},
	{"<|end|>", "phi-3-chat"},
	{"<|user|>", "zephyr"},
	{"ASSISTANT:", "vicuna-1.1-chat"},
}

// architectureTemplates are the ways of models whose files have no template but whose architecture has one way only.
var architectureTemplates = map[string]string{
	"gemma": "gemma-instruct", "gemma2": "gemma-instruct", "gemma3": "gemma-3", "phi3": "phi-3-chat", "qwen2": "chatml", "qwen3": "chatml", "gpt-oss": "gpt-oss",
}

// guessTemplate returns llama-api-server's name for how the model's chats are written, "" if that cannot be told.
func guessTemplate(h *gguf.Header) string {
	for _, m := range templateMarks {
		if !strings.Contains(h.Template, m.mark) {
			continue
		}
		if m.name == "gemma-instruct" && h.Arch == "gemma3" {
			return "gemma-3"
		}
		return m.name
	}
	return architectureTemplates[h.Arch]
}

// serverTemplates are the names that llama-api-server 0.28 has for chats (its --help).
var serverTemplates = strings.Fields(`llama-2-chat llama-3-chat llama-3-tool llama-4-chat mistral-instruct mistral-tool mistrallite
	mistral-small-chat mistral-small-tool openchat codellama-instruct codellama-super-instruct human-assistant vicuna-1.0-chat
	vicuna-1.1-chat vicuna-llava chatml chatml-tool chatml-think internlm-2-tool baichuan-2 wizard-coder zephyr stablelm-zephyr
	intel-neural deepseek-chat deepseek-coder deepseek-chat-2 deepseek-chat-25 deepseek-chat-3 solar-instruct phi-2-chat
	phi-2-instruct phi-3-chat phi-3-instruct phi-4-chat gemma-instruct gemma-3 octopus glm-4-chat groq-llama3-tool
	mediatek-breeze nemotron-chat nemotron-tool functionary-32 functionary-31 minicpmv moxin-chat moxin-instruct falcon3 megrez
	qwen2-vision qwen3-no-think qwen3-agent exaone-deep-chat exaone-chat seed-instruct seed-reasoning seed-oss-think
	seed-oss-no-think smol-vision smol3-no-think gpt-oss none`)

// templateFiles are, for our guest, the Jinja templates behind those names, for models whose own template is missing or wrong. They
// were written from the models' documentation. The token that begins a text is not in them: the plug-in puts it there.
//
//go:embed templates
var templateFiles embed.FS

const templateSuffix = ".jinja"

// guestTemplate returns the Jinja template of that name.
func guestTemplate(name string) (string, error) {
	if name == templateNone {
		return "", nil
	}
	text, err := templateFiles.ReadFile("templates/" + name + templateSuffix)
	if err != nil {
		return "", fmt.Errorf("prompt_template %q is not known to our guest: choose one of %s, leave it out for the model's own, or set wasm to a %s, which has more",
			name, strings.Join(guestTemplates(), ", "), serverWasm)
	}
	return string(text), nil
}

// guestTemplates are the names that our guest knows.
func guestTemplates() []string {
	names := []string{templateNone}
	files, _ := templateFiles.ReadDir("templates") // embedded
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), templateSuffix))
	}
	return names
}

// unknownTemplate is the error of a model that does not say how its chats are written.
func unknownTemplate(names []string) error {
	return fmt.Errorf("the model's file has no chat template, and its architecture does not tell: set prompt_template to one of %s", strings.Join(names, ", "))
}
