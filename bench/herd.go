package main

import (
	"fmt"
	"sync"
	"time"

	"assistant/internal/enginetest"
)

const (
	herdSize   = 200 // clients that ask a cold model at once
	herdTrials = 3
)

// herd asks a cold model from many clients at once: every router as it comes, and
// the rivals with the bound on a model's requests raised, too.
func herd(b *bench) error {
	if err := b.herds(fmt.Sprintf("%d first requests", herdSize), b.routers(false), true); err != nil {
		return err
	}
	if len(b.rivals) == 0 {
		return nil
	}
	return b.herds(fmt.Sprintf("%d first requests, limits raised", herdSize), b.routers(false), false)
}

func (b *bench) herds(name string, routers []router, defaults bool) error {
	defer b.procs.stopAll()
	up, err := b.upAll(fmt.Sprintf("herd-%v", defaults), routers, func(_ router, events string) fleet {
		return fleet{models: b.fakes(herdTrials, "--start-delay", "300ms", "--events", events), room: 10, defaults: defaults}
	})
	if err != nil {
		return err
	}
	failed := b.report.row(name+": errors", "", low).always(0)
	spawned := b.report.row(name+": engines started", "", low).always(1)
	last := b.report.row(name+": ready to last answer", "ms", low).limit(50)
	// What the machine allows: the same clients at an engine that is ready.
	alone, err := startDirect(b)
	if err != nil {
		return err
	}
	for trial := range herdTrials {
		begin := time.Now()
		if _, end := stampede(alone.addr, "m1"); !end.IsZero() {
			last.add(direct, end.Sub(begin).Seconds()*1e3)
		}
		model := fmt.Sprintf("m%d", trial)
		for _, r := range up {
			failures, end := stampede(r.addr, model)
			events, err := enginetest.ReadEvents(r.events)
			if err != nil {
				return err
			}
			starts, ready := started(events, model)
			failed.add(r.name, float64(failures))
			spawned.add(r.name, float64(starts))
			if ready > 0 && failures < herdSize {
				last.add(r.name, float64(end.UnixNano()-ready)/1e6)
			}
		}
	}
	return b.ctx.Err()
}

// stampede asks a model from all clients of a herd at once. It returns how many
// got no answer, and when the last of the others got one.
func stampede(addr, model string) (failures int, last time.Time) {
	var all sync.WaitGroup
	ends := make(chan time.Time, herdSize) // the zero time for a failure
	for range herdSize {
		all.Go(func() {
			if ask(addr, model) != nil {
				ends <- time.Time{}
				return
			}
			ends <- time.Now()
		})
	}
	all.Wait()
	for range herdSize {
		switch end := <-ends; {
		case end.IsZero():
			failures++
		case end.After(last):
			last = end
		}
	}
	return failures, last
}

// started is how many engines of a model started, and when one was ready (in
// nanoseconds since the epoch; 0 = never).
func started(events []enginetest.Event, model string) (starts int, ready int64) {
	for _, e := range events {
		switch {
		case e.Alias != model:
		case e.Name == enginetest.EventStart:
			starts++
		case e.Name == enginetest.EventReady:
			ready = e.Time
		}
	}
	return starts, ready
}
