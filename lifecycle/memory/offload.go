package memory

import (
	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// Offload is the placement as the engine is to be told it; nil if there is nothing to tell: the engine decides on devices
// by itself, or the machine has none and the context was asked for.
func (p Placement) Offload(m *modeldir.Model, n Need, w Wanted, devices []machine.Device) *engine.Offload {
	o := &engine.Offload{Layers: p.Layers, SplitMode: w.SplitMode, Split: p.Split, MainGPU: w.MainGPU, Context: n.Context}
	for _, i := range p.Devices {
		o.Devices = append(o.Devices, engine.OffloadDevice{Name: devices[i].Name, ID: devices[i].ID})
	}
	if m.Engine == modeldir.EngineCommand {
		if len(o.Devices) == 0 {
			return nil
		}
		return o
	}
	if n.Layers() == 0 { // the file could not be read: the engine will say what is wrong with it
		return nil
	}
	o.None = len(p.Devices) == 0 && len(devices) > 0
	return o
}
