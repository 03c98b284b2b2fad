package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Usage returns what processes use of the host's memory, in bytes: hard is what only swap could take away (anonymous and
// shared memory), soft is pages of files, which can be read again. What several processes share is counted
// in shares (PSS, proc_pid_smaps(5)); where the kernel does not give it (before 4.14, or without the right to read it) resident pages of
// statm stand in. Processes that have ended count as nothing; it is an error if all have. Linux only.
func Usage(pids []int) (hard, soft int64, err error) { return usage("/", pids) }

func usage(root files, pids []int) (hard, soft int64, err error) {
	seen := false
	for _, pid := range pids {
		at := files(root.path("proc/" + strconv.Itoa(pid)))
		h, s, ok := at.rollup()
		if !ok {
			h, s, ok = at.statm()
		}
		seen = seen || ok
		hard, soft = hard+h, soft+s
	}
	if !seen {
		return 0, 0, fmt.Errorf("memory of processes %v: %w", pids, fs.ErrNotExist)
	}
	return hard, soft, nil
}

// rollup reads smaps_rollup. Pss_Anon and the like are there since Linux 5.4; before, Pss alone is.
func (f files) rollup() (hard, soft int64, ok bool) {
	text := f.text("smaps_rollup")
	field := func(name string) (int64, bool) {
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, name+":"); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
				return n << 10, err == nil && n >= 0 && n < 1<<50
			}
		}
		return 0, false
	}
	anon, ok1 := field("Pss_Anon")
	shmem, ok2 := field("Pss_Shmem")
	file, ok3 := field("Pss_File")
	if ok1 && ok2 && ok3 {
		return anon + shmem, file, true
	}
	pss, ok1 := field("Pss")
	anon, ok2 = field("Anonymous")
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	anon = min(anon, pss)
	return anon, pss - anon, true
}

// statm reads /proc/PID/statm: size, resident and shared (files and shared memory) pages.
func (f files) statm() (hard, soft int64, ok bool) {
	fields := strings.Fields(f.text("statm"))
	if len(fields) < 3 {
		return 0, 0, false
	}
	resident, err := strconv.ParseInt(fields[1], 10, 64)
	shared, err2 := strconv.ParseInt(fields[2], 10, 64)
	if errors.Join(err, err2) != nil || shared < 0 || resident < shared || resident > 1<<40 {
		return 0, 0, false
	}
	page := int64(os.Getpagesize())
	return (resident - shared) * page, shared * page, true
}
