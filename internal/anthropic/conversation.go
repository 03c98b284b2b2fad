package anthropic

import (
	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// turn are the blocks of one or more messages of the same side, which the API takes as one, and templates of local models want as one.
type turn struct {
	role   string // user, assistant; "" = there is none
	blocks []block
}

// conversation writes "messages": the system prompt, and the turns. It returns what the model is to go on with, a JSON
// string, where the last turn is its own.
func (b *builder) conversation(req dialect.Object) (prefill []byte, err error) {
	if err := req.Need("messages"); err != nil {
		return nil, err
	}
	list, err := req.Array("messages")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, openai.InvalidRequest("messages", `"messages" is empty: send at least one message`)
	}
	system, err := readBlocks(req, "system")
	if err != nil {
		return nil, err
	}
	turns, said, err := readTurns(list)
	if err != nil {
		return nil, err
	}
	system = append(system, said...)
	b.Name("messages")
	b.Open('[')
	if err := b.system(system); err != nil {
		return nil, err
	}
	for _, t := range turns {
		if t.role == "user" {
			prefill, err = nil, b.user(t.blocks)
		} else {
			prefill, err = b.assistant(t.blocks)
		}
		if err != nil {
			return nil, err
		}
	}
	b.Close(']')
	return prefill, nil
}

// readTurns reads the messages, and what the system says before the first of them.
func readTurns(list [][]byte) (turns []turn, system []block, err error) {
	for i, raw := range list {
		role, blocks, err := readMessage(dialect.Element("messages", i), raw)
		if err != nil {
			return nil, nil, err
		}
		if role == "system" && len(turns) == 0 {
			system = append(system, blocks...)
			continue
		}
		if role == "system" {
			role, blocks = "user", asReminder(blocks)
		}
		if n := len(turns); n > 0 && turns[n-1].role == role {
			turns[n-1].blocks = append(turns[n-1].blocks, blocks...)
		} else {
			turns = append(turns, turn{role, blocks})
		}
	}
	return turns, system, nil
}

func readMessage(at string, raw []byte) (role string, blocks []block, err error) {
	o, err := dialect.ReadObject(at, raw)
	if err != nil {
		return "", nil, err
	}
	if role, err = o.Text("role"); err != nil {
		return "", nil, err
	}
	switch role {
	case "user", "assistant", "system":
	default:
		return "", nil, dialect.MustBe(o.Where("role"), `user, assistant or system`)
	}
	if err := o.Need("content"); err != nil {
		return "", nil, err
	}
	blocks, err = readBlocks(o, "content")
	return role, blocks, err
}

// reminder is the type of a text by the system in the middle of a conversation, which is no type of the API's.
const reminder = "\x00reminder"

// asReminder makes words of the system part of the user's turn: many templates refuse a system message that is not the first. They are
// marked as Claude Code marks what it says itself in a user's name.
func asReminder(blocks []block) []block {
	for i := range blocks {
		if blocks[i].kind == "text" {
			blocks[i].kind = reminder
		}
	}
	return blocks
}

// system writes the system message, if there is one.
func (b *builder) system(blocks []block) error {
	var parts []part
	for _, block := range blocks {
		if block.kind != "text" {
			return block.misplaced()
		}
		p, err := block.textPart()
		if err != nil {
			return err
		}
		if text := trimBilling(p.pieces[0]); len(text) > 0 {
			parts = append(parts, textPart(text))
		}
	}
	if len(parts) > 0 {
		b.Open('{')
		b.Field("role", []byte(`"system"`))
		b.content(parts)
		b.Close('}')
	}
	return nil
}

// user writes a user's turn: results of tools first, each a message of its own, because the calls they answer came just before; then
// the rest, and the images among the results, which a tool's message can't hold.
func (b *builder) user(blocks []block) error {
	var rest []part
	results := false
	for _, block := range blocks {
		switch block.kind {
		case "tool_result":
			images, err := b.result(block)
			if err != nil {
				return err
			}
			rest, results = append(rest, images...), true
		case reminder:
			p, err := block.textPart()
			if err != nil {
				return err
			}
			rest = append(rest, textPart([]byte(`<system-reminder>\n`), p.pieces[0], []byte(`\n</system-reminder>`)))
		default:
			p, err := block.part()
			if err != nil {
				return err
			}
			rest = append(rest, p)
		}
	}
	if len(rest) > 0 || !results {
		b.Open('{')
		b.Field("role", []byte(`"user"`))
		b.content(rest)
		b.Close('}')
	}
	return nil
}

