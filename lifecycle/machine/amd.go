package machine

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	vendorAMD = "0x1002" // PCI-SIG's number of AMD/ATI

	// carveOut is the VRAM up to which an AMD GPU whose GTT is larger than its VRAM is taken for one that is part of the
	// processor. Firmware carves 0.5 GiB and more out of the host's memory for those, and the driver gives them half of the
	// rest as GTT by default; a card of its own has GTT as well, so the size of GTT alone tells nothing.
	carveOut = 4 << 30
)

// amdCards reads AMD's GPUs from sysfs, in PCI order, without any ROCm library. The files are those of the amdgpu driver
// (Documentation/gpu/amdgpu/driver-misc.rst, "Memory Accounting").
func amdCards(root files) []Card {
	dirs, _ := filepath.Glob(root.path("sys/class/drm/card*/device")) // the pattern is a good one
	var cards []Card
	for _, dir := range dirs {
		if name := filepath.Base(filepath.Dir(dir)); strings.Contains(name, "-") {
			continue // a connector: card0-DP-1
		}
		if c, ok := amdCard(dir); ok && !slices.ContainsFunc(cards, func(o Card) bool { return c.Bus != "" && o.Bus == c.Bus }) {
			cards = append(cards, c)
		}
	}
	slices.SortStableFunc(cards, func(a, b Card) int { return strings.Compare(a.Bus, b.Bus) })
	return cards
}

func amdCard(dir string) (Card, bool) {
	at := files(dir)
	if at.text("vendor") != vendorAMD {
		return Card{}, false
	}
	total, ok := at.number("mem_info_vram_total")
	if !ok || total <= 0 {
		return Card{}, false
	}
	used, _ := at.number("mem_info_vram_used")
	c := Card{Vendor: AMD, Total: total, Free: max(0, total-used), Model: at.text("product_name")}
	if id := at.text("unique_id"); id != "" && strings.Trim(id, "0") != "" {
		c.ID = "GPU-" + id
	}
	if target, err := filepath.EvalSymlinks(dir); err == nil && isBus(filepath.Base(target)) {
		c.Bus = filepath.Base(target)
	} else {
		c.Bus = at.uevent("PCI_SLOT_NAME")
	}
	if gtt, ok := at.number("mem_info_gtt_total"); ok && total <= carveOut && gtt > total {
		gttUsed, _ := at.number("mem_info_gtt_used")
		c.Unified = true
		c.Total, c.Free = total+gtt, max(0, total-used)+max(0, gtt-gttUsed)
	}
	return c, true
}

func isBus(s string) bool {
	return len(s) == len("0000:03:00.0") && s[4] == ':' && s[7] == ':' && s[10] == '.'
}

// uevent returns the value of a line KEY=value of the device's uevent.
func (f files) uevent(key string) string {
	for line := range strings.Lines(f.text("uevent")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.ToLower(v)
		}
	}
	return ""
}

// number reads a file that holds one number.
func (f files) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(f.text(name), 10, 64)
	return n, err == nil
}
