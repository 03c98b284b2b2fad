package modeldir

import (
	"bytes"
	"fmt"
)

// closeStrings puts the missing quote to every basic string that is still open
// at its line's end, with a warning for each that shows the line as it is read
// now. A comment after the string is taken for one: the quote goes before it.
func closeStrings(data []byte) ([]byte, []Warning) {
	var repaired []byte
	var warnings []Warning
	multi := "" // the delimiter of the multi-line string that this line begins in
	number := 0
	for line := range bytes.Lines(data) {
		number++
		var open int
		if open, multi = scanLine(line, multi); open >= 0 {
			end := open + stringEnd(line[open:])
			tail := line[end:]
			line = append(append(line[:end:end], '"'), tail...)
			warnings = append(warnings, Warning{number, fmt.Sprintf("a string lacks its closing quote; the line is read as: %s", bytes.TrimSpace(line))})
		}
		repaired = append(repaired, line...)
	}
	return repaired, warnings
}

// scanLine finds the basic string that is open at the end of line, and returns
// where its text begins, or -1. Multi is the delimiter of the multi-line string
// the line begins in, "" if none; the one it ends in is returned.
func scanLine(line []byte, multi string) (open int, endsIn string) {
	for i := 0; i < len(line); {
		if multi != "" {
			n := closing(line[i:], multi)
			if n < 0 {
				return -1, multi
			}
			i += n
			multi = ""
			continue
		}
		switch rest := line[i:]; {
		case rest[0] == '#':
			return -1, ""
		case bytes.HasPrefix(rest, []byte(`"""`)), bytes.HasPrefix(rest, []byte(`'''`)):
			multi = string(rest[:3])
			i += 3
		case rest[0] == '"', rest[0] == '\'':
			n := closing(rest[1:], string(rest[:1]))
			if n < 0 {
				if rest[0] == '\'' {
					return -1, "" // a path may hold an apostrophe: too uncertain a guess
				}
				return i + 1, ""
			}
			i += 1 + n
		default:
			i++
		}
	}
	return -1, multi
}

// closing returns the index after the delimiter that ends a string, or -1.
func closing(text []byte, delimiter string) int {
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && delimiter[0] == '"' {
			i++
			continue
		}
		if bytes.HasPrefix(text[i:], []byte(delimiter)) {
			return i + len(delimiter)
		}
	}
	return -1
}

// stringEnd is where an unclosed string most likely ends: before the space that
// precedes a comment, else before the line's trailing space.
func stringEnd(text []byte) int {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			text = text[:i]
			break
		}
	}
	return len(bytes.TrimRight(text, " \t\r\n"))
}
