package movein

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// macro is a text that stands for another.
type macro struct{ name, value string }

// macros are those of a table after those that are known already. What they say of others is put in when they are used.
func (s *importer) macros(table *yaml.Node, before []macro) []macro {
	all := slices.Clone(before)
	for i := 0; i+1 < len(table.Content); i += 2 {
		name, v := table.Content[i].Value, table.Content[i+1].Value
		all = slices.DeleteFunc(all, func(m macro) bool { return m.name == name })
		all = append(all, macro{name, strings.TrimSpace(v)})
	}
	return all
}

var reference = regexp.MustCompile(`\$\{([A-Za-z0-9_.-]+)\}`)

// expand puts macros in: those of the environment, those given, the model's name, and ours for the port.
func (s *importer) expand(text, id string, macros []macro) (string, error) {
	const deepest, longest = 16, 64 << 10
	for range deepest {
		if len(text) > longest {
			return "", fmt.Errorf("with its macros it is longer than %d bytes", longest)
		}
		var missing string
		next := reference.ReplaceAllStringFunc(text, func(ref string) string {
			name := ref[2 : len(ref)-1]
			if env, ok := strings.CutPrefix(name, "env."); ok {
				if v := s.getenv(env); v != "" {
					return v
				}
				missing = ref
				return ref
			}
			switch name {
			case "PORT":
				return "{{port}}"
			case "MODEL_ID":
				return id
			}
			for _, m := range macros {
				if m.name == name {
					return m.value
				}
			}
			missing = ref
			return ref
		})
		if missing != "" {
			return text, fmt.Errorf("%s is not set", missing)
		}
		if next == text {
			return text, nil
		}
		text = next
	}
	return text, errors.New("its macros lead to each other without an end")
}
