package ollama

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"assistant/internal/dialect"
)

// image is a picture: its media type, and its base64 as the inside of a JSON string.
type image struct {
	media string
	data  []byte
}

// sniffed is how much of an image's base64 tells what it is.
const sniffed = 64

// readImages reads images, an array of base64 without any word of what they are.
func readImages(o dialect.Object) ([]image, error) {
	list, err := texts(o, "images")
	if err != nil {
		return nil, err
	}
	images := make([]image, 0, len(list))
	for i, raw := range list {
		text := dialect.Unquote(raw) // some clients escape its slashes
		head, _ := base64.StdEncoding.DecodeString(text[:min(len(text), sniffed)])
		media := http.DetectContentType(head)
		if !strings.HasPrefix(media, "image/") {
			return nil, dialect.MustBe(dialect.Element(o.Where("images"), i), `the base64 of a PNG, JPEG, WebP, GIF or BMP image, without "data:" before it`)
		}
		images = append(images, image{media, dialect.Inside(raw)})
	}
	return images, nil
}

// content writes what a message says, as a string if it can be, since not every engine and template takes parts.
func (b *builder) content(text []byte, images []image) {
	if text == nil {
		text = []byte(`""`)
	}
	if len(images) == 0 {
		b.Field("content", text)
		return
	}
	b.Name("content")
	b.Open('[')
	if isText(text) {
		b.Open('{')
		b.Field("type", []byte(`"text"`))
		b.Field("text", text)
		b.Close('}')
	}
	for _, i := range images {
		b.Open('{')
		b.Field("type", []byte(`"image_url"`))
		b.Name("image_url")
		b.Open('{')
		b.Text("url", []byte("data:"+i.media+";base64,"), i.data)
		b.Close('}')
		b.Close('}')
	}
	b.Close(']')
}

// tools writes them as they are: they are OpenAI's.
func (b *builder) tools(req dialect.Object) error {
	list, err := req.Array("tools")
	if err != nil || len(list) == 0 {
		return err
	}
	for i, raw := range list {
		tool, err := dialect.ReadObject(dialect.Element("tools", i), raw)
		if err != nil {
			return err
		}
		function, err := tool.Object("function")
		if err != nil {
			return err
		}
		if _, err := function.NeedQuoted("name"); err != nil {
			return err
		}
	}
	b.Field("tools", req.Fields["tools"])
	return nil
}

// conversation is written message by message. Ollama's calls need no ids, and most clients send none: results follow the calls in their
// order, and name the tool.
type conversation struct {
	*builder
	made int      // ids so far
	open []called // calls that have no result yet
}

type called struct {
	id   []byte // a JSON string
	tool string
}

// conversation writes "messages".
func (c *Call) conversation(b *builder, list [][]byte) error {
	conv := conversation{builder: b}
	b.Name("messages")
	b.Open('[')
	for i, raw := range list {
		m, err := dialect.ReadObject(dialect.Element("messages", i), raw)
		if err != nil {
			return err
		}
		role, err := m.Text("role")
		if err != nil {
			return err
		}
		if err := conv.message(strings.ToLower(role), m); err != nil {
			return err
		}
		if i == len(list)-1 && strings.EqualFold(role, "assistant") && !m.Has("tool_calls") {
			c.prefill, _ = m.Text("content") // it was read already
		}
	}
	b.Close(']')
	return nil
}

func (c *conversation) message(role string, m dialect.Object) error {
	text, err := m.Quoted("content")
	if err != nil {
		return err
	}
	images, err := readImages(m)
	if err != nil {
		return err
	}
	c.Open('{')
	c.Quote("role", []byte(role))
	switch role {
	case "system", "user":
	case "assistant":
		err = c.assistant(m)
	case "tool":
		err = c.result(m)
	default:
		err = dialect.MustBe(m.Where("role"), "system, user, assistant or tool")
	}
	c.content(text, images)
	c.Close('}')
	return err
}

// assistant writes what the model thought and which tools it called.
func (c *conversation) assistant(m dialect.Object) error {
	thought, err := m.Quoted("thinking")
	if err != nil {
		return err
	}
	if isText(thought) {
		c.Field("reasoning_content", thought)
	}
	calls, err := m.Array("tool_calls")
	if err != nil || len(calls) == 0 {
		return err
	}
	c.open = c.open[:0]
	c.Name("tool_calls")
	c.Open('[')
	for i, raw := range calls {
		call, err := dialect.ReadObject(dialect.Element(m.Where("tool_calls"), i), raw)
		if err != nil {
			return err
		}
		if err := c.call(call); err != nil {
			return err
		}
	}
	c.Close(']')
	return nil
}

func (c *conversation) call(call dialect.Object) error {
	id, err := call.Quoted("id")
	if err != nil {
		return err
	}
	if !isText(id) {
		id = c.newID()
	}
	if err := call.Need("function"); err != nil {
		return err
	}
	function, err := call.Object("function")
	if err != nil {
		return err
	}
	name, err := function.NeedQuoted("name")
	if err != nil {
		return err
	}
	if _, err := function.Object("arguments"); err != nil {
		return err
	}
	arguments := function.Fields["arguments"]
	if arguments == nil {
		arguments = []byte("{}")
	}
	c.open = append(c.open, called{id, dialect.Unquote(name)})
	c.Open('{')
	c.Field("id", id)
	c.Field("type", []byte(`"function"`))
	c.Name("function")
	c.Open('{')
	c.Field("name", name)
	c.QuoteJSON("arguments", arguments)
	c.Close('}')
	c.Close('}')
	return nil
}

// newID makes the id of a call, a JSON string. It is the same each time the conversation is sent, so that engines find it in their caches,
// and has the nine letters and digits that templates of Mistral's ask for.
func (c *conversation) newID() []byte {
	c.made++
	return fmt.Appendf(nil, `"call%05d"`, c.made)
}

// result writes which call a message is the result of, and which tool's.
func (c *conversation) result(m dialect.Object) error {
	id, err := m.Quoted("tool_call_id")
	if err != nil {
		return err
	}
	name, err := m.Quoted("tool_name")
	if err != nil {
		return err
	}
	tool := ""
	if isText(name) {
		tool = dialect.Unquote(name)
	}
	c.Field("tool_call_id", c.answered(id, tool))
	if tool != "" {
		c.Field("name", name) // some templates ask for it
	}
	return nil
}

// answered finds the call that a result is of, takes it from those that have none, and returns its id: the one with the same id, else the
// first of the tool, else the first. Where there is none, the result keeps its own, or gets one that no call has.
func (c *conversation) answered(id []byte, tool string) []byte {
	at := -1
	for i, call := range c.open {
		if isText(id) && string(call.id) == string(id) {
			at = i
			break
		}
		if at < 0 && call.tool == tool {
			at = i
		}
	}
	if at < 0 && len(c.open) > 0 {
		at = 0
	}
	switch {
	case at >= 0:
		found := c.open[at].id
		c.open = slices.Delete(c.open, at, at+1)
		return found
	case isText(id):
		return id
	}
	return c.newID()
}
