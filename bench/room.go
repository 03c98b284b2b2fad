package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"assistant/internal/enginetest"
)

// A crowd asks more models than there is room for: each client asks one at
// random, waits for the answer, and asks again, in a closed loop.
type crowd struct {
	name    string // of the rows
	file    string // of the events
	routers []router
	models  func(events string) []model
	start   time.Duration // of an engine
	drain   time.Duration // the longest that an answer takes
	real    bool          // the engines write no events
	unlike  bool          // no two requests are the same, so that answers differ in length
	split   bool          // see fleet
}

const (
	crowdModels  = 10
	crowdRoom    = 2 // engines that may live at a time
	crowdClients = 20
	crowdRounds  = 2
)

// crowdBound is how many answers a second the engines of crowdedRoom allow. It
// is derived in docs/scheduling.md.
const crowdBound = 87.0

// maxWait is our default max_wait: how long a request waits while others are
// served, after which its model is next.
const maxWait = 60 * time.Second

// crowdedRoom has engines that start in 100 ms and answer in 10 ms.
func crowdedRoom(b *bench) error {
	c := crowd{
		name: "10 models in room for 2, starts of 100 ms, answers of 10 ms", file: "room", routers: b.routers(false),
		start: 100 * time.Millisecond, drain: 10 * time.Millisecond,
		models: func(events string) []model {
			return b.fakes(crowdModels, "--start-delay", "100ms", "--answer-delay", "10ms", "--events", events)
		},
	}
	answered, err := c.run(b)
	if err != nil {
		return err
	}
	answered.atLeast(3, llamaSwap).floor(0.8 * crowdBound)
	// Any two of ten is what ours does, and costly to llama-swap; two groups are what its user might write instead.
	only := slices.DeleteFunc(b.routers(false), func(r router) bool { return r.name != llamaSwap })
	if len(only) == 0 {
		return nil
	}
	c.name, c.file, c.routers, c.split = "10 models in room for 2, llama-swap with 2 groups of 5", "room-split", only, true
	_, err = c.run(b)
	return err
}

// heavyTail has starts of 10 s and answers of 20 s, with the clock of both a
// hundred times as fast. The clock of the routers is not: what they wait for by
// the clock counts a hundredfold.
func heavyTail(b *bench) error {
	_, err := crowd{
		name: "10 models in room for 2, starts of 10 s, heavy-tailed answers of 20 s (scaled clock, 1:100)", file: "tail", routers: b.routers(false),
		start: 100 * time.Millisecond, drain: 10 * time.Second, unlike: true,
		models: func(events string) []model {
			return b.fakes(crowdModels, "--start-delay", "100ms", "--answer-delay", "200ms", "--answer-tail", "1.2", "--events", events)
		},
	}.run(b)
	return err
}

// run measures the routers in turns and returns the row of the answers a second.
func (c crowd) run(b *bench) (answered *row, err error) {
	defer b.procs.stopAll()
	up, err := b.upAll(c.file, c.routers, func(_ router, events string) fleet {
		return fleet{models: c.models(events), room: crowdRoom, split: c.split}
	})
	if err != nil {
		return nil, err
	}
	figures := c.rows(b)
	for range crowdRounds {
		for _, r := range up {
			p, err := c.press(b, r)
			if err != nil {
				return nil, err
			}
			if p.failed > 0 {
				_ = b.failed(r.name, p.measured) // figures, of a router
			}
			for _, f := range figures {
				f.add(r.name, f.of(p))
			}
		}
	}
	return figures[0].row, nil
}

// A figure is a row and what of a pressed router goes into it.
type figure struct {
	*row
	of func(pressed) float64
}

