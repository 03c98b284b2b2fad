package usage

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// WriteMetrics writes what was ever used, by key and model, in Prometheus' text format.
func (l *Log) WriteMetrics(w io.Writer) {
	l.mu.Lock()
	totals := make(map[total]Counts, len(l.totals))
	for of, c := range l.totals {
		totals[of] = *c
	}
	l.mu.Unlock()
	if len(totals) == 0 {
		return
	}
	all := slices.SortedFunc(maps.Keys(totals), func(a, b total) int {
		return strings.Compare(a.key+"\x00"+a.model, b.key+"\x00"+b.model)
	})
	const requests, tokens = "assistant_key_requests_total", "assistant_key_tokens_total"
	head(w, requests)
	for _, of := range all {
		fmt.Fprintf(w, "%s{key=%q,model=%q} %d\n", requests, of.key, of.model, totals[of].Requests)
	}
	head(w, tokens)
	for _, of := range all {
		fmt.Fprintf(w, "%s{key=%q,model=%q,type=\"prompt\"} %d\n", tokens, of.key, of.model, totals[of].Prompt)
		fmt.Fprintf(w, "%s{key=%q,model=%q,type=\"completion\"} %d\n", tokens, of.key, of.model, totals[of].Completion)
	}
}

func head(w io.Writer, name string) {
	fmt.Fprintf(w, "# HELP %s\n# TYPE %s counter\n", name, name) // as the metrics package writes them
}
