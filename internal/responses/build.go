package responses

import (
	"encoding/json"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// Values of a chat completion's finish_reason that matter here.
const (
	finishLength = "length"
	finishFilter = "content_filter"
)

// builder makes a response of the chunks of a chat completion, and tells each step as an event. A whole answer is one chunk, of which
// nothing is told.
type builder struct {
	call   *Call
	mute   bool
	dst    []byte // what the events are appended to
	events int    // told so far

	items   []item
	texts   growing
	calls   dialect.Calls
	places  []int // where in items they are
	finish  string
	counts  *dialect.Usage
	answers bool // there is a message or a call
}

// growing is the item of text, the last one, that may still grow.
type growing struct {
	item     string // type; "" = there is none
	part     string // type of its last part; "" = it has none
	text     []byte
	logprobs []logprob
}

// nowhere is the place of a call whose name is not known yet.
const nowhere = -1

func newBuilder(c *Call, dst []byte) *builder { return &builder{call: c, dst: dst} }

// begin tells that there is a response.
func (b *builder) begin() {
	r := b.call.response
	b.tell(event{Type: "response.created", Response: &r})
	b.tell(event{Type: "response.in_progress", Response: &r})
}

// add takes in a chunk.
func (b *builder) add(c *dialect.Chunk) {
	if c.Reasoning != "" {
		b.say(typeReasoning, partReasoning, c.Reasoning, nil)
	}
	if c.Text != "" {
		b.say(typeMessage, partOutput, c.Text, b.readLogprobs(c.Logprobs))
	}
	if c.Refusal != "" {
		b.say(typeMessage, partRefusal, c.Refusal, nil)
	}
	for _, part := range c.ToolCalls {
		b.callTool(part)
	}
	if c.Finish != "" {
		b.finish = c.Finish
	}
	if c.Usage != nil {
		b.counts = c.Usage
	}
}

// end closes what is open and returns the response. One that has nothing to say says so by an empty message: clients look for one.
func (b *builder) end() *response {
	r := b.call.response
	r.ends(b.finish)
	if r.Status == statusCompleted && !b.answers {
		b.openItem(typeMessage)
		b.openPart(partOutput)
	}
	b.close(r.Status)
	r.Output, r.Usage = b.output(), newUsage(b.counts)
	return &r
}

// fail returns the response as one that failed, with what there is of it.
func (b *builder) fail(e *openai.Error) *response {
	b.mute = true
	b.close(statusIncomplete)
	b.mute = false
	r := b.call.response
	r.fails(e)
	r.Output = b.output()
	return &r
}

// output are the items.
func (b *builder) output() []item {
	if b.items == nil {
		return []item{}
	}
	return b.items
}

// close closes all items. status is that of the last one: what was cut off is the end.
func (b *builder) close(status string) {
	textLast := b.texts.item != ""
	b.closeItem(status)
	for i := range b.calls {
		if textLast || i < len(b.calls)-1 {
			b.closeCall(i, statusCompleted)
		} else {
			b.closeCall(i, status)
		}
	}
	b.calls, b.places = nil, nil
}

// say adds text to a part of an item; both are opened if others are open.
func (b *builder) say(item, part, text string, probs []logprob) {
	if b.texts.item != item {
		b.closeItem(statusCompleted)
		b.openItem(item)
	}
	if b.texts.part != part {
		b.closePart()
		b.openPart(part)
	}
	b.texts.text = append(b.texts.text, text...)
	b.texts.logprobs = append(b.texts.logprobs, probs...)
	e := b.partEvent(part + ".delta")
	e.Delta = &text
	if part == partOutput {
		e.Logprobs = noNil(probs)
	}
	b.tell(e)
}

func (b *builder) openItem(kind string) {
	it := item{ID: newItemID(kind), Type: kind, Status: statusInProgress, Content: []part{}}
	if kind == typeMessage {
		it.Role, b.answers = roleAssistant, true
	} else {
		it.Summary = []part{}
	}
	b.items = append(b.items, it)
	b.texts = growing{item: kind}
	b.tellItem("added", len(b.items)-1)
}

func (b *builder) openPart(kind string) {
	it := &b.items[len(b.items)-1]
	it.Content = append(it.Content, textPart(kind, ""))
	b.texts = growing{item: it.Type, part: kind}
	b.tellPart("added")
}

// closePart makes the last part whole.
func (b *builder) closePart() {
	kind := b.texts.part
	if kind == "" {
		return
	}
	text := string(b.texts.text)
	p := textPart(kind, text)
	e := b.partEvent(kind + ".done")
	switch kind {
	case partOutput:
		p.Logprobs = noNil(b.texts.logprobs)
		e.Text, e.Logprobs = &text, p.Logprobs
	case partRefusal:
		e.Refusal = &text
	default:
		e.Text = &text
	}
	content := b.items[len(b.items)-1].Content
	content[len(content)-1] = p
	b.tell(e)
	b.tellPart("done")
	b.texts.part = ""
}

// closeItem makes the item of text whole, if there is one open. No others come after it while it is.
func (b *builder) closeItem(status string) {
	if b.texts.item == "" {
		return
	}
	b.closePart()
	it := &b.items[len(b.items)-1]
	it.Status = status
	if it.Type == typeReasoning && b.call.encrypted {
		encrypted := seal(texts(it.Content))
		it.Encrypted = &encrypted
	}
	b.texts = growing{}
	b.tellItem("done", len(b.items)-1)
}

// callTool takes in a part of a call. Those of several may come in turns.
func (b *builder) callTool(part dialect.ToolCall) {
	at := b.calls.Take(part)
	if at == len(b.places) {
		b.places = append(b.places, nowhere)
	}
	c, rest := &b.calls[at], part.Arguments
	if c.Name == "" {
		return
	}
	if b.places[at] == nowhere {
		b.places[at] = b.openCall(c)
		rest = string(c.Arguments)
	}
	place := b.places[at]
	if it := &b.items[place]; rest != "" && it.Type != typeCustom {
		b.tell(event{Type: "response.function_call_arguments.delta", ItemID: it.ID, OutputIndex: &place, Delta: &rest})
	}
}

// openCall makes an item of a call and returns where it is.
func (b *builder) openCall(c *dialect.GrowingCall) (place int) {
	b.closeItem(statusCompleted)
	id := c.ID
	if id == "" {
		id = newID("call_")
	}
	kind := typeCall
	if b.call.custom[c.Name] {
		kind = typeCustom
	}
	it := item{ID: newItemID(kind), Type: kind, Status: statusInProgress, CallID: id, Name: c.Name}
	if kind == typeCustom {
		it.Input = new(string)
	} else {
		it.Arguments = new(string)
	}
	b.answers, place = true, len(b.items)
	b.items = append(b.items, it)
	b.tellItem("added", place)
	return place
}

// closeCall makes a call whole. One that never had a name is none.
func (b *builder) closeCall(at int, status string) {
	place := b.places[at]
	if place == nowhere {
		return
	}
	it := &b.items[place]
	it.Status = status
	all := string(b.calls[at].Arguments)
	of := event{ItemID: it.ID, OutputIndex: &place}
	if it.Type == typeCustom {
		text := customText(all)
		it.Input = &text
		delta, done := of, of
		delta.Type, delta.Delta = "response.custom_tool_call_input.delta", &text
		done.Type, done.Input = "response.custom_tool_call_input.done", &text
		b.tell(delta)
		b.tell(done)
	} else {
		if all == "" { // a call without arguments: clients parse them
			all = "{}"
			delta := of
			delta.Type, delta.Delta = "response.function_call_arguments.delta", &all
			b.tell(delta)
		}
		it.Arguments = &all
		of.Type, of.Name, of.Arguments = "response.function_call_arguments.done", it.Name, &all
		b.tell(of)
	}
	b.tellItem("done", place)
}

// customText is the input of a custom tool in the arguments of the function it was made: as they are, if the model did not keep to it.
func customText(arguments string) string {
	var of map[string]json.RawMessage
	var text *string
	if json.Unmarshal([]byte(arguments), &of) != nil || json.Unmarshal(of[customInput], &text) != nil || text == nil {
		return arguments
	}
	return *text
}
