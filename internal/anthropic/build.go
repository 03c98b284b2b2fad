package anthropic

// builder writes JSON from pieces that are JSON already. Every open has its close.
type builder struct {
	dst   []byte
	first bool // the next element or field is the first of its array or object
}

func (b *builder) open(bracket byte) {
	b.comma()
	b.dst = append(b.dst, bracket)
	b.first = true
}

func (b *builder) close(bracket byte) {
	b.dst = append(b.dst, bracket)
	b.first = false
}

// comma separates an element from the one before it.
func (b *builder) comma() {
	if !b.first && len(b.dst) > 0 {
		b.dst = append(b.dst, ',')
	}
	b.first = false
}

// name begins a field, whose value is written next. The name must need no escapes.
func (b *builder) name(name string) {
	b.comma()
	b.dst = append(b.dst, '"')
	b.dst = append(b.dst, name...)
	b.dst = append(b.dst, '"', ':')
	b.first = true // no comma before the value
}

// field writes a field with a value that is JSON, unless that is nil.
func (b *builder) field(name string, value []byte) {
	if value == nil {
		return
	}
	b.name(name)
	b.dst = append(b.dst, value...)
	b.first = false
}

// text writes a field that is a string, put together from insides of strings.
func (b *builder) text(name string, pieces ...[]byte) {
	b.name(name)
	b.dst = append(b.dst, '"')
	for _, piece := range pieces {
		b.dst = append(b.dst, piece...)
	}
	b.dst = append(b.dst, '"')
	b.first = false
}
