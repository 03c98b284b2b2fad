package movein

import (
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxNote bounds what is read of a manifest, or of a part that is no weights, in bytes.
const maxNote = 4 << 20

// isOllama tells whether a directory is a store of Ollama's: manifests that name contents by their digests.
func isOllama(dir string) bool {
	for _, sub := range []string{"manifests", "blobs"} {
		if info, err := os.Stat(filepath.Join(dir, sub)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// lookOllama collects the models of a store of Ollama's.
func (s *scan) lookOllama(dir string) {
	root := filepath.Join(dir, "manifests")
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			s.skip(path, "%v", err)
			return fs.SkipDir
		}
		if rel, bad := filepath.Rel(root, path); bad == nil && d.Type().IsRegular() {
			s.lookManifest(dir, path, rel)
		}
		return nil
	})
}

// lookManifest collects the model of a manifest at HOST/NAMESPACE/NAME/TAG.
func (s *scan) lookManifest(store, path, rel string) {
	var m struct {
		Layers []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
		} `json:"layers"`
	}
	b, err := readNote(path)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		s.skip(path, "its manifest cannot be read: %v", err)
		return
	}
	c := candidate{name: ollamaName(filepath.ToSlash(rel))}
	for _, l := range m.Layers {
		blob := filepath.Join(store, "blobs", strings.ReplaceAll(filepath.Base(l.Digest), ":", "-"))
		switch l.MediaType {
		case "application/vnd.ollama.image.model":
			if c.path == "" {
				c.path = blob
			}
		case "application/vnd.ollama.image.projector":
			c.projector = blob
		case "application/vnd.ollama.image.system":
			c.system = strings.TrimSpace(note(blob))
		case "application/vnd.ollama.image.params":
			c.defaults = parametersOf(note(blob))
		case "application/vnd.ollama.image.license":
			c.licence, _, _ = strings.Cut(strings.TrimSpace(note(blob)), "\n")
		}
	}
	if c.path == "" {
		s.skip(path, "it names no weights of this machine's")
		return
	}
	s.collect(c)
}

// ollamaName is what Ollama calls a model: of its own library by name and tag alone.
func ollamaName(rel string) string {
	parts := strings.Split(rel, "/")
	if len(parts) < 2 {
		return rel
	}
	name, tag := strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
	name = strings.TrimPrefix(strings.TrimPrefix(name, "registry.ollama.ai/"), "library/")
	if tag == "latest" {
		return name
	}
	return name + ":" + tag
}

// parametersOf are Ollama's parameters in OpenAI's words, as far as these have any.
func parametersOf(text string) map[string]any {
	var params map[string]any
	if json.Unmarshal([]byte(text), &params) != nil {
		return nil
	}
	known := []string{"temperature", "top_p", "top_k", "min_p", "stop", "seed", "repeat_penalty", "presence_penalty", "frequency_penalty"}
	maps.DeleteFunc(params, func(name string, _ any) bool { return !slices.Contains(known, name) })
	return params
}

func readNote(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxNote))
}

func note(path string) string {
	b, err := readNote(path)
	if err != nil {
		return ""
	}
	return string(b)
}
