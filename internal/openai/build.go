package openai

import "strings"

// Builder writes JSON from pieces that are JSON already, or texts. Every Open has its Close; between values commas come by themselves.
type Builder struct{ Buf []byte }

// Open begins an object or an array.
func (b *Builder) Open(bracket byte) {
	b.comma()
	b.Buf = append(b.Buf, bracket)
}

// Close ends it.
func (b *Builder) Close(bracket byte) { b.Buf = append(b.Buf, bracket) }

// comma separates an element or field from the one before it. No value ends with what it looks for.
func (b *Builder) comma() {
	if n := len(b.Buf); n > 0 && strings.IndexByte("[{:", b.Buf[n-1]) < 0 {
		b.Buf = append(b.Buf, ',')
	}
}

// Name begins a field, whose value is written next.
func (b *Builder) Name(name string) {
	b.comma()
	b.Buf = append(appendQuoted(b.Buf, name), ':')
}

// Field writes a field with a value that is JSON, unless that is nil.
func (b *Builder) Field(name string, value []byte) {
	if value == nil {
		return
	}
	b.Name(name)
	b.Buf = append(b.Buf, value...)
}

// Text writes a field that is a string, put together from insides of JSON strings.
func (b *Builder) Text(name string, insides ...[]byte) {
	b.Name(name)
	b.Buf = append(b.Buf, '"')
	for _, inside := range insides {
		b.Buf = append(b.Buf, inside...)
	}
	b.Buf = append(b.Buf, '"')
}

// Quote writes a field that is a string.
func (b *Builder) Quote(name string, text []byte) {
	b.Name(name)
	b.Buf = appendQuoted(b.Buf, text)
}

// QuoteJSON writes a field that is a string with JSON in it.
func (b *Builder) QuoteJSON(name string, value []byte) {
	b.Name(name)
	b.Buf = append(b.Buf, '"')
	for _, c := range value {
		switch c {
		case '"', '\\':
			b.Buf = append(b.Buf, '\\', c)
		case '\n', '\r', '\t': // between the values: inside of strings they are escaped
			b.Buf = append(b.Buf, ' ')
		default:
			b.Buf = append(b.Buf, c)
		}
	}
	b.Buf = append(b.Buf, '"')
}
