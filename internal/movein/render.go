package movein

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Render is the model file of an entry.
func Render(e Entry) []byte {
	var b strings.Builder
	for _, c := range e.Comments {
		for line := range strings.Lines(c) {
			fmt.Fprintf(&b, "# %s\n", strings.Map(printable, strings.TrimSpace(strings.ToValidUTF8(line, "?"))))
		}
	}
	for _, f := range []struct {
		key   string
		value any
	}{
		{"name", e.Name},
		{"aliases", e.Aliases},
		{"kind", e.Kind},
		{"model_path", e.ModelPath},
		{"model_source", e.ModelSource},
		{"ctx_size", e.CtxSize},
		{"system_prompt", e.SystemPrompt},
		{"defaults", e.Defaults},
		{"forced", e.Forced},
		{"variants", e.Variants},
		{"first_byte_timeout", e.FirstByte},
		{"engine", e.Engine},
		{"args", e.Args},
		{"env", e.Env},
		{"command", e.Command},
		{"stop_command", e.StopCommand},
		{"cleanup_command", e.CleanupCommand},
		{"upstream", e.Upstream},
		{"identity", e.Identity},
		{"ready_path", e.ReadyPath},
		{"idle_timeout", e.IdleTimeout},
		{"start_timeout", e.StartTimeout},
		{"stop_timeout", e.StopTimeout},
		{"concurrency", e.Concurrency},
		{"pinned", e.Pinned},
		{"preload", e.Preload},
	} {
		if v := value(f.value); v != "" {
			fmt.Fprintf(&b, "%s = %s\n", f.key, v)
		}
	}
	return []byte(b.String())
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}

// value writes a value of a field in TOML; "" if it is empty.
func value(v any) string {
	switch v := v.(type) {
	case string:
		if v == "" {
			return ""
		}
		return quote(v)
	case int:
		if v == 0 {
			return ""
		}
		return strconv.Itoa(v)
	case bool:
		if !v {
			return ""
		}
		return "true"
	case []string:
		return list(v, quote)
	case []Variant:
		return list(v, func(v Variant) string {
			return fmt.Sprintf("{ name = %s, forced = %s }", quote(v.Name), anyValue(v.Forced))
		})
	case map[string]string:
		return table(v, quote)
	case map[string]any:
		return table(v, anyValue)
	}
	return ""
}

func list[T any](items []T, write func(T) string) string {
	if len(items) == 0 {
		return ""
	}
	written := make([]string, len(items))
	for i, item := range items {
		written[i] = write(item)
	}
	return "[" + strings.Join(written, ", ") + "]"
}

// plainKey is what TOML takes for a key without quotes.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func table[T any](m map[string]T, write func(T) string) string {
	if len(m) == 0 {
		return ""
	}
	var written []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		name := key
		if !plainKey.MatchString(key) {
			name = quote(key)
		}
		written = append(written, name+" = "+write(m[key]))
	}
	return "{ " + strings.Join(written, ", ") + " }"
}

// anyValue writes a value of a request's parameter, as YAML and JSON have them.
func anyValue(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case map[string]any:
		if len(v) == 0 {
			return "{}"
		}
		return table(v, anyValue)
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		return list(v, anyValue)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".eIN") {
			text += ".0"
		}
		return text
	case bool, int, int64, uint64:
		return fmt.Sprint(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return quote(fmt.Sprint(v))
	}
	return quote(string(b))
}

// quote writes a basic string of TOML, whose escapes are other than Go's.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
