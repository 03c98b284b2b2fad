package modeldir

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
)

// Shape is what is done to the requests to a model before its engine has them. Parameters are top-level fields of a request, their
// values JSON.
type Shape struct {
	System   string             // goes before what a chat tells the model itself; "" = nothing
	Defaults map[string]string  // what parameters are that a request does not give, or gives as null
	Forced   map[string]string  // what parameters are, whatever a request says
	Caps     map[string]float64 // the most that numbers may be. A bound on tokens that is not given, or is none (-1), is set
}

// unshaped are the parameters that a Shape must not have: a request is no other for them.
var unshaped = []string{"messages", "prompt", "input", "stream", "stream_options"}

// limitNames are the names that a bound on the tokens of an answer has, OpenAI's two and llama-server's own. A shape has the first.
var limitNames = []string{"max_tokens", "max_completion_tokens", "n_predict"}

// shapedKinds are those whose requests have parameters that can be set. Others' are forms, which are passed on as they are.
var shapedKinds = []Kind{Chat, Embedding, Rerank, Speech, Image, Moderation}

// over returns the shape with another under it: what both say is as this one has it.
func (s *Shape) over(base *Shape) *Shape {
	if base == nil {
		return s
	}
	laid := &Shape{
		System: base.System, Defaults: lay(base.Defaults, s.Defaults), Forced: lay(base.Forced, s.Forced), Caps: lay(base.Caps, s.Caps),
	}
	if s.System != "" {
		laid.System = s.System
	}
	return laid
}

func lay[V any](under, over map[string]V) map[string]V {
	if under == nil {
		return over
	}
	all := maps.Clone(under)
	maps.Copy(all, over)
	return all
}

// rawVariant is a model under another name, asked in another way.
type rawVariant struct {
	Name         string         `toml:"name"`
	Aliases      []string       `toml:"aliases"`
	SystemPrompt string         `toml:"system_prompt"`
	Defaults     map[string]any `toml:"defaults"`
	Forced       map[string]any `toml:"forced"`
	Caps         map[string]any `toml:"caps"`
}

// variants makes models of them that share the instances of m.
func (c *checker) variants(m *Model, raw []rawVariant) []*Model {
	var all []*Model
	for i, r := range raw {
		at := element("variants", i)
		v := *m
		v.Name = c.name(at+".name", r.Name)
		v.Aliases = c.aliases(at+".", v.Name, r.Aliases)
		v.Variants = nil
		if own := c.shape(at+".", m.Kind, r.SystemPrompt, r.Defaults, r.Forced, r.Caps); own != nil {
			v.Shape = own.over(m.Shape)
		}
		taken := v.Name == m.Name || slices.Contains(m.Aliases, v.Name) ||
			slices.ContainsFunc(all, func(o *Model) bool { return o.Name == v.Name })
		if taken {
			c.failf(at+".name", "%q is the name of the model or of another variant: choose another", v.Name)
		}
		all = append(all, &v)
	}
	return all
}

// shape reads what is done to requests; nil = nothing. at is what goes before the fields' names.
func (c *checker) shape(at string, kind Kind, system string, defaults, forced, caps map[string]any) *Shape {
	for _, only := range []struct {
		field string
		given bool
		kinds []Kind
	}{
		{"system_prompt", system != "", []Kind{Chat}},
		{"defaults", len(defaults) > 0, shapedKinds},
		{"forced", len(forced) > 0, shapedKinds},
		{"caps", len(caps) > 0, shapedKinds},
	} {
		if only.given && !slices.Contains(only.kinds, kind) {
			c.failf(at+only.field, "is of no use to kind = %q: remove it", kind)
		}
	}
	s := &Shape{
		System: c.text(at+"system_prompt", system), Defaults: c.params(at+"defaults", defaults), Forced: c.params(at+"forced", forced),
		Caps: c.caps(at+"caps", caps),
	}
	if s.System == "" && s.Defaults == nil && s.Forced == nil && s.Caps == nil {
		return nil
	}
	return s
}

// params makes JSON of parameters.
func (c *checker) params(field string, raw map[string]any) map[string]string {
	var all map[string]string
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		at := field + "." + name
		c.param(at, name, raw)
		text, err := json.Marshal(raw[name])
		if err != nil {
			c.failf(at, "%v can't be written as JSON: give a string, a number, true or false, an array or a table", raw[name])
		}
		if all == nil {
			all = map[string]string{}
		}
		all[shapeName(name)] = string(text)
	}
	return all
}

func (c *checker) caps(field string, raw map[string]any) map[string]float64 {
	var all map[string]float64
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		at := field + "." + name
		c.param(at, name, raw)
		var most float64
		switch v := raw[name].(type) {
		case int64:
			most = float64(v)
		case float64:
			most = v
		default:
			c.failf(at, "must be a number: the most that a request may ask for")
		}
		if math.IsInf(most, 0) || math.IsNaN(most) {
			c.failf(at, "%v caps nothing: remove it", most)
		}
		if shapeName(name) == limitNames[0] && !(most >= 1 && most <= maxInt32) {
			c.failf(at, "%v is no bound on tokens: give 1 to %d", most, maxInt32)
		}
		if all == nil {
			all = map[string]float64{}
		}
		all[shapeName(name)] = most
	}
	return all
}

// param checks a parameter of a table.
func (c *checker) param(at, name string, table map[string]any) {
	if i := slices.Index(limitNames, name); i >= 0 {
		for _, other := range limitNames[:i] {
			if _, twice := table[other]; twice {
				c.failf(at, "is %q by another name, which is given as well: remove one", other)
			}
		}
	}
	if slices.Contains(unshaped, name) {
		c.failf(at, "%q is the request itself, which no model's file sets: remove it", name)
	}
}

// shapeName is the name that a parameter has in a shape.
func shapeName(name string) string {
	if slices.Contains(limitNames, name) {
		return limitNames[0]
	}
	return name
}

// fallbacks checks the names of those that answer in a model's place.
func (c *checker) fallbacks(m *Model, names []string) []string {
	for _, name := range names {
		c.name("fallbacks", name)
		if name == m.Name || slices.Contains(m.Aliases, name) {
			c.failf("fallbacks", "%q is this model: name others", name)
		}
	}
	return none(names)
}
