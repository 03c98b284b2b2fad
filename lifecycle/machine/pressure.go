package machine

import (
	"math"
	"time"
)

const (
	// smoothing is the time constant of the moving average: the same as of PSI's avg10, so that load and pressure answer
	// alike. A start's burst of a second passes unnoticed, work that stays counts within half a minute.
	smoothing = 10 * time.Second

	// leaveLoad is the share of the limit below which CPUs are free again, so that an instance more or less does not
	// switch to and fro.
	leaveLoad = 0.8

	// cpuPressureHigh is the share of time, in percent, in which some task waits for a CPU, from which CPUs are short.
	// There is no published bound for CPUs: it is the one systemd-oomd acts on for memory
	// (oomd.conf(5), DefaultMemoryPressureLimit=60%). It counts only for a limit of up to 1: whoever allows
	// more runnable tasks than CPUs has allowed that they wait.
	cpuPressureHigh = 60

	// scarceMemory is the share of available memory, in percent, below which it is short, and enoughMemory that from which
	// it is enough again. The kernel's reclaim begins around the former (vm.watermark_scale_factor, earlyoom's -m 10 and
	// systemd-oomd's SwapUsedLimit=90% are of the same order).
	scarceMemory, enoughMemory = 5, 8

	// memoryPressureHigh is the share of time, in percent, in which all tasks wait for memory, from which memory is short: twice the
	// example trigger of the kernel's documentation (full 50 ms in 1 s, Documentation/accounting/psi.rst), and a sixth of
	// the 60 % at which systemd-oomd kills. Below half of it it is over.
	memoryPressureHigh = 10
)

// Pressure judges samples: moving averages with hysteresis. Its zero value is ready; it is no more than a function
// of what it was shown, and for one goroutine.
type Pressure struct {
	last        time.Time
	load        float64
	cpu, memory float64 // PSI, percent

	busy, short bool
}

// Observe takes a sample in and tells whether CPUs (busy) and memory (short) are scarce. maxLoad is the load per
// CPU from which CPUs are; 0 = never, and then memory alone is judged.
func (p *Pressure) Observe(s Sample, maxLoad float64, now time.Time) (busy, short bool) {
	p.average(s, now)
	switch {
	case maxLoad <= 0:
		p.busy = false
	case p.busy:
		p.busy = p.load >= leaveLoad*maxLoad || maxLoad <= 1 && p.cpu >= leaveLoad*cpuPressureHigh
	default:
		p.busy = p.load > maxLoad || maxLoad <= 1 && p.cpu > cpuPressureHigh
	}
	available := 100.0
	if s.Host.Total > 0 {
		available = 100 * float64(s.Host.Available) / float64(s.Host.Total)
	}
	if p.short {
		p.short = available < enoughMemory || p.memory >= memoryPressureHigh/2.0
	} else {
		p.short = available < scarceMemory || p.memory >= memoryPressureHigh
	}
	return p.busy, p.short
}

// average moves the averages by the time that has passed; the first sample sets them. Available memory is not averaged:
// it moves by gigabytes within a second, and late is too late.
func (p *Pressure) average(s Sample, now time.Time) {
	weight := 1.0
	if !p.last.IsZero() {
		weight = 1 - math.Exp(-max(0, now.Sub(p.last).Seconds())/smoothing.Seconds())
	}
	p.last = now
	p.load += weight * (s.Load - p.load)
	p.cpu += weight * (s.CPUPressure - p.cpu)
	p.memory += weight * (s.MemoryPressure - p.memory)
}
