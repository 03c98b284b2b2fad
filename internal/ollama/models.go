package ollama

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// Model is what is known of one.
type Model struct {
	Name          string // the catalog's
	Modified      time.Time
	Size          int64  // of its files, in bytes
	Digest        string // 64 hexadecimal digits that tell one from another
	Format        string // such as gguf
	Family        string // such as qwen2, GGUF's general.architecture
	Families      []string
	ParameterSize string   // such as 494M
	Quantization  string   // such as Q4_K_M
	ContextLength int      // tokens, 0 = not known
	Template      string   // of its prompts
	Parameters    []string // as the lines of a Modelfile have them, such as "temperature 0.7"
	Capabilities  []string // of completion, tools, insert, vision, embedding, thinking, audio

	// Details are the file's metadata, by their names in GGUF.
	Details map[string]any
}

// Running is a model that is loaded, or being loaded. Its ContextLength is what it was started with.
type Running struct {
	Model
	ExpiresAt     time.Time // when it stops if nobody uses it
	SizeVRAM      int64     // of Size, on GPUs, in bytes
	ContextLength int       // tokens
}

type details struct {
	Parent        string   `json:"parent_model"`
	Format        string   `json:"format"`
	Family        string   `json:"family"`
	Families      []string `json:"families"`
	ParameterSize string   `json:"parameter_size"`
	Quantization  string   `json:"quantization_level"`
	ContextLength int      `json:"context_length,omitempty"`
}

func (m *Model) details() details {
	families := m.Families
	if families == nil && m.Family != "" {
		families = []string{m.Family}
	}
	return details{"", m.Format, m.Family, families, m.ParameterSize, m.Quantization, m.ContextLength}
}

// tagged is a name as Ollama lists it, where each has a tag.
func tagged(name string) string {
	if strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		return name
	}
	return name + latest
}

type listed struct {
	Name         string    `json:"name"`
	Model        string    `json:"model"` // the same
	Modified     time.Time `json:"modified_at"`
	Size         int64     `json:"size"`
	Digest       string    `json:"digest"`
	Details      details   `json:"details"`
	Capabilities []string  `json:"capabilities,omitempty"`
}

// Tags is the answer to GET /api/tags.
func Tags(models []Model) []byte {
	list := make([]listed, 0, len(models))
	for _, m := range models {
		name := tagged(m.Name)
		list = append(list, listed{name, name, m.Modified, m.Size, m.Digest, m.details(), m.Capabilities})
	}
	return ofModels(list)
}

func ofModels[T any](list []T) []byte {
	return openai.Marshal(struct {
		Models []T `json:"models"`
	}{list})
}

type process struct {
	Name          string    `json:"name"`
	Model         string    `json:"model"` // the same
	Size          int64     `json:"size"`
	Digest        string    `json:"digest"`
	Details       details   `json:"details"`
	ExpiresAt     time.Time `json:"expires_at"`
	SizeVRAM      int64     `json:"size_vram"`
	ContextLength int       `json:"context_length"`
}

// PS is the answer to GET /api/ps. The model that stays longest comes first.
func PS(models []Running) []byte {
	list := make([]process, 0, len(models))
	for _, m := range models {
		name := tagged(m.Name)
		list = append(list, process{name, name, m.Size, m.Digest, m.details(), m.ExpiresAt, m.SizeVRAM, m.ContextLength})
	}
	slices.SortStableFunc(list, func(a, b process) int {
		return cmp.Or(b.ExpiresAt.Compare(a.ExpiresAt), strings.Compare(a.Name, b.Name))
	})
	return ofModels(list)
}

// Version is the answer to GET /api/version. Clients compare it with the one that they need, as 0.6.4.
func Version(version string) []byte {
	return openai.Marshal(struct {
		Version string `json:"version"`
	}{version})
}

// ReadShow reads the body of POST /api/show: the model's name, which older clients call name, as the catalog has it, and whether long lists
// of its metadata are wanted. Errors are as those of [Chat].
func ReadShow(body []byte) (name string, verbose bool, err error) {
	req, err := dialect.ReadRequest(body)
	if err != nil {
		return "", false, err
	}
	for _, field := range []string{"model", "name"} {
		if name, err = req.Text(field); err != nil {
			return "", false, err
		}
		if name != "" {
			verbose, err = req.Flag("verbose")
			return Name(name), verbose, err
		}
	}
	return "", false, openai.ModelRequired()
}

type shown struct {
	Modelfile    string         `json:"modelfile"`
	Parameters   string         `json:"parameters,omitempty"`
	Template     string         `json:"template,omitempty"`
	Details      details        `json:"details"`
	Info         map[string]any `json:"model_info"`
	Capabilities []string       `json:"capabilities,omitempty"`
	Modified     time.Time      `json:"modified_at"`
}

// Show is the answer to POST /api/show. Unless it is to be verbose, lists of more than five, as the vocabulary, are empty.
func Show(m Model, verbose bool) []byte {
	var lines []string
	for _, p := range m.Parameters {
		name, value, _ := strings.Cut(p, " ")
		lines = append(lines, fmt.Sprintf("%-30s %s", name, strings.TrimSpace(value)))
	}
	return openai.Marshal(shown{
		Modelfile: m.modelfile(), Parameters: strings.Join(lines, "\n"), Template: m.Template, Details: m.details(),
		Info: m.info(verbose), Capabilities: m.Capabilities, Modified: m.Modified,
	})
}

// modelfile is what Ollama would have made the model of.
func (m *Model) modelfile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of what is known of the model, to be read: it can't be changed here.\nFROM %s\n", m.Name)
	for _, p := range m.Parameters {
		fmt.Fprintf(&b, "PARAMETER %s\n", p)
	}
	if m.Template != "" {
		fmt.Fprintf(&b, "TEMPLATE \"\"\"%s\"\"\"\n", m.Template)
	}
	return b.String()
}

// info is the metadata, and what clients look for there: by general.architecture they find the context's length, and general.basename is
// what they show.
func (m *Model) info(verbose bool) map[string]any {
	info := map[string]any{"general.basename": m.Name}
	if m.Family != "" {
		info["general.architecture"] = m.Family
		if m.ContextLength > 0 {
			info[m.Family+".context_length"] = m.ContextLength
		}
	}
	maps.Copy(info, m.Details)
	for name, value := range info {
		if list := reflect.ValueOf(value); !verbose && list.Kind() == reflect.Slice && list.Len() > 5 {
			info[name] = []any{}
		}
	}
	return info
}
