//go:build linux

package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"

	"assistant/lifecycle"
)

// series are a metric's labels, its name as __name__ among them.
type series map[string]string

// seriesOf reads Prometheus' text format.
func seriesOf(t *testing.T, text string) (all []series) {
	t.Helper()
	line := regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	label := regexp.MustCompile(`([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"`)
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Errorf("no line of metrics: %s", l)
			continue
		}
		s := series{"__name__": m[1]}
		for _, kv := range label.FindAllStringSubmatch(m[2], -1) {
			s[kv[1]] = kv[2]
		}
		all = append(all, s)
	}
	return all
}

// matches reports whether a series has the labels that a selector asks for.
func (s series) matches(filters []metricsql.LabelFilter) bool {
	for _, f := range filters {
		is := s[f.Label] == f.Value
		if f.IsRegexp {
			is = regexp.MustCompile("^(?:" + f.Value + ")$").MatchString(s[f.Label])
		}
		if is == f.IsNegative {
			return false
		}
	}
	return true
}

// busySite is one on which all that is measured has happened.
func busySite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.onGPUs(t, "a", "b", "c") // two have room
	s.model("bad", "", "--exit-code", "1")
	s.model("dies", "", "--die-after-tokens", "2")
	s.model("absent", sourced(newPublisher(t).URL+"/absent.gguf", ""))
	s.remotes(map[string]any{"url": newElsewhere(t, "far").URL})
	s.start()
	for _, model := range []string{"a", "a", "b", "c", "bad", "dies", "absent", "far"} {
		s.ask(http.MethodPost, chatPath, fmt.Sprintf(`{"model":%q,"stream":true,"stream_options":{"include_usage":true},"messages":[]}`, model))
	}
	s.eventually("memory of a device was given back", func() bool { return strings.Contains(s.metrics(), "assistant_device_release_seconds_count") })
	if n := fmt.Sprintf(`reason=%q} 1`, lifecycle.ReasonRoom); !strings.Contains(s.metrics(), n) {
		t.Fatalf("nobody was evicted:\n%s", s.metrics())
	}
	s.eventually("the engine that died was seen", func() bool { return strings.Contains(s.metrics(), "assistant_engine_crashes_total") })
	return s
}

type dashboard struct {
	Panels []struct {
		Title   string
		Type    string
		Targets []struct{ Expr, LegendFormat string }
	}
}

// Every query of the dashboard finds series that we have, and groups and names them by labels that they have; and whatever is measured is
// in the documentation, as that says.
func TestDashboardAndDocumentation(t *testing.T) {
	all := seriesOf(t, busySite(t).metrics())

	file, err := os.ReadFile("../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(file, &d); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries++
			checkQuery(t, p.Title, target.Expr, target.LegendFormat, all)
		}
	}
	if queries < 30 {
		t.Errorf("only %d queries were checked", queries)
	}
	checkDocumentation(t, all)
}

func checkQuery(t *testing.T, title, query, legend string, all []series) {
	t.Helper()
	expr, err := metricsql.Parse(strings.NewReplacer("$__rate_interval", "5m", "$model", ".*").Replace(query))
	if err != nil {
		t.Errorf("%s: %s: %v", title, query, err)
		return
	}
	var found []series
	var groups [][]string // labels that are left by aggregations
	metricsql.VisitAll(expr, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				if len(filters) == 0 || filters[0].Label != "__name__" {
					continue // a label's, or what stands for a number
				}
				i := slices.IndexFunc(all, func(s series) bool { return s.matches(filters) })
				if i < 0 {
					t.Errorf("%s: %s: no series matches %s", title, query, e.AppendString(nil))
					continue
				}
				found = append(found, all[i])
			}
		case *metricsql.AggrFuncExpr:
			groups = append(groups, e.Modifier.Args)
		default:
		}
	})
	if len(found) == 0 {
		t.Errorf("%s: %s: no series in it", title, query)
	}
	has := func(label string) bool {
		return !slices.ContainsFunc(found, func(s series) bool { _, ok := s[label]; return !ok })
	}
	for _, labels := range groups {
		for _, label := range labels {
			if !has(label) {
				t.Errorf("%s: %s: groups by %s, which the series lack", title, query, label)
			}
		}
	}
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		left := !slices.ContainsFunc(groups, func(labels []string) bool { return !slices.Contains(labels, m[1]) })
		if !left || !has(m[1]) {
			t.Errorf("%s: the legend %q of %s names %s, which is not there", title, legend, query, m[1])
		}
	}
}

// checkDocumentation compares the tables of metrics with what there is: names, and labels where a table has them.
func checkDocumentation(t *testing.T, all []series) {
	t.Helper()
	labels := map[string]map[string]bool{} // by metric
	for _, s := range all {
		name := s["__name__"]
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, part)
		}
		if labels[name] == nil {
			labels[name] = map[string]bool{}
		}
		for label := range s {
			labels[name][label] = true
		}
	}
	text, err := os.ReadFile("../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{"assistant_contexts_dropped_total": true} // none was: its text is written by hand
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !regexp.MustCompile("^ `(assistant|gen_ai)_").MatchString(cells[1]) {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(cells[1], -1) {
			name := m[1]
			if labels[name] == nil && !documented[name] {
				t.Errorf("the documentation has %s, which there is not", name)
			}
			documented[name] = true
			if len(cells) < 5 || labels[name] == nil {
				continue
			}
			for _, label := range code.FindAllStringSubmatch(cells[2], -1) {
				if !labels[name][label[1]] {
					t.Errorf("the documentation has the label %s of %s, which it has not", label[1], name)
				}
			}
			for label := range labels[name] {
				if label != "__name__" && label != "le" && !strings.Contains(cells[2], "`"+label+"`") {
					t.Errorf("the documentation lacks the label %s of %s", label, name)
				}
			}
		}
	}
	for name := range labels {
		if !documented[name] {
			t.Errorf("the documentation lacks %s", name)
		}
	}
}
