package launcher

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// members returns the processes that carry the mark, the program itself among them
// unless it took the mark off.
func (p *Process) members() []int {
	pids := marked(p.Mark, false)
	p.note(pids)
	return pids
}

// marked returns the processes whose mark is the given one or, with prefix, begins with it.
// Processes of other users are not seen.
func marked(mark string, prefix bool) []int {
	want := []byte(markVar + "=" + mark)
	if !prefix {
		want = append(want, 0)
	}
	var pids []int
	for _, pid := range allPIDs() {
		env, err := os.ReadFile(procPath(pid, "environ"))
		if err != nil || len(env) == 0 {
			continue
		}
		if bytes.HasPrefix(env, want) || bytes.Contains(env, append([]byte{0}, want...)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func allPIDs() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// anyAlive reports whether any of the processes is more than a zombie. One whose first thread has ended shows as a zombie
// while others still close its files, its sockets among them: then it still has threads.
func anyAlive(pids []int) bool {
	const state, threads = 0, 20 - 3 // fields 3 and 20 of proc(5), counted from the third
	for _, pid := range pids {
		fields := stat(pid)
		if len(fields) <= threads {
			continue
		}
		dead := fields[state] == "Z" || fields[state] == "X"
		if !dead || fields[threads] != "1" && fields[threads] != "0" {
			return true
		}
	}
	return false
}

// stat returns the fields of /proc/pid/stat from the third, the state, on (proc(5)).
func stat(pid int) []string {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return nil
	}
	i := bytes.LastIndexByte(b, ')') // the second field is the name, which may hold anything
	if i < 0 {
		return nil
	}
	return strings.Fields(string(b[i+1:]))
}

// StartTime is when the process started, in clock ticks since boot; "" if there is none.
// With the process number it names a process for good.
func StartTime(pid int) string {
	const starttime = 22 - 3 // field 22 of proc(5), counted from the third
	fields := stat(pid)
	if len(fields) <= starttime {
		return ""
	}
	return fields[starttime]
}

// Owner says who listens on a TCP address of this machine.
type Owner struct {
	Found bool // somebody does
	Ours  bool // it is the process asked about, or what it started
	PID   int  // who it is, if that could be told; else 0
}

// Listener tells who listens on the TCP address. It looks at the program first and at others
// only if it must.
func (p *Process) Listener(addr netip.AddrPort) (Owner, error) {
	inodes, err := listening(addr)
	if err != nil || len(inodes) == 0 {
		return Owner{}, err
	}
	if holds(p.PID, inodes) {
		return Owner{Found: true, Ours: true, PID: p.PID}, nil
	}
	for _, pid := range append(p.members(), groupMembers(p.PID)...) {
		if holds(pid, inodes) {
			return Owner{Found: true, Ours: true, PID: pid}, nil
		}
	}
	for _, pid := range allPIDs() {
		if holds(pid, inodes) {
			return Owner{Found: true, PID: pid}, nil
		}
	}
	return Owner{Found: true}, nil
}

// HolderOf names the process that listens on the address, for messages.
func HolderOf(addr netip.AddrPort) string {
	inodes, err := listening(addr)
	if err != nil || len(inodes) == 0 {
		return "another process"
	}
	for _, pid := range allPIDs() {
		if holds(pid, inodes) {
			name, _ := os.ReadFile(procPath(pid, "comm"))
			return "process " + strconv.Itoa(pid) + " (" + strings.TrimSpace(string(name)) + ")"
		}
	}
	return "another process"
}

func groupMembers(pgid int) []int {
	var pids []int
	for _, pid := range allPIDs() {
		if groupOf(pid) == pgid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// groupOf returns the process group of a process; 0 if there is no such process.
func groupOf(pid int) int {
	const pgrp = 5 - 3 // field 5 of proc(5), counted from the third
	fields := stat(pid)
	if len(fields) <= pgrp {
		return 0
	}
	group, _ := strconv.Atoi(fields[pgrp]) // the kernel writes numbers
	return group
}

// holds reports whether the process has one of the sockets open.
func holds(pid int, inodes map[string]bool) bool {
	dir := procPath(pid, "fd")
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && inodes[target] {
			return true
		}
	}
	return false
}

// self is the running binary, even if its file was replaced meanwhile.
func self() (string, error) { return "/proc/self/exe", nil }
