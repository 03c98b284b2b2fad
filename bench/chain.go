package main

import (
	"fmt"
	"path/filepath"

	"assistant/internal/keys"
)

// allOn is ours with everything on that a request passes on its way.
const allOn = "ours, all on"

// mostAdded is how much that may add to a request, in microseconds at p50.
const mostAdded = 60

// chain measures what a key with bounds, the access log, usage and metrics add to a request: ours without any of it beside ours with all.
func chain(b *bench) error {
	if !b.hasOurs {
		return nil
	}
	const name = "1 KB, 1 connection, with a key, bounds, log and metrics"
	p50 := b.report.row(name+": p50", "µs", low)
	added := b.report.row(name+": added by these", "µs", low).limit(mostAdded)
	secret, sum := keys.New()
	file := filepath.Join(b.dir, "keys.toml")
	entry := keys.Entry{
		Name: "bench", SHA256: sum, RequestsPerMinute: 1e9, TokensPerMinute: 1e9, TokensPerMonth: 1e15, Concurrent: 1000,
	}
	if err := keys.Append(file, entry); err != nil {
		return err
	}
	site := fmt.Sprintf("log {\n\t\toutput file %s\n\t}\n\tassistant {\n\t\tmetrics /metrics\n\t}", filepath.Join(b.dir, "access.log"))
	one := fleet{models: []model{b.fake("m1")}, room: 10}
	var up []target
	for _, start := range []func() (target, error){
		func() (target, error) { return startAssistant(b, one) },
		func() (target, error) { return b.startOurs(one, "\t\tkeys "+file+"\n", site) },
	} {
		t, err := start()
		if err == nil {
			err = t.router.await(b.ctx, answers(t.addr, post(t.addr, "m1", 64, `"max_tokens":1`, "Authorization: Bearer "+secret)))
		}
		if err != nil {
			return err
		}
		up = append(up, t)
	}
	for round := range b.rounds + 1 {
		var seen [2]float64
		for i, t := range up {
			l := load{request: post(t.addr, "m1", 1<<10, answer, "Authorization: Bearer "+secret), clients: 1}
			m, err := l.run(b.ctx, t, b.seconds)
			if err != nil || m.failed > 0 {
				return fmt.Errorf("%d requests failed: %w", m.failed, err)
			}
			seen[i] = m.whole.at(.5)
		}
		if round > 0 { // the first one warms up
			p50.add(ours, seen[0])
			p50.add(allOn, seen[1])
			added.add(ours, seen[1]-seen[0])
		}
	}
	return nil
}
