package lifecycle

import (
	"runtime"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
)

const (
	// loadInterval is how often the machine is looked at. The load average itself is a mean over a minute.
	loadInterval = 2 * time.Second

	// scarceMemory is the share of memory, in percent, below which it is short: reclaiming page cache and
	// swapping set in around there.
	scarceMemory = 5
)

// LoadWatch tells when the machine is short of CPU or memory. It runs while a limit is set.
type LoadWatch struct {
	short  func()
	sample func() (load float64, availablePercent float64, err error)

	mu   sync.Mutex
	max  float64
	quit chan struct{} // nil while it does not run
}

// NewLoadWatch returns a watch that calls short every 2 s for as long as the machine is short.
func NewLoadWatch(short func()) *LoadWatch { return &LoadWatch{short: short, sample: sampleMachine} }

// SetMax sets the load per CPU from which the machine is short; 0 turns the watch off.
func (w *LoadWatch) SetMax(limit float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.max = limit
	switch {
	case limit > 0 && w.quit == nil:
		w.quit = make(chan struct{})
		go w.run(w.quit)
	case limit == 0 && w.quit != nil:
		close(w.quit)
		w.quit = nil
	}
}

// Close turns the watch off.
func (w *LoadWatch) Close() { w.SetMax(0) }

func (w *LoadWatch) run(quit <-chan struct{}) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		limit := w.max
		w.mu.Unlock()
		load, available, err := w.sample()
		if err == nil && limit > 0 && (load > limit || available < scarceMemory) {
			w.short()
		}
	}
}

// sampleMachine returns the load average of the last minute per CPU, and the share of memory available, in percent.
func sampleMachine() (perCPU, availablePercent float64, err error) {
	avg, err := load.Avg()
	if err != nil {
		return 0, 0, err
	}
	memory, err := mem.VirtualMemory()
	if err != nil {
		return 0, 0, err
	}
	return avg.Load1 / float64(runtime.NumCPU()), 100 * float64(memory.Available) / float64(memory.Total), nil
}
