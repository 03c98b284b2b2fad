package modeldir

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFileSize bounds a TOML file, in bytes. A model needs a few hundred; what is larger is
// something else under the wrong name.
const maxFileSize = 1 << 20

// FieldError is what is wrong with one field of a TOML file, and what to do
// about it.
type FieldError struct {
	File   string // absolute path
	Line   int    // from 1; 0 = it is about the file as a whole
	Column int    // in bytes, from 1; 0 as for Line
	Field  string // dotted path of the key; "" for an error of syntax
	Reason string
}

// Error gives file:line:column: field: reason, less what is not known.
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// document is a decoded TOML file that knows where its keys are.
type document struct {
	file string
	data []byte
	keys []keyAt
}

type keyAt struct {
	path   string // dotted, with indices: llama_servers[0].port
	offset int
}

// decode reads data strictly into dst, a pointer to a struct whose schema is
// given. What was decoded before an error is left in dst.
func decode(file string, data []byte, dst any, s schema) (*document, error) {
	if len(data) > maxFileSize {
		return nil, &FieldError{File: file, Reason: fmt.Sprintf("larger than %d bytes: this is no configuration file", maxFileSize)}
	}
	d := &document{file: file, data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))}
	err := unmarshal(d.data, dst)
	if missing := (*toml.StrictMissingError)(nil); err == nil || errors.As(err, &missing) {
		d.keys = scanKeys(d.data)
		// Looked up again, as go-toml does not regard case, and does not say in which element of an array a key is.
		for _, k := range d.keys {
			if !s.knows(k.path) {
				return nil, d.unknownKey(k.path, s)
			}
		}
	}
	if err != nil {
		return nil, d.explain(err, s)
	}
	return d, nil
}

// unmarshal keeps go-toml's own panics (it has some where it looks for the
// place of an error) from taking the server down.
func unmarshal(data []byte, dst any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not valid TOML: %v", p)
		}
	}()
	return toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(dst)
}

// explain turns go-toml's error into ours.
func (d *document) explain(err error, s schema) error {
	e := &FieldError{File: d.file, Reason: strings.TrimPrefix(err.Error(), "toml: ")}
	if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
		e.Line, e.Column = at.Position()
		e.Field = strings.Join(at.Key(), ".")
		if got, ok := strings.CutPrefix(e.Reason, "cannot decode TOML "); ok {
			got, _, _ = strings.Cut(got, " into ")
			e.Reason = "must be " + s.wants(e.Field) + ", not " + withArticle(got)
		}
	}
	return e
}

func withArticle(noun string) string {
	if noun != "" && strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

func (d *document) unknownKey(path string, s schema) *FieldError {
	e := d.errorf(path, "unknown key")
	if near := s.nearest(path); near != "" {
		e.Reason += "; did you mean " + near + "?"
	} else if known := s.siblings(path); len(known) > 0 {
		e.Reason += "; the keys are " + strings.Join(known, ", ")
	}
	return e
}

// errorf makes an error about the key at path, placed where that key, or else
// the table it belongs to, stands; at the file's start if neither does.
func (d *document) errorf(path, format string, args ...any) *FieldError {
	e := &FieldError{File: d.file, Line: 1, Column: 1, Field: path, Reason: fmt.Sprintf(format, args...)}
	for p := path; p != ""; p = p[:max(strings.LastIndexAny(p, ".["), 0)] {
		if i := slices.IndexFunc(d.keys, func(k keyAt) bool { return k.path == p }); i >= 0 {
			e.Line, e.Column = position(d.data, d.keys[i].offset)
			break
		}
	}
	return e
}

func position(data []byte, offset int) (line, column int) {
	before := data[:offset]
	return 1 + bytes.Count(before, []byte("\n")), offset - bytes.LastIndexByte(before, '\n')
}

// maxDepth is how deep scanKeys looks into values: one more than any of our keys lies.
const maxDepth = 3

// keyScanner collects the keys of a document.
type keyScanner struct {
	keys   []keyAt
	arrays map[string]int // elements of each array of tables so far
}

// parsers are kept for their buffers.
var parsers = sync.Pool{New: func() any { return new(unstable.Parser) }}

// scanKeys lists the keys of a valid document, tables included.
func scanKeys(data []byte) []keyAt {
	p := parsers.Get().(*unstable.Parser) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer func() {
		p.Reset(nil)
		parsers.Put(p)
	}()
	p.Reset(data)
	s := keyScanner{}
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = s.header(e)
		case unstable.KeyValue:
			s.keyValue(table, e, 1)
		default: // comments
		}
	}
	return s.keys
}

