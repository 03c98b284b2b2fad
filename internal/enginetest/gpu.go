package enginetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GPU is a pretended device. Several processes share it through files in a directory.
type GPU struct {
	UUID  string `json:"uuid"` // GPU-…
	Bus   string `json:"bus"`  // 00000000:01:00.0
	Name  string `json:"name"` // NVIDIA GeForce RTX 3090
	Total int64  `json:"total"`

	// ReleaseDelay is how long memory stays taken after the process that held it has ended, as with a driver that is slow to
	// give it back.
	ReleaseDelay time.Duration `json:"release_delay"`
}

// holding is what one process holds on one GPU: a file each.
type holding struct {
	PID     int       `json:"pid"`
	Started string    `json:"started"` // clock ticks since boot, so that another process with its id is not taken for it
	UUID    string    `json:"uuid"`
	Bytes   int64     `json:"bytes"`
	Ended   time.Time `json:"ended"` // when it was first seen to have ended; zero = it runs
}

// gpus is the directory.
type gpus string

// NewGPUs makes a directory of pretended GPUs, for --gpu-dir, and puts programs beside it that read it: it returns the
// directory, and that of nvidia-smi, to be put first in PATH.
func NewGPUs(tb TB, binary string, devices ...GPU) (dir, bin string) {
	tb.Helper()
	dir, bin = tb.TempDir(), tb.TempDir()
	b, err := json.Marshal(devices)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "gpus.json"), b, 0o600)
	}
	if err == nil {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' %s nvidia-smi --gpu-dir '%s' \"$@\"\n", binary, Word, dir)
		err = os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte(script), 0o700)
	}
	if err != nil {
		tb.Fatalf("fake gpus: %v", err)
	}
	return dir, bin
}

// GPUFree returns what is free on each GPU of the directory.
func GPUFree(dir string) ([]int64, error) {
	g := gpus(dir)
	unlock, err := g.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	devices, err := g.devices()
	if err != nil {
		return nil, err
	}
	var free []int64
	for _, d := range devices {
		free = append(free, g.free(d))
	}
	return free, nil
}

func (g gpus) devices() ([]GPU, error) {
	b, err := os.ReadFile(filepath.Join(string(g), "gpus.json"))
	if err != nil {
		return nil, err
	}
	var devices []GPU
	return devices, json.Unmarshal(b, &devices)
}

// holdings returns what is held of the devices, and notes who has ended. The caller has the lock.
func (g gpus) holdings(devices []GPU) []holding {
	files, _ := filepath.Glob(filepath.Join(string(g), "held-*")) // the pattern is a good one
	var all []holding
	for _, file := range files {
		b, err := os.ReadFile(file)
		var h holding
		if err != nil || json.Unmarshal(b, &h) != nil {
			continue
		}
		if h.Ended.IsZero() && startOf(h.PID) != h.Started {
			h.Ended = time.Now()
			_ = g.write(h)
		}
		i := slices.IndexFunc(devices, func(d GPU) bool { return d.UUID == h.UUID })
		switch {
		case i < 0: // it is on another
		case !h.Ended.IsZero() && time.Since(h.Ended) >= devices[i].ReleaseDelay:
			_ = os.Remove(file)
		default:
			all = append(all, h)
		}
	}
	return all
}

func (g gpus) free(d GPU) int64 {
	free := d.Total
	for _, h := range g.holdings([]GPU{d}) {
		free -= h.Bytes
	}
	return free
}

func (g gpus) write(h holding) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	file := filepath.Join(string(g), fmt.Sprintf("held-%d-%s-%s", h.PID, h.Started, h.UUID))
	temp := filepath.Join(string(g), fmt.Sprintf("new-%d-%s", os.Getpid(), h.UUID))
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, file)
}

// hold makes this process hold bytes on the GPU, all in all; false if there is no room for that.
func (g gpus) hold(d GPU, bytes int64) (bool, error) {
	unlock, err := g.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	me := holding{PID: os.Getpid(), Started: startOf(os.Getpid()), UUID: d.UUID, Bytes: bytes}
	free := d.Total
	for _, h := range g.holdings([]GPU{d}) {
		if h.PID != me.PID || h.Started != me.Started {
			free -= h.Bytes
		}
	}
	if bytes > free {
		return false, nil
	}
	return true, g.write(me)
}

// startOf returns when a process started; "" if it has ended (a zombie has). Linux only.
func startOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b[slices.Index(b, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19] // the 22nd of all, see proc_pid_stat(5)
}

// seen returns the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order.
func seen(devices []GPU) []GPU {
	value, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
	if !set {
		return devices
	}
	var left []GPU
	for name := range strings.SplitSeq(value, ",") {
		at := slices.IndexFunc(devices, func(d GPU) bool { return name != "" && strings.HasPrefix(d.UUID, name) })
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(devices) {
			at = n
		}
		if at < 0 {
			break
		}
		left = append(left, devices[at])
	}
	return left
}

// listDevices prints what llama-server --list-devices does.
func listDevices(o Options) int {
	fmt.Println("Available devices:")
	if o.GPUDir == "" {
		fmt.Println("  (none)")
		return 0
	}
	devices, err := gpus(o.GPUDir).devices()
	if err != nil {
		return fail(err)
	}
	for i, d := range seen(devices) {
		free, err := gpus(o.GPUDir).freeNow(d)
		if err != nil {
			return fail(err)
		}
		fmt.Printf("  CUDA%d: %s (%d MiB, %d MiB free)\n", i, d.Name, d.Total>>20, free>>20)
	}
	return 0
}

func (g gpus) freeNow(d GPU) (int64, error) {
	unlock, err := g.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	return g.free(d), nil
}

// nvidiaSMI is the fake nvidia-smi: --gpu-dir DIR and the two queries that package machine asks, in any order of fields.
func nvidiaSMI(args []string) int {
	var dir, query string
	apps := false
	for i, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "--gpu-dir":
			if i+1 < len(args) {
				dir = args[i+1]
			}
		case "--query-gpu":
			query = value
		case "--query-compute-apps":
			query, apps = value, true
		}
	}
	g := gpus(dir)
	devices, err := g.devices()
	if err != nil {
		return fail(err)
	}
	unlock, err := g.lock()
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if apps {
		for _, h := range g.holdings(devices) {
			if h.Ended.IsZero() {
				row(query, map[string]string{"pid": strconv.Itoa(h.PID), "gpu_uuid": h.UUID, "used_memory": mebi(h.Bytes)})
			}
		}
		return 0
	}
	for i, d := range devices {
		free := g.free(d)
		row(query, map[string]string{
			"uuid": d.UUID, "index": strconv.Itoa(i), "name": d.Name, "pci.bus_id": d.Bus,
			"memory.total": mebi(d.Total), "memory.free": mebi(free), "memory.used": mebi(d.Total - free),
		})
	}
	return 0
}

func mebi(n int64) string { return strconv.FormatInt(n>>20, 10) }

func row(query string, values map[string]string) {
	var out []string
	for field := range strings.SplitSeq(query, ",") {
		v, ok := values[field]
		if !ok {
			v = "[N/A]"
		}
		out = append(out, v)
	}
	fmt.Println(strings.Join(out, ", "))
}
