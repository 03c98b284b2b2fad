package ollama

import (
	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// prompt is what /api/generate is asked. Texts are as they were written, nil if they are not there.
type prompt struct {
	text, system, suffix []byte
	images               []image
	raw                  bool // to be sent as it is
}

func readPrompt(req dialect.Object) (p prompt, err error) {
	for _, field := range []struct {
		name string
		to   *[]byte
	}{{"prompt", &p.text}, {"system", &p.system}, {"suffix", &p.suffix}} {
		if *field.to, err = req.Quoted(field.name); err != nil {
			return p, err
		}
	}
	template, err := req.Quoted("template")
	if err != nil {
		return p, err
	}
	if isText(template) {
		return p, openai.InvalidRequest("template", `"template" can't be given here, the model has its own: leave it out, or send a prompt `+
			`that is formatted already with "raw": true`)
	}
	if p.raw, err = req.Flag("raw"); err != nil {
		return p, err
	}
	if p.raw && isText(p.system) {
		return p, openai.InvalidRequest("system", `"system" has no place in a raw prompt: write it into the prompt, or leave "raw" out`)
	}
	p.raw = p.raw || isText(p.suffix)
	if p.images, err = readImages(req); err != nil {
		return p, err
	}
	if p.raw && len(p.images) > 0 {
		return p, openai.InvalidRequest("images", `"images" have no place in a raw prompt: leave "raw" and "suffix" out`)
	}
	return p, nil
}

// write writes it as a conversation, or as it is.
func (p *prompt) write(b *builder) error {
	if p.raw {
		b.Field("prompt", p.text)
		if isText(p.suffix) {
			b.Field("suffix", p.suffix)
		}
		return nil
	}
	b.Name("messages")
	b.Open('[')
	if isText(p.system) {
		b.Open('{')
		b.Field("role", []byte(`"system"`))
		b.Field("content", p.system)
		b.Close('}')
	}
	b.Open('{')
	b.Field("role", []byte(`"user"`))
	b.content(p.text, p.images)
	b.Close('}')
	b.Close(']')
	return nil
}
