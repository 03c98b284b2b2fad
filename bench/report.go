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
	"time"
	"unicode/utf8"
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

	Versions map[string]string `json:"versions,omitempty"` // of the binaries, as they say it
}

// row is one figure of every peer, a sample a round.
type row struct {
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Samples map[string][]float64 `json:"samples"`
	Ratios  map[string]float64   `json:"ratios,omitempty"` // our median ÷ that of each other router
	Goals   []goal               `json:"goals,omitempty"`  // of ours

	better direction
}

// goal is what a figure of ours is to be.
type goal struct {
	Text string `json:"goal"`
	Met  *bool  `json:"met,omitempty"` // nil = not measured

	peer string // whom it speaks of; "" = nobody
	met  func() bool
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
		Rounds: rounds, Seconds: seconds, Versions: map[string]string{},
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

func (w *row) goal(peer, text string, met func() bool) *row {
	w.Goals = append(w.Goals, goal{Text: text, peer: peer, met: met})
	return w
}

// atMost adds the goal: at most factor times the peer's median.
func (w *row) atMost(factor float64, peer string) *row {
	return w.goal(peer, fmt.Sprintf("≤ %v × %s", factor, peer), func() bool { return w.median(ours) <= factor*w.median(peer) })
}

// atLeast adds the goal: at least factor times the peer's median.
func (w *row) atLeast(factor float64, peer string) *row {
	return w.goal(peer, fmt.Sprintf("≥ %v × %s", factor, peer), func() bool { return w.median(ours) >= factor*w.median(peer) })
}

// limit adds the goal: a median of at most v.
func (w *row) limit(v float64) *row {
	return w.goal("", strings.TrimSpace(fmt.Sprintf("≤ %v %s", v, w.Unit)), func() bool { return w.median(ours) <= v })
}

// floor adds the goal: a median of at least v.
func (w *row) floor(v float64) *row {
	return w.goal("", fmt.Sprintf("≥ %v %s", v, w.Unit), func() bool { return w.median(ours) >= v })
}

// always adds the goal: never more than v.
func (w *row) always(v float64) *row {
	return w.goal("", strings.TrimSpace(fmt.Sprintf("never > %v %s", v, w.Unit)), func() bool { return slices.Max(w.Samples[ours]) <= v })
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

// settle decides on the goals and divides. A goal that speaks of a peer that was
// not measured is none.
func (r *report) settle() {
	for _, w := range r.Rows {
		measured := func(peer string) bool { return peer == "" || len(w.Samples[peer]) > 0 }
		w.Goals = slices.DeleteFunc(w.Goals, func(g goal) bool { return !measured(g.peer) })
		if !measured(ours) {
			continue
		}
		for i, g := range w.Goals {
			met := g.met()
			w.Goals[i].Met = &met
		}
		w.Ratios = map[string]float64{}
		for peer := range w.Samples {
			if m := w.median(peer); m != 0 && peer != ours && peer != direct {
				w.Ratios[peer] = w.median(ours) / m
			}
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

// print writes a table: medians over the rounds with the best in brackets, ours
// as a multiple of each other router's, and the goals.
func (r *report) print(to io.Writer) {
	r.settle()
	fmt.Fprintf(to, "%s, %d CPUs, %s, load before %s; %d rounds of %v s a peer, in turns; median (best)\n",
		r.Machine, r.CPUs, r.Go, r.LoadThen, r.Rounds, r.Seconds)
	for _, rival := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(to, "%s: %s\n", rival, r.Versions[rival])
	}
	fmt.Fprintln(to)
	peers := r.peers()
	routers := slices.DeleteFunc(slices.Clone(peers), func(p string) bool { return p == ours || p == direct })
	head := append([]string{"", "unit"}, peers...)
	for _, p := range routers {
		head = append(head, "ours/"+p)
	}
	t := table{append(head, "goals")}
	group := ""
	for _, w := range r.Rows {
		of, figure, grouped := strings.Cut(w.Name, ": ")
		if grouped {
			figure = "  " + figure
		} else {
			figure = of
		}
		if of != group && grouped {
			t = append(t, []string{of})
		}
		group = of
		t = append(t, w.cells(figure, peers, routers))
	}
	t.print(to)
}

// cells are the row's in the table.
func (w *row) cells(name string, peers, routers []string) []string {
	cells := []string{name, w.Unit}
	for _, p := range peers {
		cells = append(cells, w.cell(p))
	}
	for _, p := range routers {
		ratio := ""
		if v, ok := w.Ratios[p]; ok {
			ratio = fmt.Sprintf("%.2f", v)
		}
		cells = append(cells, ratio)
	}
	var goals []string
	for _, g := range w.Goals {
		goals = append(goals, g.String())
	}
	return append(cells, strings.Join(goals, "; "))
}

// table is lines of cells. A line of one cell is a title, and as long as it likes.
type table [][]string

func (t table) print(to io.Writer) {
	width := make([]int, len(t[0]))
	for _, line := range t {
		for i, c := range line {
			if len(line) > 1 {
				width[i] = max(width[i], utf8.RuneCountInString(c))
			}
		}
	}
	for _, line := range t {
		var out strings.Builder
		for i, c := range line {
			fmt.Fprintf(&out, "%-*s  ", width[i], c) // pads by runes
		}
		fmt.Fprintln(to, strings.TrimRight(out.String(), " "))
	}
}

// cell is a peer's median, and its best where there are several samples.
func (w *row) cell(peer string) string {
	switch len(w.Samples[peer]) {
	case 0:
		return ""
	case 1:
		return short(w.median(peer))
	}
	return fmt.Sprintf("%s (%s)", short(w.median(peer)), short(w.best(peer)))
}

func (g goal) String() string {
	switch {
	case g.Met == nil:
		return g.Text + " not measured"
	case *g.Met:
		return g.Text + " PASS"
	}
	return g.Text + " MISS"
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