// header records a table's header and returns the path of the table it opens.
func (s *keyScanner) header(e *unstable.Node) string {
	path, offset := "", -1
	for it := e.Key(); it.Next(); {
		if offset < 0 {
			offset = int(it.Node().Raw.Offset)
		}
		path = join(path, string(it.Node().Data))
		if last := it.IsLast(); last && e.Kind == unstable.ArrayTable {
			if s.arrays == nil {
				s.arrays = make(map[string]int)
			}
			s.arrays[path]++
		}
		if n := s.arrays[path]; n > 0 {
			path = element(path, n-1)
		}
	}
	s.keys = append(s.keys, keyAt{path, offset})
	return path
}

func (s *keyScanner) keyValue(table string, e *unstable.Node, depth int) {
	path := table
	for it := e.Key(); it.Next(); {
		path = join(path, string(it.Node().Data))
		s.keys = append(s.keys, keyAt{path, int(it.Node().Raw.Offset)})
	}
	s.value(path, e.Value(), depth)
}

func (s *keyScanner) value(path string, v *unstable.Node, depth int) {
	if depth >= maxDepth {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			s.keyValue(path, it.Node(), depth+1)
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			if it.Node().Kind == unstable.InlineTable {
				s.value(element(path, i), it.Node(), depth+1)
			}
		}
	default: // no keys in there
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// schema is the set of keys a struct can take: dotted paths without indices,
// "*" for any key of a map, each with a description of its type ("" = any).
type schema map[string]string

func schemaOf[T any]() schema {
	s := make(schema)
	s.add("", reflect.TypeFor[T]())
	return s
}

func (s schema) add(path string, t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		for f := range t.Fields() {
			key := join(path, f.Tag.Get("toml"))
			s[key] = describe(f.Type)
			s.add(key, f.Type)
		}
	case reflect.Map:
		s[join(path, "*")] = describe(t.Elem())
	default: // no keys in there
	}
}

func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Int:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "an array of strings"
		}
		if t.Elem().Kind() == reflect.Float64 {
			return "an array of numbers"
		}
		return "an array of tables"
	case reflect.Map, reflect.Struct:
		return "a table"
	default:
		return "of another type"
	}
}

func withoutIndices(path string) string {
	for {
		before, rest, ok := strings.Cut(path, "[")
		_, after, closed := strings.Cut(rest, "]")
		if !ok || !closed {
			return path
		}
		path = before + after
	}
}

func parent(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

func (s schema) knows(path string) bool {
	if _, ok := s[path]; ok {
		return true
	}
	path = withoutIndices(path)
	if _, ok := s[path]; ok {
		return true
	}
	// The key of a map may hold dots and brackets itself.
	for table := parent(path); table != ""; table = parent(table) {
		if _, ok := s[table+".*"]; ok {
			return true
		}
	}
	return false
}

func (s schema) wants(path string) string {
	if w, ok := s[withoutIndices(path)]; ok {
		return w
	}
	if w, ok := s[join(parent(path), "*")]; ok {
		return w
	}
	return "of another type"
}

// siblings lists the known keys of the table that path is in, without the table's name.
func (s schema) siblings(path string) []string {
	table := parent(withoutIndices(path))
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if parent(k) == table {
			keys = append(keys, k[strings.LastIndexByte(k, '.')+1:])
		}
	}
	return keys
}

// nearest returns the sibling that path is a likely slip of, or "".
func (s schema) nearest(path string) string {
	key := path[strings.LastIndexByte(path, '.')+1:]
	best, limit := "", 1+len(key)/3
	for _, k := range s.siblings(path) {
		if d := distance(strings.ToLower(key), k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, in bytes; a long a counts as far.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
