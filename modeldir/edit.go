package modeldir

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// modelKeys are the keys of a model file in the order that people write them.
var modelKeys = func() (keys []string) {
	for f := range reflect.TypeFor[rawModel]().Fields() {
		keys = append(keys, f.Tag.Get("toml"))
	}
	return keys
}()

// NewModelFile returns the text of a model file with these keys. Values are as JSON has them: strings, float64s, bools, slices and maps; nil
// leaves a key out. Whether they make a model is for [ParseModel] to say.
func NewModelFile(fields map[string]any) ([]byte, error) {
	var text []byte
	for _, key := range inOrder(fields) {
		if fields[key] == nil {
			continue
		}
		line, err := assignment(key, fields[key])
		if err != nil {
			return nil, err
		}
		text = append(append(text, line...), '\n')
	}
	return text, nil
}

// EditModelFile returns the text of a model file with top-level keys set to other values, as [NewModelFile] takes them, or taken out if they
// are nil. Every other byte stays as it is, but for comments within a table that is set or taken out as a whole. The file must be TOML.
func EditModelFile(file string, data []byte, fields map[string]any) ([]byte, error) {
	for _, key := range inOrder(fields) {
		_, err := ModelFileFields(file, data)
		if err != nil {
			return nil, err
		}
		if data, err = setKey(data, key, fields[key]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// ModelFileFields returns what a model file says, by its top-level keys, as far as it is TOML.
func ModelFileFields(file string, data []byte) (map[string]any, error) {
	fields := map[string]any{}
	d := &document{file: file, data: bytes.TrimPrefix(data, bom)}
	if err := unmarshal(d.data, &fields); err != nil {
		return nil, d.explain(err, modelSchema)
	}
	return fields, nil
}

// inOrder lists keys as people write them, unknown ones last.
func inOrder(fields map[string]any) []string {
	place := func(key string) int {
		if i := slices.Index(modelKeys, key); i >= 0 {
			return i
		}
		return len(modelKeys)
	}
	return slices.SortedFunc(maps.Keys(fields), func(a, b string) int {
		if c := place(a) - place(b); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
}

// assignment is the line that sets a key, without its end.
func assignment(key string, value any) (string, error) {
	value, err := tomlValue(key, value)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).SetTablesInline(true).Encode(map[string]any{key: value}); err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return strings.TrimSpace(b.String()), nil
}

// maxInteger is the largest whole number that a float64 is sure to hold exactly.
const maxInteger = 1 << 53

// tomlValue makes TOML's integers of whole numbers. TOML has no null.
func tomlValue(at string, value any) (any, error) {
	switch v := value.(type) {
	case nil:
		return nil, fmt.Errorf("%s: must not be null: leave it out", at)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= maxInteger {
			return int64(v), nil
		}
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = tomlValue(element(at, i), v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		table := make(map[string]any, len(v))
		for key := range v {
			var err error
			if table[key], err = tomlValue(join(at, key), v[key]); err != nil {
				return nil, err
			}
		}
		return table, nil
	}
	return value, nil
}

// span is where one line of a file, or more if its value has them, is about a top-level key.
type span struct {
	key        string
	root       bool // it stands before all tables
	dotted     bool // it sets a part of the key's value
	start, end int  // of whole lines, the end of the last included
	from, to   int  // of the value; only of root ones
}

// setKey sets a top-level key of a valid document, or takes it out if value is nil.
func setKey(data []byte, key string, value any) ([]byte, error) {
	var line string
	if value != nil {
		var err error
		if line, err = assignment(key, value); err != nil {
			return nil, err
		}
	}
	all := spans(data)
	own := slices.DeleteFunc(slices.Clone(all), func(s span) bool { return s.key != key })
	if len(own) == 1 && own[0].root && !own[0].dotted && value != nil {
		_, text, _ := strings.Cut(line, "= ")
		return slices.Concat(data[:own[0].from], []byte(text), data[own[0].to:]), nil
	}
	at := rootEnd(data, all)
	if len(own) > 0 && own[0].root {
		at = own[0].start
	}
	var out []byte
	done := 0
	for _, s := range merged(all, key) {
		if at >= done && at <= s.start {
			out = insert(append(out, data[done:at]...), line, data)
			done, at = at, -1
		}
		out = append(out, data[done:s.start]...)
		done = s.end
	}
	if at >= done {
		out = insert(append(out, data[done:at]...), line, data)
		done = at
	}
	return append(out, data[done:]...), nil
}

// insert adds a line in the manner of the file.
func insert(out []byte, line string, file []byte) []byte {
	if line == "" {
		return out
	}
	end := "\n"
	if bytes.Contains(file, []byte("\r\n")) {
		end = "\r\n"
	}
	if len(out) > 0 && out[len(out)-1] != '\n' && !bytes.Equal(out, bom) {
		out = append(out, end...)
	}
	return append(append(out, line...), end...)
}

var bom = []byte("\xef\xbb\xbf")

// rootEnd is where a new top-level key goes: behind the others, and before all tables.
func rootEnd(data []byte, all []span) int {
	at := len(data)
	if len(all) > 0 {
		at = len(data) - len(bytes.TrimPrefix(data, bom))
	}
	for _, s := range all {
		if s.root {
			at = s.end
		}
	}
	return at
}

// merged returns the ranges that are about a key. What stands between two lines of the same table, comments and all, is one with them.
func merged(all []span, key string) (ranges []span) {
	for i, s := range all {
		if s.key != key {
			continue
		}
		if last := len(ranges) - 1; i > 0 && last >= 0 && all[i-1].key == key && !s.root && !all[i-1].root {
			ranges[last].end = s.end
			continue
		}
		ranges = append(ranges, s)
	}
	return ranges
}

// spans lists what a valid document has, in its order.
func spans(data []byte) (all []span) {
	skip := len(data) - len(bytes.TrimPrefix(data, bom))
	p := parsers.Get().(*unstable.Parser) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer func() {
		p.Reset(nil)
		parsers.Put(p)
	}()
	p.Reset(data[skip:])
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable && e.Kind != unstable.KeyValue {
			continue
		}
		key, offset, parts := "", 0, 0
		for it := e.Key(); it.Next(); parts++ {
			if parts == 0 {
				key, offset = string(it.Node().Data), skip+int(it.Node().Raw.Offset)
			}
		}
		s := span{key: key, start: bytes.LastIndexByte(data[:offset], '\n') + 1, dotted: parts > 1}
		s.start = max(s.start, skip)
		switch {
		case e.Kind != unstable.KeyValue:
			table = key
			s.end = lineEnd(data, offset)
		case table == "":
			s.root = true
			s.from, s.to = valueAfter(data, offset)
			s.end = lineEnd(data, s.to)
		default:
			s.key = table
			_, to := valueAfter(data, offset)
			s.end = lineEnd(data, to)
		}
		all = append(all, s)
	}
	return all
}

// lineEnd is where the next line begins.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(data)
}

// valueAfter finds the value of the key that begins at an offset of a valid document.
func valueAfter(data []byte, at int) (from, to int) {
	for data[at] != '=' {
		if at = tokenEnd(data, at); at >= len(data) {
			return at, at
		}
	}
	from = at + 1
	for from < len(data) && (data[from] == ' ' || data[from] == '\t') {
		from++
	}
	depth := 0
	for to = from; to < len(data); {
		switch c := data[to]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case depth == 0 && (c == '\n' || c == '#'):
			return from, from + len(bytes.TrimRight(data[from:to], " \t\r"))
		}
		to = tokenEnd(data, to)
	}
	return from, from + len(bytes.TrimRight(data[from:], " \t\r\n"))
}

// tokenEnd is where what begins at an offset ends: a string or comment as a whole, else one byte.
func tokenEnd(data []byte, at int) int {
	rest := data[at:]
	switch {
	case rest[0] == '#':
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			return at + i
		}
		return len(data)
	case bytes.HasPrefix(rest, []byte(`"""`)), bytes.HasPrefix(rest, []byte(`'''`)):
		const quotes = 3
		end := at + quotes + quotedEnd(rest[quotes:], string(rest[:quotes]), rest[0] == '"')
		for extra := 0; extra < quotes-1 && end < len(data) && data[end] == rest[0]; extra++ { // up to two quotes may stand before the last three
			end++
		}
		return end
	case rest[0] == '"', rest[0] == '\'':
		return at + 1 + quotedEnd(rest[1:], string(rest[:1]), rest[0] == '"')
	}
	return at + 1
}

// quotedEnd is where a string ends, its closing quotes included.
func quotedEnd(rest []byte, quotes string, escapes bool) int {
	for i := 0; i < len(rest); i++ {
		switch {
		case escapes && rest[i] == '\\':
			i++
		case bytes.HasPrefix(rest[i:], []byte(quotes)):
			return i + len(quotes)
		}
	}
	return len(rest)
}

// Clash returns a name that a model would have, or one of its aliases, which another has already. Models of the file that it is to be read from in
// place of are none; "" = of no file.
func (c *Catalog) Clash(m *Model, replaced string) (name string, other *Model) {
	for name := range m.names() {
		if e := c.entries[name]; e != nil && e.main.File != replaced {
			return name, e.main
		}
	}
	return "", nil
}

// Names returns every name that leads to the model: its own, aliases, and the same of its variants.
func (m *Model) Names() []string { return slices.Collect(m.names()) }
