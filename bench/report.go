package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what a run found.
type report struct {
	Date     time.Time `json:"date"`
	Machine  string    `json:"machine"`
	CPUs     int       `json:"cpus"`
	Go       string    `json:"go"`
	LoadThen string    `json:"load_before"` // Linux's load averages when the run began
	Rounds   int       `json:"rounds"`
	Seconds  float64   `json:"seconds"` // a peer's share of a round
	Rows     []*row    `json:"rows"`
}

// row is one figure of every peer, a sample a round.
type row struct {
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Samples map[string][]float64 `json:"samples"`
	Goal    string               `json:"goal,omitempty"` // of ours
	Met     *bool                `json:"met,omitempty"`

	better direction
	met    func() bool
}

// direction says which figures of a row are the better ones.
type direction int

const (
	low direction = iota
	high
)

func newReport(rounds int, seconds float64) *report {
	r := &report{
		Date: time.Now(), Machine: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Rounds: rounds, Seconds: seconds,
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "model name\t: ")
		name, _, _ := strings.Cut(after, "\n")
		r.Machine += ", " + name
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.LoadThen = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return r
}

func (r *report) row(name, unit string, better direction) *row {
	w := &row{Name: name, Unit: unit, Samples: map[string][]float64{}, better: better}
	r.Rows = append(r.Rows, w)
	return w
}

func (w *row) add(peer string, v float64) { w.Samples[peer] = append(w.Samples[peer], v) }

// atMost sets the goal: at most factor times plain Caddy's median.
func (w *row) atMost(factor float64) *row {
	w.Goal = fmt.Sprintf("≤ %v × caddy", factor)
	w.met = func() bool { return w.median(ours) <= factor*w.median(caddy) }
	return w
}

// atLeast sets the goal: at least factor times plain Caddy's median.
func (w *row) atLeast(factor float64) *row {
	w.Goal = fmt.Sprintf("≥ %v × caddy", factor)
	w.met = func() bool { return w.median(ours) >= factor*w.median(caddy) }
	return w
}

// limit sets the goal: a median of at most v.
func (w *row) limit(v float64) *row {
	w.Goal = fmt.Sprintf("≤ %v %s", v, w.Unit)
	w.met = func() bool { return w.median(ours) <= v }
	return w
}

// median is 0 for a peer without samples.
func (w *row) median(peer string) float64 {
	s := slices.Sorted(slices.Values(w.Samples[peer]))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func (w *row) best(peer string) float64 {
	if w.better == high {
		return slices.Max(w.Samples[peer])
	}
	return slices.Min(w.Samples[peer])
}

// settle decides on the goals.
func (r *report) settle() {
	for _, w := range r.Rows {
		if w.met != nil && len(w.Samples[ours]) > 0 {
			met := w.met()
			w.Met = &met
		}
	}
}

// peers are the names in the order of their first sample.
func (r *report) peers() []string {
	var names []string
	for _, known := range []string{direct, caddy, ours} {
		if slices.ContainsFunc(r.Rows, func(w *row) bool { return len(w.Samples[known]) > 0 }) {
			names = append(names, known)
		}
	}
	for _, w := range r.Rows {
		for _, n := range slices.Sorted(maps.Keys(w.Samples)) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// print writes a table: medians over the rounds with the best in brackets, and
// ours as a multiple of plain Caddy's.
func (r *report) print(to io.Writer) {
	r.settle()
	fmt.Fprintf(to, "%s, %d CPUs, %s, load before %s; %d rounds of %v s a peer, in turns; median (best)\n\n",
		r.Machine, r.CPUs, r.Go, r.LoadThen, r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	peers := r.peers()
	fmt.Fprintf(t, "\tunit\t%s\tours/caddy\tgoal\t\n", strings.Join(peers, "\t"))
	for _, w := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t", w.Name, w.Unit)
		for _, p := range peers {
			switch n := len(w.Samples[p]); n {
			case 0:
				fmt.Fprint(t, "\t")
			case 1:
				fmt.Fprintf(t, "%s\t", short(w.median(p)))
			default:
				fmt.Fprintf(t, "%s (%s)\t", short(w.median(p)), short(w.best(p)))
			}
		}
		if c := w.median(caddy); c != 0 && len(w.Samples[ours]) > 0 {
			fmt.Fprintf(t, "%.2f", w.median(ours)/c)
		}
		fmt.Fprintf(t, "\t%s\t", w.Goal)
		if w.Met != nil {
			fmt.Fprint(t, map[bool]string{true: "PASS", false: "MISS"}[*w.Met])
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // to a terminal or a pipe
}

// short prints three or more digits and no exponent.
func short(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// save writes the report, samples and all, to a file in dir named by the date.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, r.Date.Format("2006-01-02-150405")+".json")
	fmt.Fprintln(os.Stderr, "\nevery sample is in", file)
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
