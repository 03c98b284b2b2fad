package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"assistant/internal/movein"
	"assistant/internal/wholefile"
	"assistant/modeldir"
)

// mover is what scan and import share: where the model files go.
type mover struct {
	*client
	configDir string
	dry       bool
}

func (m *mover) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&m.configDir, "config-dir", "", "Where model files are written; by default what the Caddyfile in this folder says, else ./models")
	cmd.Flags().BoolVar(&m.dry, "dry-run", false, "Only tell what would be written")
	return cmd
}

func (c *client) scanCommand() *cobra.Command {
	m := &mover{client: c}
	cmd := m.flags(c.sub("scan [DIR…]", "Write model files for GGUF files that lie here", cobra.ArbitraryArgs, m.scan))
	cmd.Long = `Finds GGUF files in directories, by default in the stores of the Hugging Face cache, LM Studio and Ollama, and writes a model file for
each, with its kind, context, projector and what else its header tells. The files are used where they lie. Models that a model file of the
directory serves already are passed over, and nothing is overwritten: to run it again changes nothing.`
	return cmd
}

func (c *client) importCommand() *cobra.Command {
	m := &mover{client: c}
	cmd := m.flags(c.sub("import FILE", "Translate a configuration of llama-swap to model files", cobra.ExactArgs(1), m.translate))
	cmd.Long = `Writes a model file for each model of a config.yaml of llama-swap, prints its peers as remote_servers of a config.toml, and lists what it
could not translate, with the line it stands in and what to do about it.`
	return cmd
}

// written is what became of a model.
type written struct {
	Name   string `json:"name"`
	File   string `json:"file,omitempty"` // "" = none was written
	Why    string `json:"why,omitempty"`  // it was not
	Kind   string `json:"kind"`
	Source string `json:"model,omitempty"` // where the model lies

	Size         int64  `json:"size,omitempty"`       // bytes
	Parameters   int64  `json:"parameters,omitempty"` // 0 = not known
	Quantization string `json:"quantization,omitempty"`
	CtxSize      int    `json:"ctx_size,omitempty"`
}

// scanned is what scan tells.
type scanned struct {
	Models  []written        `json:"models"`
	Skipped []movein.Skipped `json:"skipped"`
}

func (m *mover) scan(w io.Writer, dirs []string) error {
	catalog, err := m.catalog()
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		home, _ := os.UserHomeDir()
		dirs = movein.Stores(os.Getenv, home)
		if len(dirs) == 0 {
			return errors.New("there is no store of the Hugging Face cache, LM Studio or Ollama here: name directories to scan")
		}
	}
	found, skipped := movein.Scan(dirs, func(name string) bool { return catalog.Has(name) && !served(catalog, name) })
	result := scanned{Models: []written{}, Skipped: append([]movein.Skipped{}, skipped...)}
	for _, f := range found {
		row := written{
			Name: f.Name, Kind: first(f.Kind, string(modeldir.Chat)), Source: f.ModelPath, Size: f.Size, Parameters: f.Parameters,
			Quantization: f.Quantization, CtxSize: f.CtxSize,
		}
		if by := servedBy(catalog, f.ModelPath); by != nil {
			row.Name, row.Why = by.Name, "served already by "+by.File
		} else {
			row.File, row.Why = m.write(f.Entry)
		}
		result.Models = append(result.Models, row)
	}
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return m.print(w, append(b, '\n'), &result, result.show)
}

// served reports whether the model of that name is one that scan would find again.
func served(catalog *modeldir.Catalog, name string) bool {
	m, _ := catalog.Resolve(name, modeldir.Chat)
	return m.ModelPath != "" && exists(m.ModelPath)
}

// servedBy is the model whose file that is; nil if none has it.
func servedBy(catalog *modeldir.Catalog, path string) *modeldir.Model {
	here, err := os.Stat(path)
	if err != nil {
		return nil
	}
	for _, m := range catalog.Models() {
		if info, err := os.Stat(m.ModelPath); err == nil && os.SameFile(info, here) {
			return m
		}
	}
	return nil
}

