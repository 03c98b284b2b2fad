package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A rival is another server that starts models when they are asked for. Its
// binary is named by a variable of the environment. A new one is a line of the
// table below and a function that writes its configuration and starts it.
type rival struct {
	name string
	env  string // variable that holds the path of its binary
	args string // makes the binary print its version
	real bool   // it starts the real engine only
	run  func(*bench, fleet) (target, error)
}

var rivals = []rival{
	{llamaSwap, "LLAMA_SWAP", "-version", false, startLlamaSwap},
	{llamaCpp, "LLAMA_SERVER", "--version", true, startLlamaCpp}, // its router mode
}

// findRivals keeps the rivals whose binaries are there, and notes their versions.
func (b *bench) findRivals() {
	b.bin = map[string]string{}
	for _, r := range rivals {
		path, version, err := findRival(r)
		if err != nil {
			b.leaveOut(r.name, err)
			continue
		}
		b.bin[r.name] = path
		b.report.Versions[r.name] = version
		b.rivals = append(b.rivals, r)
	}
}

func findRival(r rival) (path, version string, err error) {
	if path = os.Getenv(r.env); path == "" {
		return "", "", fmt.Errorf("%s does not name its binary", r.env)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	out, err := exec.Command(path, r.args).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%s %s: %w", path, r.args, err)
	}
	version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return path, version, nil
}

func (b *bench) isRival(name string) bool {
	return slices.ContainsFunc(b.rivals, func(r rival) bool { return r.name == name })
}

// rivalVariables lists what names the binaries.
func rivalVariables() string {
	var all []string
	for _, r := range rivals {
		all = append(all, r.env+" ("+r.name+")")
	}
	return strings.Join(all, ", ")
}

// leaveOut says why a rival is not measured.
func (b *bench) leaveOut(rival string, why error) { b.notice("%s is left out: %v", rival, why) }

// notice tells what a reader of the figures should know.
func (b *bench) notice(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// startLlamaSwap runs llama-swap (https://github.com/mostlygeek/llama-swap), with
// what its config.example.yaml calls the defaults but for these: the bound on a
// model's requests, raised unless the fleet says otherwise; no line in the log for
// each request; and -watch-config, for the edits.
func startLlamaSwap(b *bench, f fleet) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	first := b.reservePorts(len(f.models))
	file := filepath.Join(b.dir, fmt.Sprintf("llama-swap-%d.yaml", port))
	write := func(f fleet) error {
		config, err := llamaSwapConfig(f, first)
		if err != nil {
			return err
		}
		return replace(file, config)
	}
	if err := write(f); err != nil {
		return target{}, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	p, err := b.procs.start("llama-swap", b.bin[llamaSwap], "-config", file, "-listen", addr, "-watch-config")
	edit := func(m model) error {
		f.models = edited(f.models, m)
		return write(f)
	}
	return target{addr: addr, router: p, edit: edit}, err
}

// llamaSwapConfig is the fleet in llama-swap's words.
func llamaSwapConfig(f fleet, firstPort int) (string, error) {
	var y strings.Builder
	fmt.Fprintf(&y, "logLevel: warn\nstartPort: %d\nmodels:\n", firstPort)
	for _, m := range f.models {
		fmt.Fprintf(&y, "  %s:\n    cmd: %s\n    checkEndpoint: /health\n", m.name, strings.Join(m.command("${PORT}"), " "))
		if !f.defaults {
			fmt.Fprintf(&y, "    concurrencyLimit: %d\n", concurrency)
		}
	}
	switch {
	case f.room >= len(f.models):
		llamaSwapGroups(&y, false, f.models)
	case f.room == 1: // is its default
	case f.split:
		groups := make([][]model, f.room)
		for i, m := range f.models {
			groups[i%f.room] = append(groups[i%f.room], m)
		}
		llamaSwapGroups(&y, true, groups...)
	case f.room == 2:
		fmt.Fprintf(&y, "routing:\n  router:\n    use: matrix\n    settings:\n      matrix:\n        sets:\n          pairs: %q\n", pairs(f.models))
	default:
		return "", fmt.Errorf("room for %d of %d models: %w", f.room, len(f.models), errFleet)
	}
	return y.String(), nil
}

// llamaSwapGroups writes groups that leave each other alone, in each of which one
// model lives at a time (swap), or all do.
func llamaSwapGroups(y *strings.Builder, swap bool, groups ...[]model) {
	y.WriteString("routing:\n  router:\n    use: group\n    settings:\n      groups:\n")
	for i, members := range groups {
		fmt.Fprintf(y, "        g%d:\n          swap: %v\n          exclusive: false\n          members: [%s]\n", i, swap, names(members))
	}
}

// pairs is the expression for any two of the models.
func pairs(models []model) string {
	var all []string
	for i, m := range models {
		for _, n := range models[:i] {
			all = append(all, m.name+" & "+n.name)
		}
	}
	return strings.Join(all, " | ")
}

func names(models []model) string {
	var all []string
	for _, m := range models {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// edited is a copy of models with m in the place of the one of its name.
func edited(models []model, m model) []model {
	all := append([]model(nil), models...)
	for i := range all {
		if all[i].name == m.name {
			all[i] = m
		}
	}
	return all
}

// reservePorts returns the first of n ports in a row, for those who want to be
// told a range. They lie below Linux's range for outgoing connections.
func (b *bench) reservePorts(n int) int {
	const lowest, highest = 10000, 32000
	if b.nextPort < lowest || b.nextPort+n > highest {
		b.nextPort = lowest
	}
	first := b.nextPort
	b.nextPort += n
	return first
}

// errFleet says that a rival has no way to be told this.
var errFleet = errors.New("it cannot be configured so")
