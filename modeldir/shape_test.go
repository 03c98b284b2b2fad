package modeldir

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const shaped = `
model_path = "a.gguf"
aliases = ["gpt-*"]
system_prompt = "Be brief."
fallbacks = ["other"]
first_byte_timeout = "1m"
token_timeout = 10
answer_timeout = "1h"
[defaults]
temperature = 0.5
chat_template_kwargs = { enable_thinking = false, "a.b" = [1, 2.5, "x"] }
[forced]
seed = 7
[caps]
max_tokens = 100
temperature = 1.5
[[variants]]
name = "exact"
aliases = ["gpt-4.1*"]
defaults = { temperature = 0 }
[[variants]]
name = "loud"
system_prompt = "Shout."
[variants.caps]
max_tokens = 7
`

func TestParseShape(t *testing.T) {
	m, err := ParseModel(testFile, []byte(shaped))
	if err != nil {
		t.Fatal(err)
	}
	want := &Shape{
		System:   "Be brief.",
		Defaults: map[string]string{"temperature": "0.5", "chat_template_kwargs": `{"a.b":[1,2.5,"x"],"enable_thinking":false}`},
		Forced:   map[string]string{"seed": "7"},
		Caps:     map[string]float64{"max_tokens": 100, "temperature": 1.5},
	}
	if diff := cmp.Diff(want, m.Shape); diff != "" {
		t.Error(diff)
	}
	if m.FirstByteTimeout != time.Minute || m.TokenTimeout != 10*time.Second || m.AnswerTimeout != time.Hour || m.Fallbacks[0] != "other" {
		t.Errorf("%+v", m)
	}
	exact, loud := m.Variants[0], m.Variants[1]
	if exact.Key != m.Key || exact.Shape.Defaults["temperature"] != "0" || exact.Shape.System != "Be brief." || exact.Shape.Caps["max_tokens"] != 100 {
		t.Errorf("exact: %+v", exact.Shape)
	}
	if loud.Shape.System != "Shout." || loud.Shape.Caps["max_tokens"] != 7 || loud.Shape.Forced["seed"] != "7" || loud.Aliases != nil {
		t.Errorf("loud: %+v", loud.Shape)
	}
}

