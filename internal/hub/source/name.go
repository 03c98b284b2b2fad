package source

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// maxName bounds the names of files, in bytes: file systems allow 255, and something is appended to them while they are brought.
const maxName = 200

// checkName tells why a file must not be called so: names come from servers that may be hostile, and become files here.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no name of a file", name)
	case len(name) > maxName:
		return fmt.Errorf("the file name %q… is longer than %d bytes", name[:40], maxName)
	case strings.ContainsAny(name, `/\:`) || strings.ContainsFunc(name, isControl):
		return fmt.Errorf("the file name %q holds a separator or a control character", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("the file name %q ends in a dot or a space, which not all systems can keep", name)
	}
	return nil
}

// checkPath is checkName for each part of a path with slashes.
func checkPath(p string) error {
	if len(p) > 1024 {
		return errors.New("a path is longer than 1024 bytes")
	}
	for part := range strings.SplitSeq(p, "/") {
		if err := checkName(part); err != nil {
			return err
		}
	}
	return nil
}

// escapePath makes a path fit for an address, its slashes kept.
func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// modelName suggests what a model may be called: the name of its file, or what else it is given, in lower case, of a-z 0-9 . _ -,
// without the quantisation, the number of its part and the ending.
func modelName(file string) string {
	f := readName(path.Base(file))
	stem := f.stem
	for {
		shorter := strings.TrimRight(stem, "-._ ")
		if i := len(shorter) - len("-gguf"); i > 0 && strings.EqualFold(shorter[i:], "-gguf") {
			shorter = shorter[:i]
		}
		if shorter == stem {
			break
		}
		stem = shorter
	}
	var b strings.Builder
	for _, r := range strings.ToLower(stem) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-._")
}

// isGeneric tells names that say nothing of the model, as some converters leave them.
func isGeneric(name string) bool {
	switch name {
	case "", "model", "ggml-model", "main", "gguf", "weights", "download":
		return true
	}
	return false
}

// firstName is the first of what is given that makes a telling name.
func firstName(candidates ...string) string {
	for _, c := range candidates {
		if name := modelName(c); !isGeneric(name) {
			return name
		}
	}
	return "model"
}
