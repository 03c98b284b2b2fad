package caddymodule

import (
	"os"
	"slices"
	"strings"
	"time"

	"assistant/lifecycle/gguf"
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

// learn reads what the files of models say, of those that changed since.
func (rt *runtime) learn(models []*modeldir.Model, known map[string]*facts) (news bool) {
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
		known[m.Key], news = readFacts(stamp, info.ModTime()), true
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
	for _, argv := range [][]string{m.Args, m.Command} {
		for i, arg := range argv {
			if i+1 < len(argv) && slices.Contains(projectors, arg) {
				return argv[i+1]
			}
		}
	}
	return ""
}

// tools reports whether the model's way to write a chat has a place for tools.
func (f *facts) tools() bool { return strings.Contains(f.template, "tools") }