func (s scanned) show(w io.Writer) {
	fmt.Fprintln(w, "NAME\tKIND\tPARAMETERS\tQUANT\tCONTEXT\tSIZE\tFILE")
	for _, m := range s.Models {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.Name, m.Kind, sizeLabel(m.Parameters), m.Quantization, m.CtxSize, sizeOf(m.Size), first(m.File, m.Why))
	}
	for _, skipped := range s.Skipped {
		fmt.Fprintf(w, "skipped\t%s\t%s\n", skipped.Path, firstLine(skipped.Why))
	}
}

// imported is what import tells.
type imported struct {
	Models  []written     `json:"models"`
	Remotes string        `json:"remote_servers,omitempty"` // in TOML
	Notes   []movein.Note `json:"notes"`
}

func (m *mover) translate(w io.Writer, args []string) error {
	path, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	got, err := movein.ImportLlamaSwap(f, filepath.Dir(path), os.Getenv)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	result := imported{Models: []written{}, Notes: append([]movein.Note{}, got.Notes...)}
	for _, e := range got.Entries {
		row := written{Name: e.Name, Kind: first(e.Kind, string(modeldir.Chat)), Source: first(e.ModelPath, e.ModelSource), CtxSize: e.CtxSize}
		row.File, row.Why = m.write(e)
		result.Models = append(result.Models, row)
	}
	for _, r := range got.Remotes {
		result.Remotes += r.Render()
	}
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return m.print(w, append(b, '\n'), &result, result.show)
}

func (i imported) show(w io.Writer) {
	fmt.Fprintln(w, "NAME\tKIND\tFILE")
	for _, m := range i.Models {
		fmt.Fprintf(w, "%s\t%s\t%s\n", m.Name, m.Kind, first(m.File, m.Why))
	}
	if i.Remotes != "" {
		fmt.Fprintf(w, "\nFor the config.toml of the server:\n\n%s\n", i.Remotes)
	}
	if len(i.Notes) > 0 {
		fmt.Fprintln(w, "\nLINE\tKEY\tNOT TRANSLATED")
	}
	for _, n := range i.Notes {
		line := ""
		if n.Line > 0 {
			line = fmt.Sprint(n.Line)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", line, n.Key, n.Text)
	}
}

// write writes the model file of an entry, unless there is one of that name. It returns its path, or why there is none.
func (m *mover) write(e movein.Entry) (path, why string) {
	dir, err := m.dir()
	if err != nil {
		return "", err.Error()
	}
	name, err := fileOf(e.Name)
	if err != nil {
		return "", err.Error()
	}
	path = filepath.Join(dir, name)
	text := movein.Render(e)
	if _, err := modeldir.ParseModel(path, text); err != nil {
		return "", "it would be no good: " + err.Error()
	}
	if m.dry {
		if exists(path) {
			return "", path + " is there already"
		}
		return path, ""
	}
	err = wholefile.Create(path, text)
	if errors.Is(err, fs.ErrExist) {
		return "", path + " is there already"
	}
	if err != nil {
		return "", err.Error()
	}
	return path, ""
}

// catalog is what the directory has already.
func (m *mover) catalog() (*modeldir.Catalog, error) {
	dir, err := m.dir()
	if err != nil {
		return nil, err
	}
	if !exists(dir) {
		return modeldir.NewCatalog(nil), nil
	}
	return modeldir.LoadDir(dir)
}

// dir is --config-dir, else what the Caddyfile of this folder says, else ./models.
func (m *mover) dir() (string, error) {
	if m.configDir == "" {
		var config struct {
			Apps struct {
				Assistant App `json:"assistant"`
			} `json:"apps"`
		}
		if err := readCaddyfile(&config); err != nil {
			return "", fmt.Errorf("find config_dir in the Caddyfile of this folder (or give --config-dir): %w", err)
		}
		m.configDir = first(config.Apps.Assistant.ConfigDir, "models")
	}
	return filepath.Abs(m.configDir)
}