// result writes what a tool gave, and returns the images.
func (b *builder) result(block block) (images []part, err error) {
	id, err := block.NeedQuoted("tool_use_id")
	if err != nil {
		return nil, err
	}
	failed, err := block.Flag("is_error")
	if err != nil {
		return nil, err
	}
	inner, err := readBlocks(block.Object, "content")
	if err != nil {
		return nil, err
	}
	var texts []part
	for _, block := range inner {
		p, err := block.part()
		switch {
		case err != nil:
			return nil, err
		case p.image:
			images = append(images, p)
		default:
			texts = append(texts, p)
		}
	}
	pieces := join(texts, lineEnd)
	if len(pieces) == 0 && len(images) > 0 {
		pieces = [][]byte{[]byte("The image is in the next message.")}
	}
	if failed { // a chat's message has no field for it
		pieces = append([][]byte{[]byte("Error: ")}, pieces...)
	}
	b.Open('{')
	b.Field("role", []byte(`"tool"`))
	b.Field("tool_call_id", id)
	b.Text("content", pieces...)
	b.Close('}')
	return images, nil
}

// assistant writes a turn of the model's. Its texts are put together without anything between them: the API splits one text where it
// quotes sources. A turn of which nothing is left is left out. It returns the text, a JSON string.
func (b *builder) assistant(blocks []block) (said []byte, err error) {
	var texts, thoughts []part
	var calls []block
	for _, block := range blocks {
		switch {
		case block.kind == "text":
			p, err := block.textPart()
			if err != nil {
				return nil, err
			}
			texts = append(texts, p)
		case block.kind == "thinking":
			thought, err := block.NeedQuoted("thinking")
			if err != nil {
				return nil, err
			}
			if len(thought) > len(`""`) {
				thoughts = append(thoughts, textPart(dialect.Inside(thought)))
			}
		case block.kind == "tool_use":
			calls = append(calls, block)
		case block.kind == "tool_result":
			return nil, openai.InvalidRequest(block.Where("type"), "a tool_result is the user's: send it in a message with the role user")
		case !block.isDropped():
			return nil, block.misplaced()
		}
	}
	if len(texts)+len(thoughts)+len(calls) == 0 {
		return nil, nil
	}
	b.Open('{')
	b.Field("role", []byte(`"assistant"`))
	from := len(b.Buf) + len(`,"content":`)
	b.Text("content", join(texts, "")...)
	said = b.Buf[from:len(b.Buf):len(b.Buf)]
	if len(thoughts) > 0 {
		b.Text("reasoning_content", join(thoughts, lineEnd)...)
	}
	if err := b.calls(calls); err != nil {
		return nil, err
	}
	b.Close('}')
	return said, nil
}

// calls writes the calls of an earlier answer.
func (b *builder) calls(blocks []block) error {
	if len(blocks) == 0 {
		return nil
	}
	b.Name("tool_calls")
	b.Open('[')
	for _, block := range blocks {
		id, err := block.NeedQuoted("id")
		if err != nil {
			return err
		}
		name, err := block.NeedQuoted("name")
		if err != nil {
			return err
		}
		if _, err := block.Object.Object("input"); err != nil {
			return err
		}
		b.Open('{')
		b.Field("id", id)
		b.Field("type", []byte(`"function"`))
		b.Name("function")
		b.Open('{')
		b.Field("name", name)
		b.QuoteJSON("arguments", inputSent(block))
		b.Close('}')
		b.Close('}')
	}
	b.Close(']')
	return nil
}

// inputSent is the input of a call, {} if it has none.
func inputSent(call block) []byte {
	if call.Has("input") {
		return call.Fields["input"]
	}
	return []byte("{}")
}
