package memory

import (
	"fmt"
	"slices"
	"strings"

	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

// The ways to spread a model over devices.
const (
	SplitNone  = "none"
	SplitLayer = "layer"
	SplitRow   = "row"
)

// Wanted is what the model file says about devices, and what the caller has to add.
type Wanted struct {
	Layers      *int      // n_gpu_layers; nil or negative = as many as there is room for
	Devices     []string  // names or ids; nil = any; "none" alone = none
	SplitMode   string    // "" = layer
	TensorSplit []float64 // shares, in the order of the devices
	MainGPU     *int      // index among the devices

	// LlamaServer says that only devices llama-server offers will do.
	LlamaServer bool

	// AtLeast is how many layers must be on devices, where their number is not given: a caller that can make room asks with what
	// fits in an empty machine first ([Best]), and takes less only when it cannot. 0 = any number.
	AtLeast int

	// Host is all memory the host has, in bytes: weights that are mapped and exceed it are not refused, as the rest of them can page.
	// 0 = unknown.
	Host int64
}

// Want returns what the model's file says.
func Want(m *modeldir.Model, host int64) Wanted {
	w := Wanted{
		Layers: m.NGPULayers, Devices: m.Devices, SplitMode: m.SplitMode, TensorSplit: m.TensorSplit, MainGPU: m.MainGPU,
		LlamaServer: m.Engine != modeldir.EngineCommand, Host: host,
	}
	args := arguments(m.Args) // they come last on the command line, and win
	if n, ok := args.number("-ngl", "--gpu-layers", "--n-gpu-layers"); ok {
		w.Layers = &n
	}
	if s, ok := args.value("-dev", "--device"); ok {
		w.Devices = strings.Split(s, ",")
	}
	if s, ok := args.value("-sm", "--split-mode"); ok {
		w.SplitMode = s
	}
	return w
}

// Placement is where an instance goes.
type Placement struct {
	Amount  machine.Amount // to reserve
	Devices []int          // indices, in the order the engine is to have them; none = the host alone
	Layers  int            // on devices
	Counts  []int          // layers on each of Devices, in the model's order; nil with one device or split by rows
	Split   []float64      // for --tensor-split: the shares of Devices; nil with one device
}

// Place finds room for one instance, or reports that there is none now.
//
// free is what is free; what the host is to keep has been taken off by the caller. A margin is left on each device (see margin). loading are
// devices on which another instance loads: loads on one device are serial, as two that both see the same free memory
// both take it.
//
// In this order: all layers on the one device with the least free memory that has room; all layers on as few devices as
// possible; as many layers as there is room for, the rest on the host. The last is not done while a device loads: what
// would have fitted there later must not run half on the host for as long as it lives. With a fixed number of layers it is exactly those
// or nothing.
//
// It is a pure function and always gives the same answer to the same question.
func Place(n Need, w Wanted, free machine.Amount, devices []machine.Device, loading [machine.MaxDevices]bool) (Placement, bool) {
	if len(n.Fixed) > 0 {
		return placeFixed(n, w, free, devices, loading)
	}
	layers, exact := n.wantedLayers(w)
	if layers == 0 {
		return n.on(nil, 0, w, free, devices)
	}
	allowed, waiting := allowedDevices(w, devices, loading)
	if exact {
		return n.best(layers, allowed, w, free, devices)
	}
	least := max(0, min(w.AtLeast, layers))
	if waiting {
		least = layers
	}
	for l := layers; l >= least; l-- {
		if p, ok := n.best(l, allowed, w, free, devices); ok {
			return p, true
		}
	}
	return Placement{}, false
}

// Best places the model in a machine that is empty: the most that can be hoped for.
func Best(n Need, w Wanted, capacity machine.Amount, devices []machine.Device) (Placement, bool) {
	w.AtLeast = 0
	return Place(n, w, capacity, devices, [machine.MaxDevices]bool{})
}

// wantedLayers returns how many layers are to go to devices, and whether it must be exactly so many.
func (n *Need) wantedLayers(w Wanted) (layers int, exact bool) {
	all := n.Layers()
	if len(w.Devices) == 1 && w.Devices[0] == SplitNone {
		return 0, true
	}
	if w.Layers != nil && *w.Layers >= 0 {
		return min(*w.Layers, all), true
	}
	return all, false
}

// allowedDevices returns the indices of the devices that may be used now, and whether another is only waiting for a load to end.
func allowedDevices(w Wanted, devices []machine.Device, loading [machine.MaxDevices]bool) (allowed []int, waiting bool) {
	for _, i := range w.inOrder(devices) {
		if i >= machine.MaxDevices || w.LlamaServer && !devices[i].Listed {
			continue
		}
		if loading[i] { //nolint:gosec // i is below MaxDevices
			waiting = true
			continue
		}
		allowed = append(allowed, i)
	}
	if w.SplitMode == SplitNone && w.MainGPU != nil { // it names one of the devices
		if *w.MainGPU < 0 || *w.MainGPU >= len(allowed) || waiting {
			return nil, waiting
		}
		allowed = allowed[*w.MainGPU : *w.MainGPU+1]
	}
	return allowed, waiting
}

// inOrder returns the indices of the devices the model file names, in its order, or of all.
func (w Wanted) inOrder(devices []machine.Device) []int {
	var order []int
	if len(w.Devices) == 0 {
		for i := range devices {
			order = append(order, i)
		}
	}
	for _, name := range w.Devices {
		i := slices.IndexFunc(devices, func(d machine.Device) bool { return d.Answers(name) })
		if i >= 0 && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}

// best places so many layers, on one device or else on as few as possible.
func (n *Need) best(layers int, allowed []int, w Wanted, free machine.Amount, devices []machine.Device) (Placement, bool) {
	if layers == 0 {
		return n.on(nil, 0, w, free, devices)
	}
	room := func(i int) int64 { return usable(i, free, devices) }
	byRoom := slices.Clone(allowed)
	slices.SortStableFunc(byRoom, func(a, b int) int {
		switch ra, rb := room(a), room(b); {
		case ra < rb:
			return -1
		case ra > rb:
			return 1
		}
		return a - b
	})
	if len(w.TensorSplit) == 0 || w.SplitMode == SplitNone {
		for _, i := range byRoom {
			if p, ok := n.on([]int{i}, layers, w, free, devices); ok {
				return p, true
			}
		}
	}
	if w.SplitMode == SplitNone {
		return Placement{}, false
	}
	if len(w.TensorSplit) > 0 { // shares are given for all the devices: use all
		return n.on(allowed, layers, w, free, devices)
	}
	for k := 2; k <= len(byRoom); k++ {
		roomiest := byRoom[len(byRoom)-k:]
		var chosen []int
		for _, i := range allowed { // in the order the engine is to have them
			if slices.Contains(roomiest, i) {
				chosen = append(chosen, i)
			}
		}
		if p, ok := n.on(chosen, layers, w, free, devices); ok {
			return p, true
		}
	}
	return Placement{}, false
}

// usable is what may be put on a device.
func usable(i int, free machine.Amount, devices []machine.Device) int64 {
	if devices[i].Unified {
		return max(0, free.Host-margin(devices[i]))
	}
	return max(0, free.Device[i]-margin(devices[i]))
}

// on places layers on exactly those devices, if they have room.
func (n *Need) on(chosen []int, layers int, w Wanted, free machine.Amount, devices []machine.Device) (Placement, bool) {
	p := Placement{Devices: chosen, Layers: layers}
	var shares []int64
	switch {
	case len(chosen) == 0 && layers > 0:
		return p, false
	case len(chosen) == 1:
		shares = []int64{sum(n.offloaded(layers)) + n.DeviceCompute}
	case len(chosen) > 1:
		if shares = n.share(&p, w, free, devices); shares == nil {
			return p, false
		}
	}
	for k, i := range chosen {
		if shares[k] > usable(i, free, devices) {
			return p, false
		}
		if devices[i].Unified {
			p.Amount.Host += shares[k]
		} else {
			p.Amount.Device[i] += shares[k]
		}
	}
	return n.onHost(p, w, free, devices)
}

// onHost adds what stays on the host.
func (n *Need) onHost(p Placement, w Wanted, free machine.Amount, devices []machine.Device) (Placement, bool) {
	hard, soft := n.Host(p.Layers)
	hard += p.Amount.Host // on unified devices
	room := free.Host
	if slices.ContainsFunc(p.Devices, func(i int) bool { return devices[i].Unified }) {
		room -= margin(devices[p.Devices[0]])
	}
	switch {
	case hard+soft <= max(0, room):
		p.Amount.Host = hard + soft
	case w.Host > 0 && hard+soft > w.Host && hard <= room:
		p.Amount.Host = room // the weights exceed the machine: the rest of them pages
	default:
		return p, false
	}
	return p, true
}

// share divides the layers among several devices: by the model file's shares, else by what is free. It sets the counts and the shares
// to tell the engine; nil if there is no way.
func (n *Need) share(p *Placement, w Wanted, free machine.Amount, devices []machine.Device) []int64 {
	layers := n.offloaded(p.Layers)
	weights := w.TensorSplit
	if len(weights) == 0 {
		for _, i := range p.Devices {
			weights = append(weights, float64(usable(i, free, devices)))
		}
	}
	weights = slices.Concat(weights, make([]float64, len(p.Devices)))[:len(p.Devices)]
	if w.SplitMode != "" && w.SplitMode != SplitLayer {
		return n.shareRows(p, w, layers, weights)
	}
	if p.Counts = byWeight(len(layers), weights); len(w.TensorSplit) == 0 && !n.countsFit(p, layers, free, devices) {
		if p.Counts = n.fill(p.Devices, layers, free, devices); p.Counts == nil {
			return nil
		}
	}
	shares := make([]int64, len(p.Devices))
	p.Split = make([]float64, len(p.Devices))
	first := 0
	for k, count := range p.Counts {
		shares[k] = sum(layers[first:first+count]) + n.DeviceCompute
		p.Split[k] = float64(count)
		first += count
	}
	if len(w.TensorSplit) > 0 {
		p.Split = weights
	}
	return shares
}

// shareRows splits each layer's weights; the context is on the main device (llama.cpp, --main-gpu).
func (n *Need) shareRows(p *Placement, w Wanted, layers []Block, weights []float64) []int64 {
	var size, context int64
	for _, b := range layers {
		size, context = size+b.Weights, context+b.Context
	}
	total := 0.0
	for _, x := range weights {
		total += x
	}
	if total <= 0 {
		return nil
	}
	shares := make([]int64, len(weights))
	for k, x := range weights {
		shares[k] = int64(float64(size)*x/total) + 1 + n.DeviceCompute
	}
	main := 0
	if w.MainGPU != nil {
		main = *w.MainGPU
	}
	if main < 0 || main >= len(shares) {
		return nil
	}
	shares[main] += context
	p.Split = weights
	return shares
}

// byWeight gives each device its share of n layers as llama.cpp does: layer j goes to the first device whose
// cumulated share exceeds j/n.
func byWeight(n int, weights []float64) []int {
	counts := make([]int, len(weights))
	total := 0.0
	for _, x := range weights {
		total += x
	}
	if total <= 0 {
		counts[0] = n
		return counts
	}
	for j := range n {
		cumulated := 0.0
		for k, x := range weights {
			cumulated += x
			if cumulated/total > float64(j)/float64(n) || k == len(weights)-1 {
				counts[k]++
				break
			}
		}
	}
	return counts
}

func (n *Need) countsFit(p *Placement, layers []Block, free machine.Amount, devices []machine.Device) bool {
	first := 0
	for k, count := range p.Counts {
		if count == 0 || sum(layers[first:first+count])+n.DeviceCompute > usable(p.Devices[k], free, devices) {
			return false
		}
		first += count
	}
	return true
}

// fill puts as many layers on each device as it holds, one device after the other; nil if some are left.
func (n *Need) fill(chosen []int, layers []Block, free machine.Amount, devices []machine.Device) []int {
	counts := make([]int, len(chosen))
	next := 0
	for k, i := range chosen {
		room := usable(i, free, devices) - n.DeviceCompute
		for next < len(layers) && layers[next].bytes() <= room {
			room -= layers[next].bytes()
			next++
			counts[k]++
		}
		if counts[k] == 0 && next < len(layers) {
			return nil // a device that takes nothing: fewer devices were tried before
		}
	}
	if next < len(layers) || slices.Contains(counts, 0) {
		return nil
	}
	return counts
}

// placeFixed places an engine that chooses its devices by itself.
func placeFixed(n Need, w Wanted, free machine.Amount, devices []machine.Device, loading [machine.MaxDevices]bool) (Placement, bool) {
	var p Placement
	for _, s := range n.Fixed {
		i := slices.IndexFunc(devices, func(d machine.Device) bool { return d.Answers(s.Device) })
		if i < 0 || i >= machine.MaxDevices || loading[i] {
			return p, false
		}
		if devices[i].Unified {
			p.Amount.Host += s.Bytes
		} else {
			p.Amount.Device[i] += s.Bytes
		}
		if p.Amount.Device[i] > usable(i, free, devices) {
			return p, false
		}
		p.Devices = append(p.Devices, i)
	}
	slices.Sort(p.Devices)
	p.Devices = slices.Compact(p.Devices)
	return n.onHost(p, w, free, devices)
}

// NeverFits tells why the model can never run here, in numbers, or returns nil. capacity is all the machine has, less what the caller keeps.
func NeverFits(n Need, w Wanted, capacity machine.Amount, devices []machine.Device) error {
	for _, name := range w.Devices {
		known := slices.ContainsFunc(devices, func(d machine.Device) bool { return d.Answers(name) && (d.Listed || !w.LlamaServer) })
		if name != SplitNone && !known {
			return fmt.Errorf("this machine has no device %q: it has %s", name, deviceNames(w, devices))
		}
	}
	if _, ok := Best(n, w, capacity, devices); ok {
		return nil
	}
	has := []string{machine.GiB(capacity.Host) + " of memory"}
	for i, d := range devices {
		if i < machine.MaxDevices && !d.Unified && (d.Listed || !w.LlamaServer) {
			has = append(has, d.Name+" "+machine.GiB(capacity.Device[i]))
		}
	}
	return fmt.Errorf("needs %s (%s) but this machine has %s; lower ctx_size, use a smaller quantisation, or set memory", machine.GiB(n.all()), n.parts(), strings.Join(has, " and "))
}

func (n *Need) parts() string {
	if len(n.Blocks) == 0 {
		return string(n.Source)
	}
	return fmt.Sprintf("weights %s, context %s, buffers %s", machine.GiB(n.Weights()), machine.GiB(n.KV()), machine.GiB(n.Compute+n.Process))
}

func deviceNames(w Wanted, devices []machine.Device) string {
	var names []string
	for _, d := range devices {
		if d.Listed || !w.LlamaServer {
			names = append(names, d.Name)
		}
	}
	if len(names) == 0 {
		return "none that the engine can use"
	}
	return strings.Join(names, ", ")
}
