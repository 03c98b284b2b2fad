package caddymodule

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// Diagnosis is what doctor finds: what is installed, what each model would run, and what is missing.
type Diagnosis struct {
	Programs []ProgramFinding `json:"programs"`
	Models   []ModelFinding   `json:"models"`
	Faults   []FaultFinding   `json:"faults"`
}

// ProgramFinding is an engine's program that models use, or could.
type ProgramFinding struct {
	Engine  string `json:"engine"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	Missing string `json:"missing,omitempty"` // what to do about it
}

// ModelFinding is what a model would run.
type ModelFinding struct {
	Model   string   `json:"model"`
	Engine  string   `json:"engine"`
	Why     string   `json:"why,omitempty"` // why this engine, where that was left to us
	Argv    []string `json:"argv,omitempty"`
	Missing string   `json:"missing,omitempty"`
	Note    string   `json:"note,omitempty"`
}

// FaultFinding is a file that could not be taken.
type FaultFinding struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// examine looks at this machine with the eyes of a catalog. It starts no engine, only asks programs for their version.
func examine(catalog *modeldir.Catalog) Diagnosis {
	d := Diagnosis{Programs: []ProgramFinding{llamaServerFinding()}, Models: []ModelFinding{}, Faults: []FaultFinding{}}
	for _, m := range catalog.Models() {
		d.Models = append(d.Models, modelFinding(m))
	}
	for _, f := range catalog.Faults() {
		d.Faults = append(d.Faults, FaultFinding{File: f.File, Error: f.Err.Error()})
	}
	return d
}

// healthy reports whether nothing is missing.
func (d Diagnosis) healthy() bool {
	for _, m := range d.Models {
		if m.Missing != "" {
			return false
		}
	}
	return len(d.Faults) == 0
}

func llamaServerFinding() ProgramFinding {
	f := ProgramFinding{Engine: modeldir.EngineLlamaServer}
	path, err := engine.LlamaServerPath()
	if err != nil {
		f.Missing = err.Error()
		return f
	}
	f.Path, f.Version = path, programVersion(path)
	return f
}

// programVersion is the first line in which a program names its version.
func programVersion(path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "version") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func modelFinding(m *modeldir.Model) ModelFinding {
	f := ModelFinding{Model: m.Key, Engine: m.Engine}
	kind, err := engine.For(m)
	if err != nil {
		f.Missing = err.Error()
		return f
	}
	if m.Engine == modeldir.EngineAuto {
		f.Engine, f.Why = kind.Name, "auto: it runs GGUF files and is the only such engine in this build"
	}
	plan, err := kind.Plan(m, examplePlace(kind, m))
	if err != nil {
		f.Missing = err.Error()
		return f
	}
	f.Argv = plan.Argv
	if m.Identity == modeldir.IdentityNone {
		f.Note = "identity = \"none\": whatever listens at its address is taken for it"
	}
	return f
}

// examplePlace stands for the address that a start would choose.
func examplePlace(kind engine.Kind, m *modeldir.Model) engine.Place {
	place := engine.Place{Instance: "assistant-example", Port: m.Port}
	if m.Port == 0 && kind.Socket {
		place.Socket = filepath.Join("(chosen)", "1.sock")
	}
	return place
}
