package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"assistant/internal/enginetest"
)

// coldStarts are first requests of models whose engines take their time to start:
// the time from the moment an engine is ready to the arrival of the request that
// waited for it, both on the engine's own clock. Every start is a model's first.
// In turns with the routers, direct is a client that starts an engine itself and
// asks it every 2 ms: what the machine allows.
type coldStarts struct {
	name        string // of the rows
	ready       string // what the engine does until it is ready, see enginetest.Options.Ready
	count       int
	least, most time.Duration // a start takes, evenly spread
}

// cold has starts of 100 ms ± 20.
func cold(b *bench) error {
	refuses := coldStarts{"cold, engine refuses", "refuse", 50, 80 * time.Millisecond, 120 * time.Millisecond}
	if err := refuses.run(b); err != nil {
		return err
	}
	loads := coldStarts{"cold, engine answers 503", "503", 50, 80 * time.Millisecond, 120 * time.Millisecond}
	return loads.run(b)
}

// coldPeers has starts that differ by a second. Rivals look once a second whether
// an engine is ready: were all starts alike, luck would decide.
func coldPeers(b *bench) error {
	return coldStarts{"cold, starts of 0.1 to 1.1 s", "503", 40, 100 * time.Millisecond, 1100 * time.Millisecond}.run(b)
}

func (c coldStarts) run(b *bench) error {
	defer b.procs.stopAll()
	fleetOf := func(events string) fleet {
		rng := rand.New(rand.NewPCG(1, 2)) // the same delays for all, and in every run
		f := fleet{room: 2 * c.count}
		for i := range c.count {
			delay := c.least + time.Duration(rng.Int64N(int64(c.most-c.least)))
			f.models = append(f.models, b.fake(fmt.Sprintf("%s-%d", c.ready, i),
				"--start-delay", delay.String(), "--ready", c.ready, "--events", events))
		}
		return f
	}
	up, err := b.upAll("cold-"+c.ready, b.routers(false), func(_ router, events string) fleet { return fleetOf(events) })
	if err != nil {
		return err
	}
	failed := b.report.row(c.name+": errors", "", low).always(0)
	failures := map[string]float64{}
	alone := filepath.Join(b.dir, "cold-"+c.ready+"-alone.events")
	for _, m := range fleetOf(alone).models {
		for _, r := range up {
			if err := ask(r.addr, m.name); err != nil {
				failures[r.name]++
				b.notice("%s: %s: %v", r.name, m.name, err)
			}
		}
		if err := b.startAndAsk(m); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	p50 := b.report.row(c.name+": ready to forwarded p50", "ms", low).limit(3)
	p99 := b.report.row(c.name+": ready to forwarded p99", "ms", low).limit(10)
	up = append([]running{{router: router{name: direct}, events: alone}}, up...)
	for _, r := range up {
		events, err := enginetest.ReadEvents(r.events)
		if err != nil {
			return err
		}
		waits := forwarded(events)
		p50.add(r.name, waits.at(.5)/1000)
		p99.add(r.name, waits.at(.99)/1000)
		if r.name != direct {
			failed.add(r.name, failures[r.name]+float64(max(0, c.count-len(waits)-int(failures[r.name]))))
		}
	}
	return b.ctx.Err()
}

// startAndAsk is a cold start without a router.
func (b *bench) startAndAsk(m model) error {
	t, err := b.startEngine(m)
	if err != nil {
		return err
	}
	defer b.procs.stopLast()
	return ask(t.addr, m.name)
}

// forwarded returns, for each engine, the time from ready to its first request.
func forwarded(events []enginetest.Event) quantiles {
	// An engine listens before it has written that it is ready, so its first request may stand before that in the log.
	ready, begun := map[int]int64{}, map[int]int64{}
	for _, e := range events {
		switch e.Name {
		case enginetest.EventReady:
			ready[e.Pid] = e.Time
		case enginetest.EventBegin:
			if _, ok := begun[e.Pid]; !ok {
				begun[e.Pid] = e.Time
			}
		}
	}
	var waits quantiles
	for pid, at := range ready {
		if begin, ok := begun[pid]; ok {
			waits = append(waits, max(0, time.Duration(begin-at)))
		}
	}
	slices.Sort(waits)
	return waits
}
