package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How the real engine, llama.cpp's llama-server, is run: by all peers alike.
const (
	realContext = 1024 // tokens, of all slots together
	realSlots   = 4
)

// realFlags keep engines from fighting for the machine's CPUs.
var realFlags = []string{"-t", "1"}

const (
	realModels = 10
	realStart  = 100 * time.Millisecond // about, of a model of 1 MB
)

// realEngine has the real engine and ten copies of a tiny model that only counts: one
// connection to a warm one, each one's first request, and the crowd in room for 2.
// It is where llama.cpp's router mode takes part, which starts no other engine.
func realEngine(b *bench) error {
	server, ok := b.bin[llamaCpp]
	if !ok {
		return nil // findRivals has said why
	}
	models, err := b.tinyModels(server)
	if err != nil {
		b.notice("no tiny models, so the real engine is not measured: %v", err)
		return nil
	}
	if err := b.realWarm(models); err != nil {
		return err
	}
	b.procs.stopAll()
	c := crowd{
		name: "real engine, 10 tiny models in room for 2", drain: time.Second, start: realStart,
		models: func(string) []model { return models },
		file:   "real-room", routers: b.routers(true), real: true,
	}
	_, err = c.run(b)
	return err
}

// realWarm asks all models once, and then one of them in turns with a server
// that has no router before it.
func (b *bench) realWarm(models []model) error {
	up, err := b.upAll("real", b.routers(true), func(router, string) fleet {
		return fleet{models: models, room: len(models)}
	})
	if err != nil {
		return err
	}
	first := b.report.row("real engine, tiny model: first request of a cold one", "ms", low)
	failed := b.report.row("real engine, tiny model: errors", "", low).always(0)
	for _, m := range models {
		for _, r := range up {
			begin := time.Now()
			if err := ask(r.addr, m.name); err != nil {
				failed.add(r.name, 1)
				b.notice("%s: %s: %v", r.name, m.name, err)
				continue
			}
			first.add(r.name, time.Since(begin).Seconds()*1e3)
		}
	}
	alone, err := b.startEngine(models[0])
	if err != nil {
		return err
	}
	up = append([]running{{router: router{name: direct}, target: alone}}, up...)
	p50 := b.report.row("real engine, tiny model: p50 at 1 connection", "µs", low)
	added := b.report.row("real engine, tiny model: p50 added", "µs", low)
	var base float64
	for round := range b.rounds + 1 {
		for _, r := range up {
			m, err := (load{request: post(r.addr, models[0].name, 64, answer), clients: 1}).run(b.ctx, r.target, b.seconds/2)
			if err != nil {
				return err
			}
			if m.failed > 0 {
				b.notice("%s: %d requests failed, the first by: %v", r.name, m.failed, m.failure)
			}
			if round == 0 || m.requests == 0 {
				continue
			}
			v := m.whole.at(.5)
			p50.add(r.name, v)
			if r.name == direct {
				base = v
				continue
			}
			added.add(r.name, v-base)
			failed.add(r.name, float64(m.failed))
		}
	}
	return nil
}

// tinyModels makes a model, and copies of it under other names.
func (b *bench) tinyModels(server string) ([]model, error) {
	dir := filepath.Join(b.dir, "gguf")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	one := filepath.Join(b.dir, "tiny.gguf")
	if out, err := exec.CommandContext(b.ctx, "python3", "scripts/make_tiny.py", one).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("scripts/make_tiny.py: %w: %s", err, out)
	}
	models := make([]model, realModels)
	for i := range models {
		name := fmt.Sprintf("m%d", i)
		file := filepath.Join(dir, name+".gguf")
		if err := os.Link(one, file); err != nil {
			return nil, err
		}
		argv := append([]string{
			server, "-m", file, "--host", "127.0.0.1", "--port", "{{port}}", "--alias", name,
			"-c", strconv.Itoa(realContext), "-np", strconv.Itoa(realSlots), "--no-webui",
		}, realFlags...)
		models[i] = model{name: name, argv: argv, gguf: file}
	}
	return models, nil
}

// startLlamaCpp runs llama-server in its router mode, in which it finds models in
// a directory and gives its own flags to the servers it starts.
func startLlamaCpp(b *bench, f fleet) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	argv := append([]string{
		b.bin[llamaCpp], "--models-dir", filepath.Dir(f.models[0].gguf), "--models-max", strconv.Itoa(f.room),
		"--host", "127.0.0.1", "--port", strconv.Itoa(port),
		"-c", strconv.Itoa(realContext), "-np", strconv.Itoa(realSlots), "--no-webui",
	}, realFlags...)
	p, err := b.procs.start("llama.cpp", argv...)
	return target{addr: "127.0.0.1:" + strconv.Itoa(port), router: p}, err
}

// mostRealEngines counts the engines below a process until ctx ends. It looks
// every 20 ms, which costs the machine little, and misses what is shorter.
func mostRealEngines(ctx context.Context, root int) (most int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			most = max(most, realEngines(root))
		case <-ctx.Done():
			return most
		}
	}
}

// realEngines counts the engines below a process, of which there may be others in
// between. It is 0 where there is no /proc.
func realEngines(root int) int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	children := map[int][]int{}
	engine := map[int]bool{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if pid, parent, name, state, ok := parseStat(string(b)); ok {
			children[parent] = append(children[parent], pid)
			engine[pid] = strings.HasPrefix(name, "llama-server") && state != "Z"
		}
	}
	n := 0
	for below := children[root]; len(below) > 0; {
		pid := below[0]
		below = append(below[1:], children[pid]...)
		if engine[pid] {
			n++
		}
	}
	return n
}

// parseStat reads the first fields of /proc/pid/stat (proc_pid_stat(5)): pid
// (name) state parent. The name may hold spaces and brackets.
func parseStat(s string) (pid, parent int, name, state string, ok bool) {
	head, rest, found := strings.Cut(s, " (")
	end := strings.LastIndex(rest, ") ")
	if !found || end < 0 {
		return 0, 0, "", "", false
	}
	fields := strings.Fields(rest[end+2:])
	if len(fields) < 2 {
		return 0, 0, "", "", false
	}
	pid, err := strconv.Atoi(head)
	if err != nil {
		return 0, 0, "", "", false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, rest[:end], fields[0], err == nil
}
