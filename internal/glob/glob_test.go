package glob

import "testing"

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"gpt-*", "gpt-4o", true},
		{"gpt-*", "a-gpt-4o", false},
		{"gpt-?", "gpt-4o", false},
		{"gpt-?o", "gpt-4o", true},
		{"a.b", "axb", false},
		{"*/qwen*", "org/sub/qwen3\n", true},
		{"(a|b)", "a", false},
		{"plain", "plain", true},
	} {
		if got := Compile(c.pattern).MatchString(c.name); got != c.want {
			t.Errorf("%q of %q: %v", c.pattern, c.name, got)
		}
	}
	if !Is("a*") || !Is("?") || Is("a[b]") || Literal("gpt-*?") != "gpt-" || Literal("all") != "all" {
		t.Error("what is a pattern, or what it begins with")
	}
}
