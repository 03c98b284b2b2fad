package machine

import (
	"context"
	"strconv"
	"strings"
)

// Card is a device as the vendor's own tools know it.
type Card struct {
	ID          string // NVIDIA: GPU-… or MIG-…; AMD: GPU- and the unique id, as ROCR_VISIBLE_DEVICES takes it; "" = none
	Bus         string // PCI address, lower case, four digits of domain
	Vendor      string
	Model       string // "NVIDIA GeForce RTX 3090"; "" = unknown
	Total, Free int64  // bytes; 0 = it does not say
	Unified     bool
}

// nvidiaQuery is what is asked of nvidia-smi. pci.bus_id before the name: a name may hold a comma.
var nvidiaQuery = []string{
	"--query-gpu=uuid,pci.bus_id,memory.total,memory.free,name", "--format=csv,noheader,nounits",
}

// nvidiaCards asks nvidia-smi; nil where it is not installed or does not answer.
func nvidiaCards(ctx context.Context, t tools) []Card {
	out, err := t.run(ctx, "nvidia-smi", nvidiaQuery...)
	if err != nil {
		return nil
	}
	return ParseNVIDIA(out)
}

// ParseNVIDIA reads what nvidia-smi says to the query uuid,pci.bus_id,memory.total,memory.free,name. Where the
// GPU uses the host's memory (GB10, Jetson) the memory is "[N/A]" or "[Not Supported]", and the card is unified. A GPU that
// is lost ("[GPU is lost]", "[Unknown Error]") or in trouble is left out.
func ParseNVIDIA(out string) []Card {
	var cards []Card
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSpace(line), ",", 5)
		if len(f) != 5 {
			continue
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		c := Card{ID: f[0], Bus: busAddress(f[1]), Vendor: NVIDIA, Model: f[4]}
		if !strings.HasPrefix(c.ID, "GPU-") && !strings.HasPrefix(c.ID, "MIG-") {
			continue
		}
		c.Total, c.Free = mebibytes(f[2]), mebibytes(f[3])
		switch {
		case notSaid(f[2]) && notSaid(f[3]):
			c.Unified, c.Total, c.Free = true, 0, 0
		case c.Total <= 0 || c.Free < 0:
			continue
		}
		c.Free = min(c.Free, c.Total)
		cards = append(cards, c)
	}
	return cards
}

func notSaid(s string) bool { return s == "[N/A]" || s == "N/A" || s == "[Not Supported]" }

// busAddress makes "00000000:01:00.0" of nvidia-smi what sysfs has: "0000:01:00.0".
func busAddress(s string) string {
	s = strings.ToLower(s)
	if len(s) == len("00000000:01:00.0") && strings.HasPrefix(s, "0000") {
		return s[4:]
	}
	return s
}

// Holding is what a process holds on a device.
type Holding struct {
	PID    int
	Device string // UUID
	Bytes  int64
}

var nvidiaAppsQuery = []string{"--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader,nounits"}

// ParseHoldings reads what nvidia-smi says to the query pid,gpu_uuid,used_memory. In a container without the
// host's process ids it says nothing, and on Windows it says [N/A]: those lines are left out.
func ParseHoldings(out string) []Holding {
	var all []Holding
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ",")
		if len(f) != 3 {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(f[0]))
		used := mebibytes(f[2])
		if err == nil && pid > 0 && used >= 0 {
			all = append(all, Holding{pid, strings.TrimSpace(f[1]), used})
		}
	}
	return all
}

// visible narrows cards to those that CUDA_VISIBLE_DEVICES of our own environment leaves, in its order: indices or
// (beginnings of) ids, up to the first that is none of either, as the CUDA runtime reads it.
func visible(cards []Card, value string, set bool) []Card {
	if !set {
		return cards
	}
	var kept []Card
	for name := range strings.SplitSeq(value, ",") {
		c, ok := byNameOrIndex(cards, strings.TrimSpace(name))
		if !ok {
			break
		}
		kept = append(kept, c)
	}
	return kept
}

func byNameOrIndex(cards []Card, name string) (Card, bool) {
	if i, err := strconv.Atoi(name); err == nil {
		if i < 0 || i >= len(cards) {
			return Card{}, false
		}
		return cards[i], true
	}
	for _, c := range cards {
		if name != "" && strings.HasPrefix(c.ID, name) {
			return c, true
		}
	}
	return Card{}, false
}
