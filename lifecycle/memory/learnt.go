package memory

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"assistant/internal/wholefile"
	"assistant/lifecycle/machine"
)

const (
	learntFile    = "learnt.json"
	learntVersion = 1

	// maxFacts bounds the file: some 300 bytes an entry make 3 MB. The longest untouched go first.
	maxFacts = 10_000

	// saveAfter is how long changes may lie before they are written.
	saveAfter = 5 * time.Second
)

// Facts is what was learnt of a model as it is configured (see [Key]).
type Facts struct {
	HostHard int64 `json:"host_hard,omitempty"` // bytes at the peak: anonymous and shared memory
	HostSoft int64 `json:"host_soft,omitempty"` // pages of files

	// Devices is the peak on each device, by id, or by name where it has none: their order may change between boots.
	Devices map[string]int64 `json:"devices,omitempty"`

	Layers int `json:"layers,omitempty"` // that were on devices when the peak was measured

	Start   time.Duration `json:"start_ns,omitempty"`   // moving average of the time from spawn to ready
	Service time.Duration `json:"service_ns,omitempty"` // moving average of the time of a request

	Updated time.Time `json:"updated"`
}

// Peak is a measurement of a running instance.
type Peak struct {
	HostHard, HostSoft int64
	Devices            map[string]int64 // bytes, by id or name
	Layers             int              // on devices
}

// Learnt keeps facts by key, in a file. It may be used by several goroutines.
type Learnt struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	facts  map[string]Facts
	timer  *time.Timer // runs while there is something to write
	closed bool

	writing sync.Mutex // one writer at a time
}

// OpenLearnt reads dir/learnt.json. A file that is damaged, or of another version, is warned about and replaced at the next
// write: what was learnt can be learnt again.
func OpenLearnt(dir string, log *slog.Logger) *Learnt {
	l := &Learnt{path: filepath.Join(dir, learntFile), log: log, facts: map[string]Facts{}}
	facts, err := readFacts(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what was learnt of the models' memory cannot be read and will be replaced", "file", l.path, "error", err)
	}
	if facts != nil {
		l.facts = facts
	}
	return l
}

type factsFile struct {
	Version int              `json:"version"`
	Facts   map[string]Facts `json:"facts"`
}

func readFacts(path string) (map[string]Facts, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 64*mib {
		return nil, errors.New("it is not a file of ours")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file factsFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	if file.Version != learntVersion {
		return nil, fmt.Errorf("version %d, want %d", file.Version, learntVersion)
	}
	for key, f := range file.Facts {
		if !f.sound() {
			delete(file.Facts, key)
		}
	}
	return file.Facts, nil
}

// sound reports whether the numbers can be meant.
func (f Facts) sound() bool {
	most := int64(1) << 50
	ok := func(n int64) bool { return n >= 0 && n < most }
	for _, n := range f.Devices {
		if !ok(n) {
			return false
		}
	}
	return ok(f.HostHard) && ok(f.HostSoft) && f.Start >= 0 && f.Service >= 0 && f.Layers >= 0
}

// Get returns what is known under key. The map in it is the caller's own.
func (l *Learnt) Get(key string) (Facts, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.facts[key]
	f.Devices = maps.Clone(f.Devices)
	return f, ok
}

// ObservePeak notes a measurement: a higher one counts at once, a lower one by an eighth, so that a model that once took more
// for a while is not held to it for ever. With another number of layers on devices it starts anew.
func (l *Learnt) ObservePeak(key string, p Peak) {
	l.change(key, func(f *Facts) {
		if f.Layers != p.Layers {
			f.HostHard, f.HostSoft, f.Devices = 0, 0, nil
		}
		f.Layers = p.Layers
		f.HostHard, f.HostSoft = follow(f.HostHard, p.HostHard), follow(f.HostSoft, p.HostSoft)
		devices := map[string]int64{}
		for id, n := range p.Devices {
			devices[id] = follow(f.Devices[id], n)
		}
		f.Devices = devices
	})
}

// follow moves up at once and down by an eighth of the way.
func follow(old, seen int64) int64 {
	if seen >= old {
		return seen
	}
	return old - (old-seen)/8
}

// ObserveStart notes how long a start took.
func (l *Learnt) ObserveStart(key string, d time.Duration) {
	l.change(key, func(f *Facts) { f.Start = average(f.Start, d) })
}

// ObserveService notes how long a request took.
func (l *Learnt) ObserveService(key string, d time.Duration) {
	l.change(key, func(f *Facts) { f.Service = average(f.Service, d) })
}

// average is a moving one: the first is taken, each further moves it by a fifth.
func average(old, seen time.Duration) time.Duration {
	if old == 0 {
		return max(0, seen)
	}
	return old + (max(0, seen)-old)/5
}

func (l *Learnt) change(key string, change func(*Facts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.facts[key]
	change(&f)
	f.Updated = time.Now().UTC().Round(0)
	l.facts[key] = f
	if l.timer == nil && !l.closed {
		l.timer = time.AfterFunc(saveAfter, func() {
			if err := l.Save(); err != nil {
				l.log.Warn("what was learnt of the models' memory cannot be written", "error", err)
			}
		})
	}
}

// Save writes the file at once, whole or not at all. Changes are written by themselves within 5 s.
func (l *Learnt) Save() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	b, err := l.encode()
	if err != nil {
		return err
	}
	return wholefile.Replace(l.path, b)
}

func (l *Learnt) encode() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.forget()
	return json.Marshal(factsFile{Version: learntVersion, Facts: l.facts})
}

