package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"assistant/internal/enginetest"
)

const (
	editTrials = 3
	editEvery  = 5 * time.Millisecond // between two requests of a client
	editLimit  = 30 * time.Second     // after which an edit is taken for lost
)

// edit changes the command of a running model among a thousand, while clients ask
// it and another running model: how long until an engine of the new command has
// the first request, and what does the other model notice?
func edit(b *bench) error {
	defer b.procs.stopAll()
	const n = 1000
	up, err := b.upAll("edit", b.routers(false), func(_ router, events string) fleet {
		return fleet{models: b.fakes(n, "--events", events), room: n}
	})
	if err != nil {
		return err
	}
	up = slices.DeleteFunc(up, func(r running) bool { return r.edit == nil })
	name := "an edit among " + plural(n)
	force := b.report.row(name+": in force after", "ms", low)
	failed := b.report.row(name+": errors of the edited model", "", low).always(0)
	others := b.report.row(name+": errors of another model", "", low).always(0)
	restarts := b.report.row(name+": restarts of another model", "", low).always(0)
	for trial := range editTrials {
		for _, r := range up {
			e, err := b.editOne(r, fmt.Sprintf("edit-%d", trial))
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if e.after > 0 {
				force.add(r.name, e.after.Seconds()*1e3)
			} else {
				b.notice("%s: an edit was not in force after %v", r.name, editLimit)
			}
			failed.add(r.name, float64(e.edited.failed))
			others.add(r.name, float64(e.other.failed))
			restarts.add(r.name, float64(e.restarts))
		}
	}
	return b.ctx.Err()
}

// An edition is what an edit did.
type edition struct {
	after         time.Duration // 0 = it was never in force
	edited, other measured
	restarts      int // of the other model
}

// editOne gives the engine of m1 another name, by which it is known in its events.
func (b *bench) editOne(r running, alias string) (e edition, err error) {
	for _, m := range []string{"m0", "m1"} {
		if err := ask(r.addr, m); err != nil {
			return e, err
		}
	}
	ctx, stop := context.WithTimeout(b.ctx, editLimit)
	defer stop()
	var clients sync.WaitGroup
	clients.Go(func() { e.other = steady(ctx, r.addr, "m0") })
	clients.Go(func() { e.edited = steady(ctx, r.addr, "m1") })
	m := b.fake("m1", "--events", r.events)
	m.argv = append(m.argv, "--alias", alias) // the last one counts
	began := time.Now()
	err = r.edit(m)
	for err == nil && e.after == 0 && ctx.Err() == nil {
		time.Sleep(4 * editEvery) // the events have their own clock
		var events []enginetest.Event
		events, err = enginetest.ReadEvents(r.events)
		e.after = since(events, alias, began.UnixNano())
	}
	// A router that notices late what an edit did to the others has this long.
	time.Sleep(500 * time.Millisecond)
	stop()
	clients.Wait()
	if err != nil {
		return e, err
	}
	events, err := enginetest.ReadEvents(r.events)
	e.restarts = lives(events, began.UnixNano()).starts["m0"]
	return e, err
}

// since is the time from began (nanoseconds since the epoch) to the first request
// that came to an engine of that alias; 0 = none came.
func since(events []enginetest.Event, alias string, began int64) time.Duration {
	for _, e := range events {
		if e.Alias == alias && e.Name == enginetest.EventBegin {
			return time.Duration(e.Time - began)
		}
	}
	return 0
}

// steady asks a model again and again until ctx ends.
func steady(ctx context.Context, addr, model string) (m measured) {
	c := client{addr: addr, timeout: patience}
	defer c.close()
	l := load{request: post(addr, model, 1<<10, answer)}
	for ctx.Err() == nil {
		m.count(l.once(&c))
		time.Sleep(editEvery)
	}
	return m
}
