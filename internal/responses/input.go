package responses

import (
	"net/http"
	"strings"

	"assistant/internal/openai"
)

// input reads the request's input: a text, or items. The references among them are looked up.
func (q *request) input() []item {
	if q.isText("input") {
		return []item{{
			ID: newItemID(typeMessage), Type: typeMessage, Status: statusCompleted, Role: roleUser,
			Content: []part{textPart(partInput, q.text("input"))},
		}}
	}
	var items []item
	seen := map[string]bool{}
	if q.has("input") && q.raw("input")[0] != '[' {
		q.must("input", "a string or an array")
		return nil
	}
	q.each("input", func(f fields) {
		it := q.item(f)
		if it.ID == "" || seen[it.ID] {
			it.ID = newItemID(it.Type)
		}
		seen[it.ID] = true
		items = append(items, it)
	})
	if len(items) == 0 && !q.has("previous_response_id") {
		q.blame("input", `you must give an "input" that is not empty`)
	}
	return items
}

// item reads one.
func (q *request) item(f fields) item {
	kind := f.text("type")
	switch {
	case kind == "" && f.has("role"):
		kind = typeMessage
	case kind == "" && f.has("id"):
		kind = typeReference
	}
	it := item{ID: f.text("id"), Type: kind, Status: statusCompleted}
	switch status := f.text("status"); status {
	case statusInProgress, statusIncomplete:
		it.Status = status
	}
	switch kind {
	case typeMessage:
		it.message(f)
	case typeReasoning:
		it.reasoning(f)
	case typeCall:
		it.CallID, it.Name = f.need("call_id"), f.need("name")
		arguments := f.need("arguments")
		it.Arguments = &arguments
	case typeCustom:
		it.CallID, it.Name = f.need("call_id"), f.need("name")
		input := f.need("input")
		it.Input = &input
	case typeCallOutput, typeCustomOutput:
		it.CallID, it.Output = f.need("call_id"), readOutput(f)
	case typeReference:
		return q.referred(f)
	default:
		f.blame("type", "items of type %q are not served here: message, reasoning, function_call, function_call_output, custom_tool_call,"+
			" custom_tool_call_output and item_reference are", kind)
	}
	return it
}

// referred looks an item up that is given by its id.
func (q *request) referred(f fields) item {
	id := f.need("id")
	it, ok := q.store.item(q.owner, id)
	if !ok {
		f.first.set(&openai.Error{
			Status: http.StatusNotFound, Type: openai.TypeInvalidRequest, Param: f.where("id"),
			Message: "Item with id '" + id + "' not found. Items are held only of responses that are stored.",
		})
	}
	return it
}

func (it *item) message(f fields) {
	it.Role = f.need("role")
	switch it.Role {
	case roleUser, roleAssistant, roleSystem, roleDeveloper:
	default:
		f.must("role", "user, assistant, system or developer")
	}
	if it.Role == roleAssistant {
		it.Phase = f.oneOf("phase", "commentary", "final_answer")
	}
	kind := partInput
	if it.Role == roleAssistant {
		kind = partOutput
	}
	it.Content = []part{}
	switch {
	case f.isText("content"):
		it.Content = append(it.Content, textPart(kind, f.text("content")))
	case !f.has("content"):
		f.need("content")
	default:
		f.each("content", func(f fields) { it.Content = append(it.Content, readPart(f, kind)) })
	}
}

func (it *item) reasoning(f fields) {
	it.Encrypted = f.maybe("encrypted_content")
	it.Summary = []part{}
	f.each("summary", func(f fields) { it.Summary = append(it.Summary, textPart(partSummary, f.text("text"))) })
	f.each("content", func(f fields) { it.Content = append(it.Content, textPart(partReasoning, f.text("text"))) })
}

// readOutput reads what a tool gave.
func readOutput(f fields) *toolOutput {
	if !f.has("output") || f.isText("output") {
		return &toolOutput{text: f.need("output")}
	}
	o := &toolOutput{parts: []part{}}
	f.each("output", func(f fields) { o.parts = append(o.parts, readPart(f, partInput)) })
	return o
}

// readPart reads a part of a content whose texts are of the given type.
func readPart(f fields, text string) part {
	kind := f.need("type")
	if text == partOutput && strings.HasPrefix(kind, "input_") && kind != partInput {
		f.blame("type", "content of type %q can't be the assistant's", kind)
	}
	switch kind {
	case partInput, partOutput, "text":
		return textPart(text, f.need("text"))
	case partRefusal:
		if text == partOutput {
			return textPart(partRefusal, f.need("refusal"))
		}
		return textPart(text, f.need("refusal"))
	case partImage:
		return readImage(f)
	case partFile:
		return readFile(f)
	case partAudio:
		audio := f.object(partAudio)
		audio.need("data")
		audio.need("format")
		return part{Type: partAudio, Audio: f.raw(partAudio)}
	default:
		f.blame("type", "content of type %q is not served here: input_text, input_image, input_file, input_audio, output_text and refusal are",
			kind)
		return part{}
	}
}

func readImage(f fields) part {
	if f.has("file_id") {
		f.blame("file_id", "no files are held here: give the image as a data: URL in %q", f.where("image_url"))
	}
	p := part{Type: partImage, ImageURL: f.need("image_url"), Detail: f.text("detail")}
	if p.Detail == "" {
		p.Detail = "auto"
	}
	return p
}
