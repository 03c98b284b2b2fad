package machine

import (
	"slices"
	"strconv"
	"strings"
)

// Vendors of devices that are known by more than llama-server's word.
const (
	NVIDIA = "nvidia"
	AMD    = "amd"
)

// Device is something with memory that an engine can put layers on.
type Device struct {
	Name   string // llama-server's: CUDA0, ROCm0, Vulkan0, Metal
	ID     string // how CUDA_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES select it (a UUID); "" = only by name
	Bus    string // PCI address, domain:bus:device.function, lower case; "" = unknown
	Vendor string // NVIDIA, AMD or ""

	Total, Free int64 // bytes; for a unified device those of the host as the tools see them

	// Unified says that the device has no memory of its own but uses the host's: one pool.
	Unified bool

	// Listed says that llama-server offers it; the others are for engines of kind command alone.
	Listed bool
}

// Answers reports whether name, as a model file's devices have it, means this device: its name, its id or its address.
func (d Device) Answers(name string) bool {
	return name != "" && (strings.EqualFold(name, d.Name) || strings.EqualFold(name, d.ID) || strings.EqualFold(name, d.Bus))
}

// Merge makes one list of what the three sources say: first what llama-server lists, under its names, then what it
// cannot use, under the names it would give.
//
// cards is what the vendors' tools say, in PCI order, already narrowed to those that are visible to us. A listed device is
// matched with a card of its vendor: by the model's name where both have one, else by size, else by order (the
// list is asked for with CUDA_DEVICE_ORDER=PCI_BUS_ID, which is nvidia-smi's order). Free memory is the card's, as
// it is newer and does not cost a start of the engine.
//
// One physical device that two back ends offer (CUDA0 and Vulkan0) is listed once, under the vendor's own.
func Merge(listed []Listed, cards []Card) []Device {
	listed = slices.Clone(listed)
	slices.SortStableFunc(listed, func(a, b Listed) int { return a.generic() - b.generic() })
	var devices []Device
	taken := make([]bool, len(cards))
	for _, l := range listed {
		d := Device{Name: l.Name, Total: l.Total, Free: l.Free, Unified: l.unified(), Listed: true}
		i := match(l, cards, taken)
		switch {
		case i >= 0:
			taken[i] = true
			d.adopt(cards[i])
		case l.again(listed):
			continue // the same device by another back end
		}
		devices = append(devices, d)
	}
	devices = append(devices, unlisted(cards, taken)...)
	return devices[:min(len(devices), MaxDevices)]
}

// Refresh puts what the cards say now into a merged list, and returns a new one. A device that its vendor's tool no longer
// names, though it names others, is lost: nothing of it is free. If the tool names none, it failed, and what it said last stands.
func Refresh(devices []Device, cards []Card) []Device {
	devices = slices.Clone(devices)
	for i := range devices {
		d := &devices[i]
		same := func(c Card) bool { return c.ID != "" && c.ID == d.ID || c.Bus != "" && c.Bus == d.Bus }
		if at := slices.IndexFunc(cards, same); at >= 0 {
			d.adopt(cards[at])
		} else if d.Vendor != "" && slices.ContainsFunc(cards, func(c Card) bool { return c.Vendor == d.Vendor }) {
			d.Free = 0
		}
	}
	return devices
}

// sharing marks as unified what only llama-server knows of and what is as large as the host's memory: integrated GPUs (Jetson
// without nvidia-smi, Intel's through Vulkan) offer all of that.
func sharing(devices []Device, host int64) []Device {
	for i := range devices {
		if d := &devices[i]; d.Vendor == "" && near(d.Total, host) {
			d.Unified = true
		}
	}
	return devices
}

func (d *Device) adopt(c Card) {
	d.ID, d.Bus, d.Vendor = c.ID, c.Bus, c.Vendor
	d.Unified = d.Unified || c.Unified
	if c.Total > 0 {
		d.Total, d.Free = c.Total, c.Free
	}
}

// match returns the index of the card that l is, or -1.
func match(l Listed, cards []Card, taken []bool) int {
	vendor := l.vendor()
	size, order := -1, -1
	for i, c := range cards {
		if taken[i] || c.Vendor != vendor {
			continue
		}
		if c.Model != "" && c.Model == l.Model {
			return i
		}
		if c.Model != "" && l.Model != "" && vendor == NVIDIA {
			continue // both name it, and differently
		}
		if size < 0 && near(c.Total, l.Total) {
			size = i
		}
		if order < 0 {
			order = i
		}
	}
	if size >= 0 {
		return size
	}
	return order
}

// near reports whether two totals differ by less than a sixteenth: drivers keep some for themselves.
func near(a, b int64) bool { return max(a, b)-min(a, b) < max(a, b)/16 }

// unlisted names the cards not taken as llama-server would: CUDA and ROCm, each counted from 0 over all cards.
func unlisted(cards []Card, taken []bool) []Device {
	var devices []Device
	counts := map[string]int{}
	for i, c := range cards {
		d := Device{Name: map[string]string{NVIDIA: "CUDA", AMD: "ROCm"}[c.Vendor] + strconv.Itoa(counts[c.Vendor])}
		counts[c.Vendor]++
		if !taken[i] {
			d.adopt(c)
			devices = append(devices, d)
		}
	}
	return devices
}
