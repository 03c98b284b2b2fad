package anthropic

import (
	"bytes"
	"fmt"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// part is a piece of what a chat message says: a text, or the address of an image. It is kept as insides of JSON strings that follow
// one another, so that nothing of it is copied before it is written.
type part struct {
	image  bool
	pieces [][]byte
}

func textPart(pieces ...[]byte) part { return part{pieces: pieces} }

// join puts texts between which something stands into one.
func join(parts []part, between string) (pieces [][]byte) {
	for i, p := range parts {
		if i > 0 && between != "" {
			pieces = append(pieces, []byte(between))
		}
		pieces = append(pieces, p.pieces...)
	}
	return pieces
}

// lineEnd is one inside of a JSON string.
const lineEnd = `\n`

// content writes what a message says: as a string if it can be, since not every engine and template takes parts. Texts have a line's
// end between them then, as llama-server puts parts together.
func (b *builder) content(parts []part) {
	if !hasImage(parts) {
		b.Text("content", join(parts, lineEnd)...)
		return
	}
	b.Name("content")
	b.Open('[')
	for _, p := range parts {
		b.Open('{')
		if p.image {
			b.Field("type", []byte(`"image_url"`))
			b.Name("image_url")
			b.Open('{')
			b.Text("url", p.pieces...)
			b.Close('}')
		} else {
			b.Field("type", []byte(`"text"`))
			b.Text("text", p.pieces...)
		}
		b.Close('}')
	}
	b.Close(']')
}

func hasImage(parts []part) bool {
	for _, p := range parts {
		if p.image {
			return true
		}
	}
	return false
}

// block is one of a message's.
type block struct {
	dialect.Object
	kind string
}

// readBlocks reads content, which is a string or an array of blocks.
func readBlocks(o dialect.Object, name string) (blocks []block, err error) {
	raw := o.Fields[name]
	if raw != nil && raw[0] == '"' {
		text := dialect.Object{At: o.Where(name), Fields: map[string][]byte{"text": raw}}
		return []block{{text, "text"}}, nil
	}
	list, err := o.Array(name)
	if err != nil {
		return nil, dialect.MustBe(o.Where(name), "a string or an array of content blocks")
	}
	for i, raw := range list {
		b, err := dialect.ReadObject(dialect.Element(o.Where(name), i), raw)
		if err != nil {
			return nil, err
		}
		if err := b.Need("type"); err != nil {
			return nil, err
		}
		kind, err := b.Text("type")
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block{b, kind})
	}
	return blocks, nil
}

// part makes one of a block that says something by itself.
func (b block) part() (part, error) {
	switch b.kind {
	case "text":
		return b.textPart()
	case "image":
		return b.imagePart()
	case "document":
		return b.documentPart()
	case "search_result":
		return b.searchPart()
	case "tool_reference": // names a tool that a search found; all tools are offered anyway
		name, err := b.NeedQuoted("tool_name")
		if err != nil {
			return part{}, err
		}
		return textPart(dialect.Inside(name)), nil
	}
	return part{}, b.misplaced()
}

// misplaced blames a block for its type.
func (b block) misplaced() error {
	return openai.InvalidRequest(b.Where("type"), fmt.Sprintf("a content block of type %q is not supported here: leave it out", b.kind))
}

func (b block) textPart() (part, error) {
	text, err := b.NeedQuoted("text")
	if err != nil {
		return part{}, err
	}
	return textPart(dialect.Inside(text)), nil
}

// source reads what an image or a document is made of.
func (b block) source() (source dialect.Object, kind string, err error) {
	if err := b.Need("source"); err != nil {
		return source, "", err
	}
	if source, err = b.Object.Object("source"); err != nil {
		return source, "", err
	}
	kind, err = source.Text("type")
	return source, kind, err
}