// A bound on tokens is one, whatever it is called: a variant's goes before its model's.
func TestOneBoundOnTokens(t *testing.T) {
	m, err := ParseModel(testFile, []byte("model_path = 'a'\ncaps = { max_tokens = 100 }\nvariants = [{ name = 'v', caps = { max_completion_tokens = 5 }, forced = { n_predict = 3 } }]"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Shape{Forced: map[string]string{"max_tokens": "3"}, Caps: map[string]float64{"max_tokens": 5}}
	if diff := cmp.Diff(want, m.Variants[0].Shape); diff != "" {
		t.Error(diff)
	}
}

func TestParseShapeErrors(t *testing.T) {
	const ok = "model_path = 'a'\n"
	for text, want := range map[string]string{
		ok + "[defaults]\nmessages = []":                            "defaults.messages",
		ok + "[forced]\nstream = true":                              "forced.stream",
		ok + "[caps]\nmax_tokens = 'many'":                          "caps.max_tokens",
		ok + "[caps]\ntemperature = inf":                            "caps.temperature",
		ok + "[defaults]\ntemperature = nan":                        "defaults.temperature",
		ok + "[[variants]]\nsystem_prompt = 'x'":                    "variants[0].name",
		ok + "[[variants]]\nname = 'm1'":                            "variants[0].name",
		ok + "[[variants]]\nname = 'v'\n[[variants]]\nname = 'v'":   "variants[1].name",
		ok + "[[variants]]\nname = 'v'\nforced = { stream = true }": "variants[0].forced.stream",
		ok + "[[variants]]\nname = 'v'\nport = 1":                   "variants[0].port",
		ok + "[caps]\nmax_tokens = 0":                               "caps.max_tokens",
		ok + "[caps]\nmax_tokens = 1\nn_predict = 1":                "caps.n_predict",
		ok + "kind = 'transcription'\n[forced]\nx = 1":              "forced",
		ok + "kind = 'embedding'\nsystem_prompt = 'x'":              "system_prompt",
		ok + "fallbacks = ['m1']":                                   "fallbacks",
		ok + "token_timeout = '-1s'":                                "token_timeout",
		ok + "first_byte_timeout = 'soon'":                          "first_byte_timeout",
	} {
		_, err := ParseModel(testFile, []byte(text))
		var field *FieldError
		if !errors.As(err, &field) || field.Field != want || field.Line < 2 || field.Reason == "" {
			t.Errorf("%q: %v, want an error of %s", text, err, want)
		}
	}
}

func catalogOf(t *testing.T, files map[string]string) *Catalog {
	t.Helper()
	var models []*Model
	for _, file := range []string{"/m/a.toml", "/m/b.toml", "/m/c.toml"} {
		if files[file] == "" {
			continue
		}
		m, err := ParseModel(file, []byte(files[file]))
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	return NewCatalog(models)
}

func TestResolvePatternsAndVariants(t *testing.T) {
	c := catalogOf(t, map[string]string{
		"/m/a.toml": "model_path = 'a'\naliases = ['gpt-*', '*']\n[[variants]]\nname = 'a-exact'\naliases = ['gpt-4.1*']",
		"/m/b.toml": "model_path = 'b'\naliases = ['gpt-4o', 'org/*/?']",
	})
	for name, want := range map[string]string{
		"a": "a", "b": "b", "a-exact": "a-exact", "gpt-4o": "b", "gpt-4o-mini": "a", "gpt-4.1-nano": "a-exact", "org/x/y": "b", "org/x/yz": "a", "what": "a",
	} {
		if m, ok := c.Resolve(name, Chat); !ok || m.Name != want {
			t.Errorf("%q is %+v, want %s", name, m, want)
		}
	}
	if m := c.Model("a"); m == nil || m.Name != "a" || c.Model("a-exact") != nil {
		t.Errorf("by key: %+v", m)
	}
	if n := len(c.Models()); n != 2 {
		t.Errorf("%d models, want 2", n)
	}
}

// Of patterns that leave equally much open the first file's counts, in whatever order files are read; a name beyond all bounds is none's.
func TestResolvePatternsInFileOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.toml", "model_path = 'a'\naliases = ['x*']")
	write(t, dir, "b.toml", "model_path = 'b'\naliases = ['x?', 'gpt-*']")
	write(t, dir, "c.toml", "model_path = 'c'\naliases = ['gpt-*']")
	for range 20 { // the sources are in no order
		c, err := LoadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := c.Resolve("xy", Chat); m == nil || m.Name != "a" {
			t.Fatalf("xy is %+v", m)
		}
		if m, ok := c.Resolve("x"+strings.Repeat("y", maxNameLength), Chat); ok {
			t.Fatalf("a long name is %+v", m)
		}
		if f := c.Faults(); len(f) != 1 || !strings.Contains(f[0].Err.Error(), `"gpt-*" is taken by model "b"`) {
			t.Fatalf("faults %v", f)
		}
		if c.Has("xy") || !c.Has("x*") {
			t.Fatal("what a pattern stands for counts as somebody's name, or the pattern does not")
		}
	}
}

// A variant's name, and a pattern, belong to one model.
func TestNamesOfVariantsClash(t *testing.T) {
	for _, second := range []string{"name = 'v'", "aliases = ['v']", "aliases = ['g*']", "[[variants]]\nname = 'v'", "[[variants]]\nname = 'a'"} {
		c := catalogOf(t, map[string]string{
			"/m/a.toml": "model_path = 'a'\naliases = ['g*']\n[[variants]]\nname = 'v'",
			"/m/b.toml": "model_path = 'b'\n" + second,
		})
		if f := c.Faults(); len(f) != 1 || f[0].File != "/m/b.toml" || len(c.Models()) != 1 {
			t.Errorf("%s: faults %v", second, f)
		}
	}
}