// forget drops the longest untouched above the bound.
func (l *Learnt) forget() {
	if len(l.facts) <= maxFacts {
		return
	}
	keys := make([]string, 0, len(l.facts))
	for k := range l.facts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(l.facts[a].Updated.Compare(l.facts[b].Updated), cmp.Compare(a, b))
	})
	for _, k := range keys[:len(keys)-maxFacts] {
		delete(l.facts, k)
	}
}

// Close writes what is not written yet. Later changes are kept in memory only.
func (l *Learnt) Close() error {
	l.mu.Lock()
	pending := l.timer != nil
	l.closed = true
	l.mu.Unlock()
	if !pending {
		l.writing.Lock() // wait for a write under way
		defer l.writing.Unlock()
		return nil
	}
	return l.Save()
}

// Combine puts what was learnt into an estimate. What was declared stays as it is. Of what the header gives exactly, weights and context,
// nothing is taken off: a peak that was measured before the context was full would promise too little. What was learnt moves the rest: the
// process, and the buffers on each device. For an engine we cannot look into, what was learnt is all there is.
func Combine(n Need, f Facts) Need {
	if n.Source == Declared || f.HostHard+f.HostSoft == 0 && len(f.Devices) == 0 {
		return n
	}
	source := n.Source
	n.Source = Measured
	if source == Unknown {
		n.Process, n.Output, n.Blocks = f.HostHard, Block{}, nil
		n.Rest = Block{Weights: f.HostSoft}
		n.Fixed = nil
		for _, id := range slices.Sorted(maps.Keys(f.Devices)) {
			n.Fixed = append(n.Fixed, Share{id, f.Devices[id]})
		}
		return n
	}
	floor, _ := n.Host(f.Layers)
	floor -= n.Compute + n.Process
	if overhead := f.HostHard - floor; overhead > 0 {
		n.Compute = min(n.Compute, overhead)
		n.Process = overhead - n.Compute
	} else {
		n.Compute, n.Process = 0, 0
	}
	var onDevices int64
	used := int64(0)
	for _, b := range f.Devices {
		onDevices += b
		used++
	}
	if used > 0 {
		n.DeviceCompute = max(0, (onDevices-sum(n.offloaded(f.Layers))+used-1)/used)
	}
	return n
}

// DeviceKey is how facts name a device.
func DeviceKey(d machine.Device) string { return cmp.Or(d.ID, d.Name) }
