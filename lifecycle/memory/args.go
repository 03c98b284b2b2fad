package memory

import (
	"slices"
	"strconv"
	"strings"
)

// arguments are a model file's args, which come last on the engine's command line.
type arguments []string

// value returns what the last of the flags given says, also written --flag=value.
func (a arguments) value(flags ...string) (string, bool) {
	for i, arg := range slices.Backward(a) {
		name, v, joined := strings.Cut(arg, "=")
		for _, f := range flags {
			if name != f {
				continue
			}
			if joined {
				return v, true
			}
			if i+1 < len(a) {
				return a[i+1], true
			}
		}
	}
	return "", false
}

// number is value, as a number; "all" and "auto" are -1, as llama-server has it for layers.
func (a arguments) number(flags ...string) (int, bool) {
	s, ok := a.value(flags...)
	if !ok {
		return 0, false
	}
	if s == "all" || s == "auto" {
		return -1, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// has reports whether one of the flags is there.
func (a arguments) has(flags ...string) bool {
	return slices.ContainsFunc(a, func(arg string) bool { return slices.Contains(flags, arg) })
}
