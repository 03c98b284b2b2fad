package machine

import (
	"context"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
)

// Memory is the host's, in bytes.
type Memory struct{ Total, Available int64 }

// Sample is what the machine has at a moment.
type Sample struct {
	// Host is the lesser of what the machine has and what our control groups leave.
	Host      Memory
	Devices   []Device
	DevicesAt time.Time // when they were asked: less often than the host

	// Load is how much is asked of the CPUs there are, 1 = all of them: the machine's load average of the last
	// minute over its CPUs, or, where a control group has a quota, the share of it that is used, if that is more.
	// (The load average is the machine's also inside a container, so that dividing it by the container's quota would take
	// the neighbours' work for ours.)
	Load float64

	// CPUPressure and MemoryPressure are the shares of the last 10 s in which some task waited for a CPU, and in which all tasks
	// waited for memory, in percent: of our own control group where it says so, else of the machine. 0 where the kernel does not say.
	CPUPressure, MemoryPressure float64
}

// Room is what there is free of everything.
func (s Sample) Room() Amount {
	return s.amount(s.Host.Available, func(d Device) int64 { return d.Free })
}

// Capacity is what there is of everything.
func (s Sample) Capacity() Amount {
	return s.amount(s.Host.Total, func(d Device) int64 { return d.Total })
}

// amount leaves out unified devices: what they have is the host's.
func (s Sample) amount(host int64, of func(Device) int64) Amount {
	a := Amount{Host: host}
	for i, d := range s.Devices {
		if i < MaxDevices && !d.Unified {
			a.Device[i] = of(d)
		}
	}
	return a
}

// hostSampler looks at memory, load and pressure. It is used by one goroutine.
type hostSampler struct {
	root files
	now  func() time.Time

	usage int64 // CPU time of the group with the quota at the last look, µs
	at    time.Time
}

// sample looks once; it costs some small files' reading, about 0.2 ms.
func (h *hostSampler) sample(ctx context.Context) (Sample, error) {
	ctx = procOf(ctx, h.root)
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return Sample{}, err
	}
	groups := findCgroup(h.root)
	s := Sample{
		Host:           groups.memoryLimits(Memory{Total: int64(memory.Total), Available: int64(memory.Available)}), //nolint:gosec // bytes of memory fit
		CPUPressure:    groups.pressure("cpu", "some"),
		MemoryPressure: groups.pressure("memory", "full"),
	}
	if avg, err := load.AvgWithContext(ctx); err == nil { // Windows has none
		s.Load = avg.Load1 / float64(runtime.NumCPU())
	}
	s.Load = max(s.Load, h.quotaLoad(groups))
	return s, nil
}

// procOf makes gopsutil read below root.
func procOf(ctx context.Context, root files) context.Context {
	return context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostProcEnvKey: root.path("proc")})
}

// quotaLoad is the share of the CPU quota that was used since the last look; 0 the first time and without a quota.
func (h *hostSampler) quotaLoad(groups cgroup) float64 {
	cpus, usage := groups.cpuQuota()
	now := h.now()
	before, since := h.usage, now.Sub(h.at)
	h.usage, h.at = usage, now
	if cpus == 0 || before == 0 || usage < before || since <= 0 {
		return 0
	}
	return float64(usage-before) / float64(since.Microseconds()) / cpus
}
