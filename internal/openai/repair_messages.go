package openai

import (
	"bytes"
	"fmt"
)

// content is the rule of messages: parts are put together, where the engine doesn't take them.
func (p *planner) content(f reqField) error {
	s := scanner{b: p.body[:f.span[1]], i: f.span[0]}
	if s.next() != '[' {
		return InvalidRequest(f.name, `"messages" must be an array`)
	}
	err := s.each(func(from, to int) error {
		p.messages++
		return p.message(from, to)
	})
	if err == nil && p.messages == 0 {
		err = InvalidRequest(f.name, `"messages" is empty`)
	}
	return err
}

// message looks at one.
func (p *planner) message(from, to int) error {
	if p.body[from] != '{' {
		return InvalidRequest("messages", "a message is not an object")
	}
	var content [2]int
	var role []byte
	s := scanner{b: p.body[:to], i: from}
	err := s.object(1, func(key []byte, from, to int) error {
		switch string(key) {
		case "content":
			content = [2]int{from, to}
		case "role":
			role = p.body[from:to]
		}
		return nil
	})
	if err != nil {
		return err
	}
	const marks = 4 // tokens around a message, in most templates
	if content == [2]int{} || p.body[content[0]] != '[' {
		p.plan.prompt += marks + tokensIn(content[1]-content[0])
		return nil
	}
	parts := contentParts{flat: []byte{'"'}, images: p.d.Images && stringIs(role, "user")}
	s = scanner{b: p.body[:content[1]], i: content[0]}
	if err := s.each(func(from, to int) error { return parts.add(p.body[from:to]) }); err != nil {
		return err
	}
	p.plan.prompt += marks + tokensIn(len(parts.flat))
	if p.d.Repairs.Has(RepairContent) && !parts.keep {
		p.plan.edits = append(p.plan.edits, edit{content, "content", string(append(parts.flat, '"'))})
	}
	return nil
}

// contentParts puts the text parts of a message together, with a line's end between two, as llama-server does.
type contentParts struct {
	flat   []byte // raw JSON
	images bool   // may stay
	keep   bool   // the parts are sent as they are: there is an image among them
	some   bool
}

func (c *contentParts) add(part []byte) error {
	if part[0] != '{' {
		return InvalidRequest("messages", "a part of a message's content is not an object")
	}
	var kind, text, image []byte
	_ = EachField(part, func(key, value []byte) error { // it was scanned: it can't fail
		switch string(key) {
		case "type":
			kind = value
		case "text", "refusal":
			text = value
		case "image_url":
			image = value
		}
		return nil
	})
	switch {
	case (string(kind) == `"text"` || string(kind) == `"refusal"`) && len(text) > 0 && text[0] == '"':
		if c.some {
			c.flat = append(c.flat, '\\', 'n')
		}
		c.flat, c.some = append(c.flat, text[1:len(text)-1]...), true
		return nil
	case string(kind) == `"image_url"` && c.images:
		c.keep = true
		if !bytes.Contains(image, []byte(`"data:`)) {
			return InvalidRequest("messages", "an image must be given as a data: URL: this model's engine fetches none")
		}
		return nil
	case string(kind) == `"image_url"`:
		return InvalidRequest("messages", "image input is not supported by this model")
	}
	return InvalidRequest("messages", fmt.Sprintf("a content part of type %s is not supported by this model's engine",
		trimText(string(kind))))
}
