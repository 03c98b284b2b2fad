package caddymodule

import (
	"context"
	"fmt"
	"path/filepath"

	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// Diagnosis is what doctor finds: what is installed, what each model would run, and what is missing.
type Diagnosis struct {
	Machine  MachineFinding   `json:"machine"`
	Programs []ProgramFinding `json:"programs"`
	Models   []ModelFinding   `json:"models"`
	Faults   []FaultFinding   `json:"faults"`
}

// MachineFinding is what there is to share out, in bytes.
type MachineFinding struct {
	Memory    int64           `json:"memory"` // the lesser of the machine's and our control group's
	Available int64           `json:"available"`
	Devices   []DeviceFinding `json:"devices"`
	Error     string          `json:"error,omitempty"`
}

// DeviceFinding is an accelerator.
type DeviceFinding struct {
	Name    string `json:"name"`
	ID      string `json:"id,omitempty"`
	Total   int64  `json:"total"`
	Free    int64  `json:"free"`
	Unified bool   `json:"unified,omitempty"` // its memory is the host's
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
	Memory  string   `json:"memory,omitempty"` // what it is expected to need, and where that is known from
}

// FaultFinding is a file that could not be taken.
type FaultFinding struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// examine looks at this machine with the eyes of a catalog. It starts no engine, only asks programs for their version.
func examine(catalog *modeldir.Catalog) Diagnosis {
	d := Diagnosis{Programs: append([]ProgramFinding{llamaServerFinding()}, wasmEdgeFindings()...), Models: []ModelFinding{}, Faults: []FaultFinding{}}
	ctx, cancel := context.WithTimeout(context.Background(), surveyWithin)
	defer cancel()
	sample, err := look(ctx)
	d.Machine = machineFinding(sample, err)
	for i, m := range catalog.Models() {
		f := modelFinding(m)
		if i < mostEstimated && !toBeBrought(m) && f.Missing == "" && err == nil {
			f.estimate(ctx, m, sample)
		}
		d.Models = append(d.Models, f)
	}
	for _, f := range catalog.Faults() {
		d.Faults = append(d.Faults, FaultFinding{File: f.File, Error: f.Err.Error()})
	}
	return d
}

// mostEstimated is for how many models doctor reads the file: each takes milliseconds.
const mostEstimated = 200

func look(ctx context.Context) (machine.Sample, error) {
	program, _ := engine.LlamaServerPath() // without one there are no devices of its to ask for
	return machine.Look(ctx, machine.Options{LlamaServer: program})
}

func machineFinding(s machine.Sample, err error) MachineFinding {
	f := MachineFinding{Memory: s.Host.Total, Available: s.Host.Available, Devices: []DeviceFinding{}}
	for _, d := range s.Devices {
		f.Devices = append(f.Devices, DeviceFinding{Name: d.Name, ID: d.ID, Total: d.Total, Free: d.Free, Unified: d.Unified})
	}
	if err != nil {
		f.Error = err.Error()
	}
	return f
}

// estimate tells what the model needs, and whether that is ever to be had here.
func (f *ModelFinding) estimate(ctx context.Context, m *modeldir.Model, s machine.Sample) {
	program, _ := engine.LlamaServerPath()
	need, err := memory.Estimate(ctx, m, memory.Here{Host: s.Host, Devices: s.Devices, LlamaServer: program})
	if err != nil || need.Source == memory.Unknown {
		return
	}
	want, capacity := memory.Want(m, s.Host.Total), s.Capacity()
	if err := memory.NeverFits(need, want, capacity, s.Devices); err != nil {
		f.Missing = "it does not fit this machine: " + err.Error()
		return
	}
	if best, ok := memory.Best(need, want, capacity, s.Devices); ok {
		f.Memory = fmt.Sprintf("%s (%s)", best.Amount.Text(s.Devices), need.Source)
	}
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
	f.Path, f.Version = path, engine.Version(path)
	return f
}

// wasmEdgeFindings are the parts of an engine in WasmEdge, up to the first that is missing.
func wasmEdgeFindings() []ProgramFinding {
	parts, err := engine.FindWasmParts(nil)
	var findings []ProgramFinding
	for _, part := range []struct{ name, path string }{
		{modeldir.EngineWasmEdge, parts.Program}, {"its plug-in", parts.Plugin}, {"its wasm", parts.Wasm},
	} {
		f := ProgramFinding{Engine: part.name, Path: part.path}
		switch {
		case part.path == "" && err != nil:
			f.Missing = err.Error()
			return append(findings, f)
		case part.name == modeldir.EngineWasmEdge:
			f.Version = engine.Version(part.path)
		case part.path == "":
			f.Path = "(the guest that comes with the assistant)"
		}
		findings = append(findings, f)
	}
	return findings
}

func modelFinding(m *modeldir.Model) ModelFinding {
	kind, why := engine.Choose(m)
	f := ModelFinding{Model: m.Key, Engine: kind.Name, Why: why}
	if toBeBrought(m) {
		f.Note = "brought from " + m.ModelSource + " by its first request"
		if err := check(m); err != nil {
			f.Missing = err.Error()
		}
		return f
	}
	plan, err := kind.Prepare(m, examplePlace(kind, m))
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
