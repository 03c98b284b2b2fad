package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"assistant/internal/hub"
	"assistant/internal/movein"
	"assistant/internal/wholefile"
	"assistant/modeldir"
)

// pull begins to bring a model, for which a model file is written when it is here. name is what it is to be called; "" = as its source
// suggests.
func (rt *runtime) pull(src, name string) (hub.Status, error) {
	m, err := rt.downloads()
	if err != nil {
		return hub.Status{}, err
	}
	if name == "" {
		return m.Start(src, hub.StartOptions{As: suggested})
	}
	if _, err := fileOf(name); err != nil {
		return hub.Status{}, nameError{err}
	}
	if known := rt.named(name); known != nil { // told before gigabytes come, where it can be; what src leaves open is not known yet
		installed, _ := m.Installed(src)
		if !publishedAt(known, inFull(src), installed.Source, installed.Resolved) {
			return hub.Status{}, nameError{nameTaken(known, name)}
		}
	}
	return m.Start(src, hub.StartOptions{As: name})
}

var errNotInForce = errors.New("no configuration is in force yet")

// downloads is what brings models.
func (rt *runtime) downloads() (*hub.Manager, error) {
	if m := rt.hub.Load(); m != nil {
		return m, nil
	}
	return nil, errNotInForce
}

// nameError is one of what a model is to be called, rather than of its source.
type nameError struct{ error }

// suggested stands for the name that a source suggests.
const suggested = "*"

// named is the model that has the very name; nil if none has.
func (rt *runtime) named(name string) *modeldir.Model {
	c := rt.catalog.Load()
	if !c.Has(name) {
		return nil
	}
	m, _ := c.Resolve(name, modeldir.Chat)
	return m
}

func nameTaken(by *modeldir.Model, name string) error {
	return fmt.Errorf("the name %q is taken by %s: choose another", name, by.File)
}

// installed writes the model files of a model that has come, and puts it in force.
func (rt *runtime) installed(m hub.Model, as []string) error {
	for _, name := range as {
		if name == suggested {
			name = rt.freeName(m)
		}
		if err := rt.writeModelFile(m, name); err != nil {
			return err
		}
	}
	if len(as) > 0 {
		rt.reread()
	}
	rt.republish()
	return nil
}

// freeName is the name that the source suggests, made another where a model of another source has it.
func (rt *runtime) freeName(m hub.Model) string {
	name := m.Name
	for i := 2; ; i++ {
		known := rt.named(name)
		if known == nil || publishedAt(known, m.Source, m.Resolved) {
			return name
		}
		name = fmt.Sprintf("%s-%d", m.Name, i)
	}
}

// writeModelFile writes the file of a model that was brought here, unless there is one that names the same source.
func (rt *runtime) writeModelFile(m hub.Model, name string) error {
	app := rt.inForce()
	if app == nil {
		return errors.New("no configuration is in force any more")
	}
	rt.editing.Lock()
	defer rt.editing.Unlock()
	if known := rt.named(name); known != nil {
		if publishedAt(known, m.Source, m.Resolved) {
			return nil
		}
		return nameTaken(known, name)
	}
	file, err := fileOf(name)
	if err != nil {
		return err
	}
	path := filepath.Join(app.ConfigDir, file)
	entry, err := movein.Describe(m.Path(), m.Projector())
	if err != nil {
		return err
	}
	entry.Name, entry.ModelPath, entry.ModelSource, entry.Args = name, "", m.Resolved, nil // the projector comes with the source
	if m.Licence != "" {
		entry.Comments = append(entry.Comments, "Licence: "+m.Licence)
	}
	text := movein.Render(entry)
	if _, err := modeldir.ParseModel(path, text); err != nil {
		return fmt.Errorf("write a model file: %w", err)
	}
	err = wholefile.Create(path, text)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: choose another name, or remove it first", path)
	}
	return err
}

// fileOf is the name of the file for a model of that name: what file systems do not take is replaced.
func fileOf(name string) (string, error) {
	if err := modeldir.CheckName(name); err != nil {
		return "", err
	}
	safe := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r == '*' || r == '?' || r == '"' || r == '<' || r == '>' || r == '|' {
			return '-'
		}
		return r
	}, name)
	safe = strings.TrimLeft(safe, ".")
	if safe == "" {
		return "", fmt.Errorf("the name %q has nothing in it that a file can be named by: choose another", name)
	}
	return safe + ".toml", nil
}
