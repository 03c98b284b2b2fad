package machine

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cgroup is where our control groups are: directories below the root, the innermost first, those
// that are there. In a container without a namespace of its own for control groups the paths are the host's
// and not mounted; what is mounted at the top is then the container's own.
type cgroup struct {
	root   files
	v2     []string // unified hierarchy
	memory []string // v1
	cpu    []string // v1
}

// findCgroup reads /proc/self/cgroup (cgroups(7)): lines of hierarchy:controllers:path.
func findCgroup(root files) cgroup {
	g := cgroup{root: root}
	for line := range strings.Lines(root.text("proc/self/cgroup")) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		controllers := strings.Split(f[1], ",")
		switch {
		case f[0] == "0" && f[1] == "":
			g.v2 = append(g.ancestors("sys/fs/cgroup", f[2]), g.ancestors("sys/fs/cgroup/unified", f[2])...)
		case slices.Contains(controllers, "memory"):
			g.memory = g.ancestors("sys/fs/cgroup/memory", f[2])
		case slices.Contains(controllers, "cpu"):
			g.cpu = append(g.ancestors("sys/fs/cgroup/"+f[1], f[2]), g.ancestors("sys/fs/cgroup/cpu", f[2])...)
		}
	}
	return g
}

// ancestors returns the directories from a group up to the mount, the mount included.
func (g cgroup) ancestors(mount, group string) []string {
	var dirs []string
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		dirs = append(dirs, mount+group)
		if group == "/" {
			return dirs
		}
	}
}

// memoryLimits narrows m to what the control groups leave. Pages of files are given back under pressure and count as free, as they do in
// the kernel's MemAvailable, those used lately too: the second process that maps a model makes all its pages such, and they stay
// so when both are gone (measured, Linux 6.18). What a running model has mapped is counted where it is reserved.
func (g cgroup) memoryLimits(m Memory) Memory {
	for _, dir := range g.v2 {
		at := files(g.root.path(dir))
		limit := min(at.bytes("memory.max"), at.bytes("memory.high"))
		used, ok := at.number("memory.current")
		if ok {
			m = m.within(limit, used-stat(at.text("memory.stat"), "inactive_file", "active_file"))
		}
	}
	for _, dir := range g.memory {
		at := files(g.root.path(dir))
		used, ok := at.number("memory.usage_in_bytes")
		if ok {
			m = m.within(at.bytes("memory.limit_in_bytes"), used-stat(at.text("memory.stat"), "total_inactive_file", "total_active_file"))
		}
	}
	return m
}

// within returns m in a group that may use limit and uses used. An outer group may be wider than an inner one and yet have less left.
// No limit is math.MaxInt64, and in v1 a number near it.
func (m Memory) within(limit, used int64) Memory {
	m.Total = min(m.Total, limit)
	m.Available = max(0, min(m.Available, limit-max(0, used)))
	return m
}

// bytes reads a limit; "max" and what is not there are none.
func (f files) bytes(name string) int64 {
	n, ok := f.number(name)
	if !ok || n < 0 {
		return math.MaxInt64
	}
	return n
}

// stat returns the sum of the values of the lines "key value".
func stat(text string, keys ...string) int64 {
	var sum int64
	for line := range strings.Lines(text) {
		key, v, ok := strings.Cut(line, " ")
		if !ok || !slices.Contains(keys, key) {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			sum += n
		}
	}
	return sum
}

// cpuQuota returns how many CPUs the control groups let us use, and the time used so far in the group with that quota, in
// microseconds; quota 0 = no limit.
func (g cgroup) cpuQuota() (cpus float64, usage int64) {
	consider := func(quota, period, used int64) {
		if quota <= 0 || period <= 0 {
			return
		}
		if n := float64(quota) / float64(period); cpus == 0 || n < cpus {
			cpus, usage = n, used
		}
	}
	for _, dir := range g.v2 {
		at := files(g.root.path(dir))
		quota, period, _ := strings.Cut(at.text("cpu.max"), " ")
		q, err := strconv.ParseInt(quota, 10, 64)
		p, err2 := strconv.ParseInt(strings.TrimSpace(period), 10, 64)
		if err == nil && err2 == nil {
			consider(q, p, stat(at.text("cpu.stat"), "usage_usec"))
		}
	}
	for _, dir := range g.cpu {
		at := files(g.root.path(dir))
		q, ok := at.number("cpu.cfs_quota_us")
		p, ok2 := at.number("cpu.cfs_period_us")
		if ok && ok2 {
			used, _ := at.number("cpuacct.usage") // nanoseconds; there where the two controllers share a mount
			consider(q, p, used/1000)
		}
	}
	return cpus, usage
}

// pressure returns an average of the last 10 s, in percent, of the innermost group that has the file, else the machine's
// (Documentation/accounting/psi.rst). kind is "some" or "full", resource "cpu" or "memory".
func (g cgroup) pressure(resource, kind string) float64 {
	for _, dir := range g.v2 {
		if dir == "sys/fs/cgroup" || dir == "sys/fs/cgroup/unified" || strings.HasSuffix(dir, "/") {
			continue // the top of the host is the machine itself
		}
		if v, ok := parsePressure(files(g.root.path(dir)).text(resource+".pressure"), kind); ok {
			return v
		}
	}
	for _, file := range []string{"sys/fs/cgroup/" + resource + ".pressure", "proc/pressure/" + resource} {
		if v, ok := parsePressure(g.root.text(file), kind); ok {
			return v
		}
	}
	return 0
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parsePressure(text, kind string) (float64, bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != kind {
			continue
		}
		s, ok := strings.CutPrefix(f[1], "avg10=")
		v, err := strconv.ParseFloat(s, 64)
		if ok && err == nil && v >= 0 && v <= 100 {
			return v, true
		}
	}
	return 0, false
}