func (b block) imagePart() (part, error) {
	source, kind, err := b.source()
	if err != nil {
		return part{}, err
	}
	switch kind {
	case "base64":
		media, err := source.NeedQuoted("media_type")
		if err != nil {
			return part{}, err
		}
		data, err := source.NeedQuoted("data")
		if err != nil {
			return part{}, err
		}
		return part{true, [][]byte{[]byte("data:"), dialect.Inside(media), []byte(";base64,"), dialect.Inside(data)}}, nil
	case "url":
		url, err := source.NeedQuoted("url")
		if err != nil {
			return part{}, err
		}
		return part{true, [][]byte{dialect.Inside(url)}}, nil
	}
	return part{}, openai.InvalidRequest(source.Where("type"),
		fmt.Sprintf("an image's source can't be of type %q here: send it as base64 or url", kind))
}

// documentPart makes text of a document that is text.
func (b block) documentPart() (part, error) {
	source, kind, err := b.source()
	if err != nil {
		return part{}, err
	}
	var texts []part
	if texts, err = b.labels("title", "context"); err != nil {
		return part{}, err
	}
	switch kind {
	case "text":
		data, err := source.NeedQuoted("data")
		if err != nil {
			return part{}, err
		}
		texts = append(texts, textPart(dialect.Inside(data)))
	case "content":
		inner, err := readBlocks(source, "content")
		if err != nil {
			return part{}, err
		}
		for _, b := range inner {
			if b.kind != "text" {
				return part{}, b.misplaced()
			}
			text, err := b.textPart()
			if err != nil {
				return part{}, err
			}
			texts = append(texts, text)
		}
	default:
		return part{}, openai.InvalidRequest(source.Where("type"),
			fmt.Sprintf("a document's source can't be of type %q here: send its text, with a source of type text", kind))
	}
	return textPart(join(texts, lineEnd)...), nil
}

// searchPart makes text of what a search of the client's own found.
func (b block) searchPart() (part, error) {
	texts, err := b.labels("title", "source")
	if err != nil {
		return part{}, err
	}
	inner, err := readBlocks(b.Object, "content")
	if err != nil {
		return part{}, err
	}
	for _, b := range inner {
		text, err := b.textPart()
		if err != nil {
			return part{}, err
		}
		texts = append(texts, text)
	}
	return textPart(join(texts, lineEnd)...), nil
}

// labels are those of some fields that are there, to stand above a text.
func (b block) labels(names ...string) (texts []part, err error) {
	for _, name := range names {
		value, err := b.Quoted(name)
		if err != nil {
			return nil, err
		}
		if len(value) > len(`""`) {
			texts = append(texts, textPart(dialect.Inside(value)))
		}
	}
	return texts, nil
}

// isDropped says whether a block of an earlier answer means nothing to another model: what Anthropic's servers did or encrypted, which
// the text around it tells of as far as it matters. To refuse it would end conversations that began with one of Anthropic's models.
func (b block) isDropped() bool {
	switch b.kind {
	case "redacted_thinking", "server_tool_use", "mcp_tool_use", "container_upload":
		return true
	}
	return strings.HasSuffix(b.kind, "_tool_result")
}

// trimBilling cuts off what Claude Code puts at the beginning of its system prompt: x-anthropic-billing-header: cc_version=…; cch=…;
// It is nothing to a model, and changes with each request, so that no engine would find the prompt in its cache.
func trimBilling(text []byte) []byte {
	rest, is := bytes.CutPrefix(text, []byte("x-anthropic-billing-header:"))
	if !is {
		return text
	}
	for {
		field, after, more := bytes.Cut(rest, []byte(";"))
		if !more || !isBillingField(bytes.TrimSpace(field)) {
			break
		}
		rest = after
	}
	return bytes.TrimPrefix(bytes.TrimSpace(rest), []byte(lineEnd))
}

// isBillingField knows name=value without spaces.
func isBillingField(field []byte) bool {
	name, _, is := bytes.Cut(field, []byte("="))
	return is && len(name) > 0 && !bytes.ContainsAny(field, " \\")
}
