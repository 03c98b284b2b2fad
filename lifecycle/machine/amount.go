package machine

import (
	"fmt"
	"strings"
)

// MaxDevices is how many devices an [Amount] has room for; further ones are not used.
// Sixteen is also the most that llama.cpp's CUDA back end takes (GGML_CUDA_MAX_DEVICES).
const MaxDevices = 16

// Amount is memory in bytes: on the host, and on each device by its place in the list of
// devices. It is a value: it can be compared and copied, and costs no allocation.
type Amount struct {
	Host   int64
	Device [MaxDevices]int64
}

// Plus returns a + b.
func (a Amount) Plus(b Amount) Amount {
	a.Host += b.Host
	for i := range a.Device {
		a.Device[i] += b.Device[i]
	}
	return a
}

// Minus returns a - b, which may be negative.
func (a Amount) Minus(b Amount) Amount {
	a.Host -= b.Host
	for i := range a.Device {
		a.Device[i] -= b.Device[i]
	}
	return a
}

// FitsIn reports whether room has at least as much everywhere. Where nothing is asked for, nothing
// has to be there: room may be overdrawn in other places.
func (a Amount) FitsIn(room Amount) bool {
	if a.Host > 0 && a.Host > room.Host {
		return false
	}
	for i := range a.Device {
		if a.Device[i] > 0 && a.Device[i] > room.Device[i] {
			return false
		}
	}
	return true
}

// OnDevices is the sum over all devices.
func (a Amount) OnDevices() int64 {
	var sum int64
	for _, n := range a.Device {
		sum += n
	}
	return sum
}

// Text says the amount to people: "4.2 GiB, CUDA0 3.0 GiB". Devices beyond the list go by number.
func (a Amount) Text(devices []Device) string {
	var b strings.Builder
	b.WriteString(GiB(a.Host))
	for i, n := range a.Device {
		if n == 0 {
			continue
		}
		name := fmt.Sprintf("device %d", i)
		if i < len(devices) {
			name = devices[i].Name
		}
		fmt.Fprintf(&b, ", %s %s", name, GiB(n))
	}
	return b.String()
}

// String is [Amount.Text] without the names of the devices.
func (a Amount) String() string { return a.Text(nil) }

// GiB says bytes to people: "4.2 GiB", "310 MiB".
func GiB(n int64) string {
	const mib = 1 << 20
	if n > -1<<30 && n < 1<<30 {
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
