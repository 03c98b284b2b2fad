package caddymodule

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"assistant/internal/gguf"
	"assistant/modeldir"
)

// facts are what a model's files say of it that clients are told.
type facts struct {
	stamp    fileStamp
	modified time.Time
	size     int64 // of the file, in bytes

	arch          string // such as "llama"; "" = the file is no GGUF
	quantization  string // such as "Q4_K_M"; "" = unknown
	template      string // of a chat; "" = none
	parameters    int64
	contextLength int // in tokens, that it was trained for; 0 = unknown
	vision, audio bool
}

// fileStamp changes when a model's files do.
type fileStamp struct {
	path, projector string
	size            int64
	modified        int64
}

// facts returns what is known of a model; the zero if nothing is yet. Files are read beside the catalog's publication, see lookForMissing.
func (s snapshot) facts(m *modeldir.Model) facts {
	if f := (*s.known)[m.Key]; f != nil {
		return *f
	}
	return facts{}
}

// learn reads what the files of models say, of those that changed since. One that several models have is read once: a header takes
// milliseconds, and there may be thousands of models.
func (rt *runtime) learn(models []*modeldir.Model, known map[string]*facts) (news bool) {
	read := make(map[fileStamp]*facts, len(known))
	for _, f := range known {
		read[f.stamp] = f
	}
	for _, m := range models {
		if m.ModelPath == "" {
			continue
		}
		info, err := os.Stat(m.ModelPath)
		if err != nil {
			continue
		}
		stamp := fileStamp{m.ModelPath, projectorOf(m), info.Size(), info.ModTime().UnixNano()}
		if before := known[m.Key]; before != nil && before.stamp == stamp {
			continue
		}
		if read[stamp] == nil {
			read[stamp] = readFacts(stamp, info.ModTime())
		}
		known[m.Key], news = read[stamp], true
	}
	return news
}

func readFacts(stamp fileStamp, modified time.Time) *facts {
	f := &facts{stamp: stamp, modified: modified, size: stamp.size}
	h, err := gguf.Read(stamp.path)
	if err != nil {
		return f // starting it tells why
	}
	f.arch, f.quantization, f.template = h.Arch, h.Quantization(), h.Template
	f.parameters, f.contextLength = h.Parameters, h.ContextLength()
	if stamp.projector == "" {
		return f
	}
	f.vision = true // what projectors are for, unless theirs says otherwise
	if p, err := gguf.Read(stamp.projector); err == nil {
		f.audio = p.Numbers["clip.has_audio_encoder"] == 1
		if sees, said := p.Numbers["clip.has_vision_encoder"]; said {
			f.vision = sees == 1
		}
	}
	return f
}

// projectors are the flags by which engines get what makes images, or sounds, something that a model can read: llama-server's, and
// llama-api-server's.
var projectors = []string{"--mmproj", "-mm", "--mmproj-url", "-mmu", "--llava-mmproj"}

// projectorOf is the file of a model's projector; "" = it has none.
func projectorOf(m *modeldir.Model) string {
	return cmp.Or(argumentOf(m, projectors...), m.Env["LLAMA_ARG_MMPROJ"], m.Env["LLAMA_ARG_MMPROJ_URL"])
}

// argumentOf is what follows the last of some flags among a model's arguments; "" = none is there.
func argumentOf(m *modeldir.Model, flags ...string) string {
	for _, argv := range [][]string{m.Args, m.Command} {
		for i, arg := range slices.Backward(argv) {
			name, value, joined := strings.Cut(arg, "=")
			switch {
			case !slices.Contains(flags, name):
			case joined:
				return value
			case i+1 < len(argv):
				return argv[i+1]
			}
		}
	}
	return ""
}

// contextOf is how many tokens of context a model's file asks for, by ctx_size or by its arguments, which go before; 0 = as its file has it.
func contextOf(m *modeldir.Model) int {
	if n, err := strconv.Atoi(argumentOf(m, "-c", "--ctx-size")); err == nil {
		return max(n, 0)
	}
	return m.CtxSize
}

// tools reports whether the model's way to write a chat has a place for tools.
func (f *facts) tools() bool { return strings.Contains(f.template, "tools") }
