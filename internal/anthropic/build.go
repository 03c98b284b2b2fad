package anthropic

import "strings"

// builder writes JSON from pieces that are JSON already. Every open has its close.
type builder struct{ dst []byte }

func (b *builder) open(bracket byte) {
	b.comma()
	b.dst = append(b.dst, bracket)
}

func (b *builder) close(bracket byte) { b.dst = append(b.dst, bracket) }

// comma separates an element or field from the one before it. No value ends with what it looks for.
func (b *builder) comma() {
	if n := len(b.dst); n > 0 && strings.IndexByte("[{:", b.dst[n-1]) < 0 {
		b.dst = append(b.dst, ',')
	}
}

// name begins a field, whose value is written next. The name must need no escapes.
func (b *builder) name(name string) {
	b.comma()
	b.dst = append(b.dst, '"')
	b.dst = append(b.dst, name...)
	b.dst = append(b.dst, '"', ':')
}

// field writes a field with a value that is JSON, unless that is nil.
func (b *builder) field(name string, value []byte) {
	if value == nil {
		return
	}
	b.name(name)
	b.dst = append(b.dst, value...)
}

// text writes a field that is a string, put together from insides of strings.
func (b *builder) text(name string, pieces ...[]byte) {
	b.name(name)
	b.dst = append(b.dst, '"')
	for _, piece := range pieces {
		b.dst = append(b.dst, piece...)
	}
	b.dst = append(b.dst, '"')
}
