package main

import (
	"fmt"
	"time"

	"assistant/internal/enginetest"
)

const (
	abandonTrials = 3
	abandonAfter  = 300 * time.Millisecond // a client leaves, and before another comes
)

// abandon is a start of 5 s, in room for one engine, whose client leaves: how long
// does the next model, which starts in 50 ms, wait for the room?
func abandon(b *bench) error {
	defer b.procs.stopAll()
	up, err := b.upAll("abandon", b.routers(false), func(_ router, events string) fleet {
		return fleet{room: 1, models: []model{
			b.fake("slow", "--start-delay", "5s", "--events", events),
			b.fake("quick", "--start-delay", "50ms", "--events", events),
		}}
	})
	if err != nil {
		return err
	}
	const name = "client left a start of 5 s, another model is asked"
	ends := b.report.row(name+": its engine ends after", "ms", low).limit(500)
	answered := b.report.row(name+": answer after", "ms", low)
	failed := b.report.row(name+": errors", "", low).always(0)
	for range abandonTrials {
		for _, r := range up {
			begin := time.Now()
			if err := r.leave("slow"); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			time.Sleep(abandonAfter)
			asked := time.Now()
			if err := ask(r.addr, "quick"); err != nil {
				b.notice("%s: %v", r.name, err)
				failed.add(r.name, 1)
				continue
			}
			failed.add(r.name, 0)
			answered.add(r.name, time.Since(asked).Seconds()*1e3)
			events, err := enginetest.ReadEvents(r.events)
			if err != nil {
				return err
			}
			if end, ok := stopped(events, "slow", begin.UnixNano()); ok {
				ends.add(r.name, max(0, float64(end-asked.UnixNano())/1e6))
			} else {
				b.notice("%s: the engine that nobody waits for has no end", r.name)
			}
		}
	}
	return b.ctx.Err()
}

// leave asks a model and hangs up in the middle of its start.
func (r running) leave(model string) error {
	c := client{addr: r.addr, timeout: abandonAfter}
	defer c.close()
	reply, err := c.do(post(r.addr, model, 1<<10, answer))
	if err == nil {
		return fmt.Errorf("%s has answered with status %d before it can have started", model, reply.status)
	}
	return nil
}

// stopped is when the engine of a model that started after begin ended. Times are
// in nanoseconds since the epoch.
func stopped(events []enginetest.Event, model string, begin int64) (int64, bool) {
	for _, e := range events {
		if e.Alias == model && e.Name == enginetest.EventStop && e.Time >= begin {
			return e.Time, true
		}
	}
	return 0, false
}
