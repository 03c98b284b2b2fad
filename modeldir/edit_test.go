package modeldir

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// annotated is a file that somebody has written with care.
const annotated = `# our best model
name = "best" # as clients know it

model_path = '/data/best.gguf'   # from the hub
  ctx_size=8192
aliases = [
  "default", # for who does not say ] "
  'gpt-4o',
]
system_prompt = """
Say "yes" # always
[env]"""

# what the engine is told
[env]
# the secret
HF_TOKEN = "x"
"OTHER" = "y=z"

# how it is asked
[defaults]
temperature = 0.5

[[variants]]
name = "cold"
[variants.defaults]
temperature = 0
[[variants]]
name = "hot"
`

func TestEditKeepsTheRest(t *testing.T) {
	for name, c := range map[string]struct {
		fields   map[string]any
		old, now string // what becomes what; old = "" is nothing
	}{
		"a number":         {map[string]any{"ctx_size": 4096.0}, "ctx_size=8192", "ctx_size=4096"},
		"a string":         {map[string]any{"name": `a"b\c`}, `"best" #`, `'a"b\c' #`},
		"a literal string": {map[string]any{"model_path": "/x"}, `'/data/best.gguf'   #`, `'/x'   #`},
		"an array": {
			map[string]any{"aliases": []any{"one"}},
			"[\n  \"default\", # for who does not say ] \"\n  'gpt-4o',\n]", `['one']`,
		},
		"a long string": {map[string]any{"system_prompt": "No."}, "\"\"\"\nSay \"yes\" # always\n[env]\"\"\"", `'No.'`},
		"out":           {map[string]any{"ctx_size": nil}, "  ctx_size=8192\n", ""},
		"what is not there": {
			map[string]any{"threads": nil}, "", "",
		},
		"a new key": {map[string]any{"threads": 4.0}, "[env]\"\"\"\n", "[env]\"\"\"\nthreads = 4\n"},
		"a table out": {
			map[string]any{"env": nil}, "[env]\n# the secret\nHF_TOKEN = \"x\"\n\"OTHER\" = \"y=z\"\n", "",
		},
		"tables out": {
			map[string]any{"variants": nil},
			"[[variants]]\nname = \"cold\"\n[variants.defaults]\ntemperature = 0\n[[variants]]\nname = \"hot\"\n", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.old != "" && strings.Count(annotated, c.old) != 1 {
				t.Fatalf("%q is in the file %d times", c.old, strings.Count(annotated, c.old))
			}
			want := strings.Replace(annotated, c.old, c.now, min(1, len(c.old)))
			got, err := EditModelFile("/x.toml", []byte(annotated), c.fields)
			if err != nil || string(got) != want {
				t.Errorf("%v:\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}

func TestEditReplacesTables(t *testing.T) {
	got, err := EditModelFile("/x.toml", []byte(annotated), map[string]any{
		"env": map[string]any{"A": "1"}, "variants": []any{map[string]any{"name": "v"}}, "defaults": nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := ModelFileFields("/x.toml", got)
	if err != nil {
		t.Fatalf("%v in\n%s", err, got)
	}
	if fields["defaults"] != nil || !reflect.DeepEqual(fields["env"], map[string]any{"A": "1"}) ||
		!reflect.DeepEqual(fields["variants"], []any{map[string]any{"name": "v"}}) || fields["ctx_size"] != int64(8192) {
		t.Errorf("%v in\n%s", fields, got)
	}
	for _, kept := range []string{"# our best model", "# as clients know it", "# what the engine is told", "# how it is asked"} {
		if !strings.Contains(string(got), kept) {
			t.Errorf("%q is gone from\n%s", kept, got)
		}
	}
	if _, err := ParseModel("/x.toml", got); err != nil {
		t.Errorf("it is no model any more: %v\n%s", err, got)
	}
}

func TestEditOfOddFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file, want string
		fields     map[string]any
	}{
		"only a table":      {"[env]\nA = \"1\"\n", "threads = 2\n[env]\nA = \"1\"\n", map[string]any{"threads": 2.0}},
		"only comments":     {"# x", "# x\nthreads = 2\n", map[string]any{"threads": 2.0}},
		"no last newline":   {"name = \"a\"", "name = \"a\"\nthreads = 2\n", map[string]any{"threads": 2.0}},
		"Windows":           {"name = \"a\"\r\nport = 1\r\n", "name = 'b'\r\nport = 1\r\nthreads = 2\r\n", map[string]any{"name": "b", "threads": 2.0}},
		"a byte order":      {"\xef\xbb\xbfport = 1 # x\n", "\xef\xbb\xbfport = 2 # x\n", map[string]any{"port": 2.0}},
		"dotted":            {"env.A = \"1\"\nport = 1\nenv.B = \"2\"\n", "env = {C = '3'}\nport = 1\n", map[string]any{"env": map[string]any{"C": "3"}}},
		"a quoted key":      {"\"port\" = 1\n", "\"port\" = 2\n", map[string]any{"port": 2.0}},
		"quotes at the end": {"system_prompt = \"\"\"a\"\"\"\"\" # x\n", "system_prompt = 'b' # x\n", map[string]any{"system_prompt": "b"}},
		"an inline table":   {"env = { A = \"}\" } # x\n", "env = {B = '1'} # x\n", map[string]any{"env": map[string]any{"B": "1"}}},
		"nothing":           {"", "name = 'a'\nthreads = 2\n", map[string]any{"name": "a", "threads": 2.0}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EditModelFile("/x.toml", []byte(c.file), c.fields)
			if err != nil || string(got) != c.want {
				t.Errorf("%v: %q, want %q", err, got, c.want)
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file   string
		fields map[string]any
		want   string
	}{
		"a broken file": {"name = \n", map[string]any{"port": 1.0}, "/x.toml:1:"},
		"null within":   {"", map[string]any{"env": map[string]any{"A": nil}}, "env.A: must not be null"},
	} {
		if _, err := EditModelFile("/x.toml", []byte(c.file), c.fields); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestNewModelFileIsInOrder(t *testing.T) {
	got, err := NewModelFile(map[string]any{
		"idle_timeout": "5m", "name": "qwen", "model_path": "/q.gguf", "ctx_size": 8192.0, "tensor_split": []any{3.0, 1.5}, "preload": true, "port": nil,
	})
	const want = "name = 'qwen'\nmodel_path = '/q.gguf'\nctx_size = 8192\ntensor_split = [3, 1.5]\nidle_timeout = '5m'\npreload = true\n"
	if err != nil || string(got) != want {
		t.Errorf("%v:\n%s\nwant\n%s", err, got, want)
	}
	if m, err := ParseModel("/qwen.toml", got); err != nil || m.TensorSplit[1] != 1.5 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestEditSetsWhatItIsTold: whatever the values, a key is then what was asked for, and all others are what they were.
func TestEditSetsWhatItIsTold(t *testing.T) {
	words := []string{"", "a", "#", "\"", "'", "\\", "[x]", "\n", "'''", `"""`, "=", "\x7f", "ü", "{", "\t"}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		text := func() (s string) {
			for range r.IntN(6) {
				s += words[r.IntN(len(words))]
			}
			return s
		}
		file := []byte(annotated)
		for range 4 {
			key := []string{"name", "aliases", "env", "defaults", "wasm", "threads", "variants"}[r.IntN(7)]
			value := []any{
				nil, text(), []any{text(), text()}, map[string]any{text(): text()}, []any{map[string]any{"a": text()}},
			}[r.IntN(5)]
			want, err := ModelFileFields("/x", file)
			if err != nil {
				t.Fatal(err)
			}
			before := file
			if file, err = EditModelFile("/x", file, map[string]any{key: value}); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, err := ModelFileFields("/x", file)
			if want[key] = value; value == nil {
				delete(want, key)
			}
			if err != nil || !reflect.DeepEqual(want, got) {
				t.Fatalf("seed %d: %v: %s = %q made\n%s\nof\n%s", seed, err, key, value, file, before)
			}
		}
		for _, kept := range []string{"# our best model\n", "  ctx_size=8192\n"} {
			if !strings.Contains(string(file), kept) {
				t.Fatalf("seed %d: %q is gone from\n%s", seed, kept, file)
			}
		}
	}
}

// FuzzEditModelFile: whatever TOML it is, a key is set, taken out again, and nothing else changes.
func FuzzEditModelFile(f *testing.F) {
	for _, seed := range []string{
		annotated, "", "# x", "[env]\nA = \"1\"\n", "a.b = 1\r\na.c = [\n1, # ]\n]\n[[t]]\n[t.u]\nv = '''\n'''\n", "threads.x = 1", "[threads]\n[other]\n[threads.x]\n",
		"a = {b = \"}\"} # x", "a = \"\"\"\"\"\"\"\"", "'a=b' = 1", "\xef\xbb\xbfa = 1", "[ threads ] # x\n a = 1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before, err := ModelFileFields("/x", file)
		if err != nil {
			return
		}
		set, err := EditModelFile("/x", file, map[string]any{"threads": 3.0})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ModelFileFields("/x", set)
		if err != nil {
			t.Fatalf("%v in %q of %q", err, set, file)
		}
		before["threads"] = int64(3)
		if fmt.Sprint(got) != fmt.Sprint(before) { // as text: a NaN is no other NaN
			t.Fatalf("%v, want %v in %q of %q", got, before, set, file)
		}
		out, err := EditModelFile("/x", set, map[string]any{"threads": nil})
		if err != nil {
			t.Fatal(err)
		}
		delete(before, "threads")
		if got, err = ModelFileFields("/x", out); err != nil || fmt.Sprint(got) != fmt.Sprint(before) {
			t.Fatalf("%v: %v, want %v in %q of %q", err, got, before, out, file)
		}
	})
}
