package modeldir

import (
	"cmp"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"

	"assistant/internal/glob"
)

// Catalog is the set of models in force. It is immutable: a change makes a new
// one, so a request that holds one sees a consistent world.
type Catalog struct {
	entries map[string]*entry // by every name a client may use: names, aliases, and keys of further roles
	models  []*Model          // sorted by key; keys are distinct
	globs   []pattern         // the most particular first
	faults  []Fault           // sorted by file and name
}

// entry is what one client-visible name leads to: a model for each role.
type entry struct {
	main  *Model
	roles map[Kind]*Model // nil unless the entry has several roles
}

// pattern is an alias that stands for many names.
type pattern struct {
	text    string
	literal int // bytes it begins with before it leaves anything open
	match   *regexp.Regexp
	entry   *entry
}

// Fault is a file that could not be (fully) taken into the catalog. The last
// good version of its models, if there was one, is still in force.
type Fault struct {
	File string // absolute path
	Name string // the model concerned, as far as it could be told: the stem of the file otherwise
	Err  error  // file, line, column and field where known
}

// NewCatalog makes a catalog of models, whose keys and names must be set. A name or
// alias that two models claim (other than roles of one entry) is the fault of
// the one that comes later in file order, which is then left out.
func NewCatalog(models []*Model, faults ...Fault) *Catalog {
	c := &Catalog{entries: make(map[string]*entry, len(models)), faults: faults}
	for _, m := range models {
		if err := c.add(m); err != nil {
			c.faults = append(c.faults, Fault{File: m.File, Name: m.Name, Err: err})
		}
	}
	slices.SortFunc(c.models, func(a, b *Model) int { return strings.Compare(a.Key, b.Key) })
	slices.SortFunc(c.globs, func(a, b pattern) int {
		x, y := a.entry.main, b.entry.main
		return cmp.Or(b.literal-a.literal, strings.Compare(x.File, y.File), strings.Compare(x.Key, y.Key), strings.Compare(a.text, b.text))
	})
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), strings.Compare(a.Name, b.Name))
	})
	return c
}

func (c *Catalog) add(m *Model) error {
	for name := range m.names() {
		if other := c.entries[name]; other != nil {
			return fmt.Errorf("%s: the name %q is already taken by model %q of %s", m.File, name, other.main.Name, other.main.File)
		}
	}
	e := &entry{main: m}
	for name := range m.names() {
		c.entries[name] = e
	}
	if m.Key != m.Name { // a further role of an entry that must already be there
		main := c.entries[m.Name]
		if main == nil || main.main.File != m.File {
			delete(c.entries, m.Key)
			return fmt.Errorf("%s: role %s of model %q has no entry to belong to", m.File, m.Kind, m.Name)
		}
		if main.roles == nil {
			main.roles = map[Kind]*Model{main.main.Kind: main.main}
		}
		main.roles[m.Kind] = m
	}
	c.models = append(c.models, m)
	c.addGlobs(m.Aliases, e)
	for _, v := range m.Variants {
		of := &entry{main: v}
		c.entries[v.Name] = of
		for _, alias := range v.Aliases {
			c.entries[alias] = of
		}
		c.addGlobs(v.Aliases, of)
	}
	return nil
}

func (c *Catalog) addGlobs(aliases []string, e *entry) {
	for _, alias := range aliases {
		if glob.Is(alias) {
			c.globs = append(c.globs, pattern{alias, len(glob.Literal(alias)), glob.Compile(alias), e})
		}
	}
}

// names yields what no other model may be called: the key, which is the name
// unless the model is a further role, the aliases, and the same of its variants.
func (m *Model) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(m.Key) || !yieldAll(m.Aliases, yield) {
			return
		}
		for _, v := range m.Variants {
			if !yield(v.Name) || !yieldAll(v.Aliases, yield) {
				return
			}
		}
	}
}

func yieldAll(names []string, yield func(string) bool) bool {
	for _, name := range names {
		if !yield(name) {
			return false
		}
	}
	return true
}

// names yields the names of all the models.
func names(models []*Model) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, m := range models {
			for name := range m.names() {
				if !yield(name) {
					return
				}
			}
		}
	}
}

// Resolve returns the model that serves requests of the given kind under name,
// which may be an alias, a variant's name, or what an alias that is a pattern stands for: of several the one that leaves least open at
// its beginning, then the first in file order. For an entry without that role it returns the entry's main
// model: whether that one can serve the request is the engine's affair. It
// reports false if no such name exists.
func (c *Catalog) Resolve(name string, kind Kind) (*Model, bool) {
	e := c.entries[name]
	for i := 0; e == nil && i < len(c.globs) && len(name) <= maxNameLength; i++ {
		if g := &c.globs[i]; strings.HasPrefix(name, g.text[:g.literal]) && g.match.MatchString(name) {
			e = c.globs[i].entry
		}
	}
	if e == nil {
		return nil, false
	}
	if m := e.roles[kind]; m != nil {
		return m, true
	}
	return e.main, true
}

// Has reports whether a model has the very name or alias.
func (c *Catalog) Has(name string) bool { return c.entries[name] != nil }

// Models returns every model, further roles included, sorted by key. The slice is the
// catalog's own: do not change it.
func (c *Catalog) Models() []*Model { return c.models }

// Model returns the model with the given key, nil if there is none.
func (c *Catalog) Model(key string) *Model {
	if e := c.entries[key]; e != nil && e.main.Key == key {
		return e.main
	}
	return nil
}

// Replace returns a catalog with what replace makes of each model; where that is nothing new, c itself. What replace returns has the same names.
func (c *Catalog) Replace(replace func(*Model) *Model) *Catalog {
	models, news := make([]*Model, len(c.models)), false
	for i, m := range c.models {
		models[i] = replace(m)
		news = news || models[i] != m
	}
	if !news {
		return c
	}
	return NewCatalog(models, c.faults...)
}

// Faults returns what could not be taken, sorted by file and name.
func (c *Catalog) Faults() []Fault { return c.faults }
