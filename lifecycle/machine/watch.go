package machine

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/mem"
)

const (
	calm  = 2 * time.Second        // between looks; PSI's averages are renewed every 2 s, the load average every 5
	urged = 100 * time.Millisecond // between looks while freed memory is waited for

	// urgedFor is how long one Urge lasts. Ollama waits up to 5 s for a driver to give memory back, and notes
	// 0.5 to 1.5 s as usual (server/sched.go, waitForVRAMRecovery).
	urgedFor = 5 * time.Second

	// devicesEvery is the least time between two askings of the devices' tools while nobody urges. nvidia-smi takes 50 ms
	// and more of a CPU.
	devicesEvery = 5 * time.Second
)

// Watch looks at the machine at intervals and hands each sample on.
type Watch struct {
	on      func(Sample)
	host    func(context.Context) (Sample, error)
	devices func(context.Context) []Device // nil = there are none to ask for
	unknown func() bool                    // there may be some that could not be told yet; nil = no
	log     *slog.Logger

	cancel context.CancelFunc
	done   sync.WaitGroup
	urge   chan struct{}
}

// Options says how a [Watch] looks.
type Options struct {
	Root        string // of the file system to read; "" = "/"
	LlamaServer string // program asked for its devices once, at the start; "" = none
	Log         *slog.Logger
}

// NewWatch starts a watch: the first sample comes at once, further ones every 2 s. on is called by one goroutine, never after
// Close has returned, and must not call Close.
func NewWatch(o Options, on func(Sample)) *Watch {
	if o.Root == "" {
		o.Root = "/"
	}
	host := &hostSampler{root: files(o.Root), now: time.Now}
	devices := newDeviceSampler(files(o.Root), o.LlamaServer)
	return start(&Watch{on: on, host: host.sample, devices: devices.sample, unknown: devices.unknown, log: o.Log})
}

func start(w *Watch) *Watch {
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.urge = cancel, make(chan struct{}, 1)
	w.done.Go(func() { w.run(ctx) })
	return w
}

// Urge makes the watch look every 100 ms for 5 s, devices too: after an instance with memory on a device
// has ended, to see it come back. It does not wait.
func (w *Watch) Urge() {
	select {
	case w.urge <- struct{}{}:
	default:
	}
}

// Close ends the watch and waits for its goroutine; a tool that runs is stopped.
func (w *Watch) Close() {
	w.cancel()
	w.done.Wait()
}

// open reports whether it is an open question what devices there are.
func (w *Watch) open() bool { return w.unknown != nil && w.unknown() }

func (w *Watch) run(ctx context.Context) {
	var (
		devices []Device
		asked   time.Time // when the devices were asked last
		hurry   time.Time // until when to hurry
		failed  bool
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.urge:
			hurry = time.Now().Add(urgedFor)
			timer.Reset(0)
			continue
		case <-timer.C:
		}
		now := time.Now()
		hurried := now.Before(hurry)
		first := asked.IsZero()
		if w.devices != nil && (first || (len(devices) > 0 || w.open()) && (hurried || now.Sub(asked) >= devicesEvery)) {
			devices = w.devices(ctx)
			asked = now
		}
		s, err := w.host(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.Devices, s.DevicesAt = devices, asked
			w.on(s)
		case !failed:
			w.log.Warn("the machine's memory cannot be read", "error", err)
		}
		failed = err != nil
		if hurried {
			timer.Reset(urged)
		} else {
			timer.Reset(calm)
		}
	}
}

const (
	// relistEvery is the least time between two starts of llama-server for its list, where nothing else knows what is free
	// (Vulkan on a GPU of Intel's).
	relistEvery = time.Second

	// retryList is how long after a list that failed it is asked for again.
	retryList = time.Minute
)

// deviceSampler keeps the list that llama-server gave and brings it up to date from the vendors' tools. It is used by one
// goroutine.
type deviceSampler struct {
	cards func(context.Context) []Card
	list  func(context.Context) ([]Listed, bool)
	host  func(context.Context) int64 // the machine's memory, bytes

	devices []Device
	next    time.Time // when to ask for the list again; the zero time = now
	settled bool      // it need not be asked for again
}

func newDeviceSampler(root files, llamaServer string) *deviceSampler {
	return &deviceSampler{
		cards: func(ctx context.Context) []Card {
			value, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
			return append(visible(nvidiaCards(ctx, tools{}), value, set), amdCards(root)...)
		},
		list: func(ctx context.Context) ([]Listed, bool) {
			if llamaServer == "" {
				return nil, true
			}
			out, err := tools{env: []string{PCIOrder}}.run(ctx, llamaServer, "--list-devices")
			if err != nil {
				return nil, false
			}
			return ParseListed(out)
		},
		host: func(ctx context.Context) int64 {
			m, err := mem.VirtualMemoryWithContext(procOf(ctx, root))
			if err != nil {
				return 0
			}
			return int64(m.Total) //nolint:gosec // bytes of memory fit
		},
	}
}

// unknown reports whether the list could not be had yet.
func (d *deviceSampler) unknown() bool { return !d.settled && len(d.devices) == 0 }

// PCIOrder makes CUDA count its devices as nvidia-smi does; by default the fastest is the first.
const PCIOrder = "CUDA_DEVICE_ORDER=PCI_BUS_ID"

func (d *deviceSampler) sample(ctx context.Context) []Device {
	cards := d.cards(ctx)
	now := time.Now()
	if d.settled || now.Before(d.next) {
		d.devices = Refresh(d.devices, cards)
		return d.devices
	}
	listed, ok := d.list(ctx)
	d.devices = sharing(Merge(listed, cards), d.host(ctx))
	d.settled = ok && known(d.devices)
	d.next = now.Add(relistEvery)
	if !ok {
		d.next = now.Add(retryList)
	}
	return d.devices
}

// known reports whether the vendors' tools know of all devices with memory of their own.
func known(devices []Device) bool {
	for _, d := range devices {
		if d.Vendor == "" && !d.Unified {
			return false
		}
	}
	return true
}

// Look takes one sample at once, for whoever has no watch: doctor, tests.
func Look(ctx context.Context, o Options) (Sample, error) {
	if o.Root == "" {
		o.Root = "/"
	}
	host := &hostSampler{root: files(o.Root), now: time.Now}
	s, err := host.sample(ctx)
	s.Devices = newDeviceSampler(files(o.Root), o.LlamaServer).sample(ctx)
	return s, err
}

// Holdings asks nvidia-smi what each process holds on each device; nil where it does not say.
func Holdings(ctx context.Context) []Holding {
	out, err := tools{}.run(ctx, "nvidia-smi", nvidiaAppsQuery...)
	if err != nil {
		return nil
	}
	return ParseHoldings(out)
}
