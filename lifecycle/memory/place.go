package memory

import (
	"cmp"
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
	s := search{Need: &n, w: w, free: free, devices: devices}
	layers, exact := n.wantedLayers(w)
	if layers == 0 {
		return s.onHost(Placement{})
	}
	s.reckon()
	waiting := s.allow(loading)
	if exact {
		return s.best(layers)
	}
	least := max(0, min(w.AtLeast, layers))
	if waiting {
		least = layers
	}
	for l := layers; l >= least; l-- {
		if p, ok := s.best(l); ok {
			return p, true
		}
	}
	return Placement{}, false
}

// search is a question, and what of it need be worked out only once.
type search struct {
	*Need
	w       Wanted
	free    machine.Amount
	devices []machine.Device

	after []int64 // bytes of the last so many layers

	allowed []int // devices, in the order the engine is to have them
	byRoom  []int // the same, the least free first
	room    int64 // what layers have room in, on all of them together
}

// reckon works out what the layers take.
func (s *search) reckon() {
	s.after = make([]int64, s.Layers()+1)
	s.after[1] = s.Output.bytes()
	for i := 2; i < len(s.after); i++ {
		s.after[i] = s.after[i-1] + s.Blocks[len(s.after)-1-i].bytes()
	}
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

// allow finds the devices that may be used now, and reports whether another is only waiting for a load to end.
func (s *search) allow(loading [machine.MaxDevices]bool) (waiting bool) {
	for _, i := range s.w.inOrder(s.devices) {
		if i >= machine.MaxDevices || s.w.LlamaServer && !s.devices[i].Listed {
			continue
		}
		if loading[i] { //nolint:gosec // i is below MaxDevices
			waiting = true
			continue
		}
		s.allowed = append(s.allowed, i)
	}
	if s.w.SplitMode == SplitNone && s.w.MainGPU != nil { // it names one of the devices
		if main := *s.w.MainGPU; waiting || main < 0 || main >= len(s.allowed) {
			s.allowed = nil
		} else {
			s.allowed = s.allowed[main : main+1]
		}
	}
	for _, i := range s.allowed {
		s.room += max(0, s.usable(i)-s.DeviceCompute)
	}
	s.byRoom = slices.Clone(s.allowed)
	slices.SortStableFunc(s.byRoom, func(a, b int) int {
		return cmp.Or(cmp.Compare(s.usable(a), s.usable(b)), cmp.Compare(a, b))
	})
	return waiting
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
func (s *search) best(layers int) (Placement, bool) {
	if layers == 0 {
		return s.on(nil, 0)
	}
	if s.after[layers] > s.room {
		return Placement{}, false
	}
	if len(s.w.TensorSplit) == 0 || s.w.SplitMode == SplitNone {
		for _, i := range s.byRoom {
			if s.after[layers] > s.usable(i)-s.DeviceCompute {
				continue
			}
			if p, ok := s.on([]int{i}, layers); ok {
				return p, true
			}
		}
	}
	if s.w.SplitMode == SplitNone {
		return Placement{}, false
	}
	if len(s.w.TensorSplit) > 0 { // shares are given for all the devices: use all
		return s.on(s.allowed, layers)
	}
	for k := 2; k <= len(s.byRoom); k++ {
		roomiest := s.byRoom[len(s.byRoom)-k:]
		var chosen []int
		for _, i := range s.allowed { // in the order the engine is to have them
			if slices.Contains(roomiest, i) {
				chosen = append(chosen, i)
			}
		}
		if p, ok := s.on(chosen, layers); ok {
			return p, true
		}
	}
	return Placement{}, false
}

// usable is what may be put on a device.
func (s *search) usable(i int) int64 { return usable(i, s.free, s.devices) }

func usable(i int, free machine.Amount, devices []machine.Device) int64 {
	if devices[i].Unified {
		return max(0, free.Host-margin(devices[i]))
	}
	return max(0, free.Device[i]-margin(devices[i]))
}

// on places layers on exactly those devices, if they have room.
func (s *search) on(chosen []int, layers int) (Placement, bool) {
	p := Placement{Devices: chosen, Layers: layers}
	var shares []int64
	switch {
	case len(chosen) == 0 && layers > 0:
		return p, false
	case len(chosen) == 1:
		shares = []int64{s.after[layers] + s.DeviceCompute}
	case len(chosen) > 1:
		if shares = s.share(&p); shares == nil {
			return p, false
		}
	}
	for k, i := range chosen {
		if shares[k] > s.usable(i) {
			return p, false
		}
		if s.devices[i].Unified {
			p.Amount.Host += shares[k]
		} else {
			p.Amount.Device[i] += shares[k]
		}
	}
	return s.onHost(p)
}

// onHost adds what stays on the host.
func (s *search) onHost(p Placement) (Placement, bool) {
	hard, soft := s.Host(p.Layers)
	hard += p.Amount.Host // on unified devices
	room := s.free.Host
	if slices.ContainsFunc(p.Devices, func(i int) bool { return s.devices[i].Unified }) {
		room -= margin(s.devices[p.Devices[0]])
	}
	switch {
	case hard+soft <= max(0, room):
		p.Amount.Host = hard + soft
	case s.w.Host > 0 && hard+soft > s.w.Host && hard <= room:
		p.Amount.Host = room // the weights exceed the machine: the rest of them pages
	default:
		return p, false
	}
	return p, true
}

// share divides the layers among several devices: by the model file's shares, else by what is free. It sets the counts and the shares
// to tell the engine; nil if there is no way.
func (s *search) share(p *Placement) []int64 {
	layers := s.offloaded(p.Layers)
	weights := s.w.TensorSplit
	if len(weights) == 0 {
		for _, i := range p.Devices {
			weights = append(weights, float64(s.usable(i)))
		}
	}
	weights = slices.Concat(weights, make([]float64, len(p.Devices)))[:len(p.Devices)]
	if s.w.SplitMode != "" && s.w.SplitMode != SplitLayer {
		return s.shareRows(p, layers, weights)
	}
	if p.Counts = byWeight(len(layers), weights); len(s.w.TensorSplit) == 0 && !s.countsFit(p, layers) {
		if p.Counts = s.fill(p.Devices, layers); p.Counts == nil {
			return nil
		}
	}
	shares := make([]int64, len(p.Devices))
	p.Split = make([]float64, len(p.Devices))
	first := 0
	for k, count := range p.Counts {
		shares[k] = sum(layers[first:first+count]) + s.DeviceCompute
		p.Split[k] = float64(count)
		first += count
	}
	if len(s.w.TensorSplit) > 0 {
		p.Split = weights
	}
	return shares
}

// shareRows splits each layer's weights; the context is on the main device (llama.cpp, --main-gpu).
func (s *search) shareRows(p *Placement, layers []Block, weights []float64) []int64 {
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
		shares[k] = int64(float64(size)*x/total) + 1 + s.DeviceCompute
	}
	main := 0
	if s.w.MainGPU != nil {
		main = *s.w.MainGPU
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

func (s *search) countsFit(p *Placement, layers []Block) bool {
	first := 0
	for k, count := range p.Counts {
		if count == 0 || sum(layers[first:first+count])+s.DeviceCompute > s.usable(p.Devices[k]) {
			return false
		}
		first += count
	}
	return true
}

// fill puts as many layers on each device as it holds, one device after the other; nil if some are left.
func (s *search) fill(chosen []int, layers []Block) []int {
	counts := make([]int, len(chosen))
	next := 0
	for k, i := range chosen {
		room := s.usable(i) - s.DeviceCompute
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
	s := search{Need: &n, w: w, free: free, devices: devices}
	return s.onHost(p)
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
