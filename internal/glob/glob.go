// Package glob has the patterns by which names are meant in files of ours: * stands for any text and ? for one character.
package glob

import (
	"regexp"
	"strings"
)

const wild = "*?"

// Is reports whether a name is a pattern for others.
func Is(name string) bool { return strings.ContainsAny(name, wild) }

// Literal is what a pattern begins with before it leaves anything open.
func Literal(pattern string) string {
	if i := strings.IndexAny(pattern, wild); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

// Compile makes an expression of a pattern. Every pattern is a good one.
func Compile(pattern string) *regexp.Regexp {
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(strings.ReplaceAll(expression, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`(?s)\A` + expression + `\z`)
}
