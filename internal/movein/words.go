package movein

import (
	"fmt"
	"strings"
)

// shellWords splits a command as a shell does, without lines that are comments: quotes and backslashes hold words together, nothing is put in for
// variables.
func shellWords(text string) (words []string, err error) {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines = append(lines, line)
		}
	}
	var word strings.Builder
	var quoted rune // the quote we are in; 0 = none
	inWord, escaped := false, false
	for _, r := range strings.Join(lines, "") {
		switch {
		case escaped:
			if r != '\n' {
				word.WriteRune(r)
				inWord = true
			}
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped = true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quoted, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quoted)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
