package responses

import (
	"assistant/internal/openai"
)

// event is one of a stream: of the fields, those that are set.
type event struct {
	Type         string    `json:"type"`
	Sequence     int       `json:"sequence_number"`
	Response     *response `json:"response,omitempty"`
	ItemID       string    `json:"item_id,omitempty"`
	OutputIndex  *int      `json:"output_index,omitempty"`
	ContentIndex *int      `json:"content_index,omitempty"`
	Item         *item     `json:"item,omitempty"`
	Part         *part     `json:"part,omitempty"`
	Delta        *string   `json:"delta,omitempty"`
	Logprobs     []logprob `json:"logprobs,omitzero"`
	Text         *string   `json:"text,omitempty"`
	Refusal      *string   `json:"refusal,omitempty"`
	Name         string    `json:"name,omitempty"`
	Arguments    *string   `json:"arguments,omitempty"`
	Input        *string   `json:"input,omitempty"`
}

// tell appends an event to what the client is sent.
func (b *builder) tell(e event) {
	if b.mute {
		return
	}
	e.Sequence = b.events
	b.write(e.Type, openai.Marshal(&e))
}

func (b *builder) write(kind string, data []byte) {
	b.events++
	b.dst = append(append(b.dst, "event: "...), kind...)
	b.dst = append(append(b.dst, "\ndata: "...), data...)
	b.dst = append(b.dst, "\n\n"...)
}

// tellItem tells that an item was added or is done.
func (b *builder) tellItem(what string, index int) {
	b.tell(event{Type: "response.output_item." + what, OutputIndex: &index, Item: &b.items[index]})
}

// tellPart tells that the last part of the last item was added or is done.
func (b *builder) tellPart(what string) {
	e := b.partEvent("")
	content := b.items[*e.OutputIndex].Content
	e.Type, e.Part = "response.content_part."+what, &content[*e.ContentIndex]
	b.tell(e)
}

// partEvent is one of the last part of the last item.
func (b *builder) partEvent(kind string) event {
	last := len(b.items) - 1
	it := &b.items[last]
	at := len(it.Content) - 1
	return event{Type: "response." + kind, ItemID: it.ID, OutputIndex: &last, ContentIndex: &at}
}