// rows adds the figures to the report, that of the answers a second first.
func (c crowd) rows(b *bench) []figure {
	row := func(name, unit string, better direction) *row { return b.report.row(c.name+": "+name, unit, better) }
	all := []figure{
		{row("answered", "1/s", high), func(p pressed) float64 { return float64(p.inTime) / b.crowd.Seconds() }},
		{row("wait p50", "ms", low), func(p pressed) float64 { return p.whole.at(.5) / 1e3 }},
	}
	errors := figure{row("errors", "", low), func(p pressed) float64 { return float64(p.failed) }}
	alive := figure{row("most engines alive", "", low), func(p pressed) float64 { return float64(p.most) }}
	longest := figure{row("longest wait", "s", low), func(p pressed) float64 { return p.whole.at(1) / 1e6 }}
	all = append(all, errors, alive, longest)
	if !c.real {
		strangers := row("answered by another model", "", low)
		all = append(all,
			figure{strangers, func(p pressed) float64 { return float64(p.strangers) }},
			figure{row("engines started", "1/s", low), func(p pressed) float64 { return float64(p.all()) / p.seconds }})
		c.goals(func() { strangers.always(0) })
	}
	c.goals(func() {
		errors.always(0)
		alive.always(crowdRoom)
		// Its model is next after max_wait: the answer under way is waited for, then the start.
		longest.always((maxWait + c.drain + c.start).Seconds())
	})
	return all
}

// goals sets goals where ours is measured.
func (c crowd) goals(set func()) {
	if slices.ContainsFunc(c.routers, func(r router) bool { return r.name == ours }) {
		set()
	}
}

// A pressed router is one that a crowd has asked.
type pressed struct {
	measured     // the answers that were owed at the end are in it
	inTime   int // answers that came before the end
	life         // of real engines only the most that were alive
}

// press has the crowd at a router, and counts its engines.
func (c crowd) press(b *bench, r running) (p pressed, err error) {
	begin := time.Now()
	if !c.real {
		p.measured, p.inTime = c.ask(b.ctx, r.addr, b.crowd)
		events, err := enginetest.ReadEvents(r.events)
		p.life = lives(events, begin.UnixNano())
		return p, err
	}
	ctx, stop := context.WithCancel(b.ctx)
	most := make(chan int)
	go func() { most <- mostRealEngines(ctx, r.target.router.pid) }()
	p.measured, p.inTime = c.ask(b.ctx, r.addr, b.crowd)
	stop()
	p.most = <-most
	return p, b.ctx.Err()
}

// ask has the crowd at addr for d, and waits for the answers that are still owed
// then, which are not in time.
func (c crowd) ask(ctx context.Context, addr string, d time.Duration) (all measured, inTime int) {
	start := time.Now()
	end := start.Add(d)
	of := make([]measured, crowdClients)
	late := make([]int, crowdClients)
	var clients sync.WaitGroup
	for i := range crowdClients {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(3, uint64(i))) // the same order of models for all, and in every run
			conn := client{addr: addr, timeout: patience}
			defer conn.close()
			for n := 0; ctx.Err() == nil && time.Now().Before(end); n++ {
				extra := answer
				if c.unlike {
					extra += fmt.Sprintf(`,"user":"%d-%d"`, i, n)
				}
				l := load{request: post(addr, fmt.Sprintf("m%d", rng.IntN(crowdModels)), small, extra)}
				r, err := l.once(&conn)
				of[i].count(r, err)
				if err == nil && time.Now().After(end) {
					late[i]++
				}
			}
		})
	}
	clients.Wait()
	all.seconds = time.Since(start).Seconds()
	for i, one := range of {
		all.join(one)
		inTime -= late[i]
	}
	slices.Sort(all.whole)
	return all, inTime + all.requests
}

// life is what engines did in a time.
type life struct {
	starts    map[string]int // of each model
	most      int            // engines that were alive at the same moment
	strangers int            // requests that came to the engine of another model
}

// lives reads it from the engines' events since a time in nanoseconds. An engine
// that was killed before it could say that it stops counts as alive for ever.
func lives(events []enginetest.Event, since int64) life {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b enginetest.Event) int { return cmp.Compare(a.Time, b.Time) })
	l := life{starts: map[string]int{}}
	now := 0
	for _, e := range events {
		switch e.Name {
		case enginetest.EventStart:
			now++
			if e.Time >= since {
				l.starts[e.Alias]++
			}
		case enginetest.EventStop:
			now--
		case enginetest.EventBegin:
			if e.Time >= since && e.Model != e.Alias {
				l.strangers++
			}
		}
		if e.Time >= since {
			l.most = max(l.most, now)
		}
	}
	return l
}

// all is how many engines started.
func (l life) all() (n int) {
	for _, of := range l.starts {
		n += of
	}
	return n
}
