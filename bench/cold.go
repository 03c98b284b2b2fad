package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"assistant/internal/enginetest"
)

// starts is how many cold starts each kind of engine makes.
const starts = 50

// cold measures the time from the moment an engine is ready to the arrival of the
// request that waited for it, both on the engine's own clock. Every start is a
// model's first, and takes 100 ms ± 20. In turns with them, direct is a client
// that starts an engine itself and asks it every 2 ms: what the machine allows.
func cold(b *bench) error {
	rng := rand.New(rand.NewPCG(1, 2)) // the same delays in every run
	for _, ready := range []string{"refuse", "503"} {
		log := map[string]string{}
		for _, peer := range []string{direct, ours} {
			log[peer] = filepath.Join(b.dir, peer+"-"+ready+".events")
		}
		var alone, routed []model // the same ones, with the log of each peer
		for i := range starts {
			delay := 80*time.Millisecond + time.Duration(rng.Int64N(int64(40*time.Millisecond)))
			name := fmt.Sprintf("%s-%d", ready, i)
			flags := func(peer string) []string {
				return []string{"--start-delay", delay.String(), "--ready", ready, "--events", log[peer]}
			}
			alone = append(alone, model{name, flags(direct)})
			routed = append(routed, model{name, flags(ours)})
		}
		var t target
		var err error
		if b.hasOurs {
			if t, err = b.startAssistant(routed, 2*starts); err != nil {
				return err
			}
			if err := t.router.await(b.ctx, answers(t.addr, get(t.addr, "/v1/models"))); err != nil {
				return err
			}
		}
		for _, m := range alone {
			if b.hasOurs {
				if err := first(t.addr, m.name); err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
			}
			if err := b.startAndAsk(m); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		if err := b.reportCold(ready, log); err != nil {
			return err
		}
		b.procs.stopAll()
	}
	return nil
}

// first sends a model one request over a new connection.
func first(addr, model string) error {
	c := client{addr: addr, timeout: 10 * time.Second}
	defer c.close()
	return load{request: post(addr, model, 1<<10, answer)}.once(&c, nil)
}

// startAndAsk is a cold start without a router.
func (b *bench) startAndAsk(m model) error {
	t, err := startDirect(b, m.flags...)
	if err != nil {
		return err
	}
	if err := first(t.addr, m.name); err != nil {
		return err
	}
	b.procs.stopLast()
	return nil
}

func (b *bench) reportCold(ready string, log map[string]string) error {
	name := map[string]string{"refuse": "cold, engine refuses: ready to forwarded ", "503": "cold, engine answers 503: ready to forwarded "}[ready]
	p50 := b.report.row(name+"p50", "ms", low).limit(3)
	p99 := b.report.row(name+"p99", "ms", low).limit(10)
	for _, peer := range []string{direct, ours} {
		if peer == ours && !b.hasOurs {
			continue
		}
		waits, err := forwarded(log[peer])
		if err != nil {
			return err
		}
		if len(waits) != starts {
			return fmt.Errorf("%s: %d engines have served a request, want %d", peer, len(waits), starts)
		}
		p50.add(peer, waits.at(.5)/1000)
		p99.add(peer, waits.at(.99)/1000)
	}
	return nil
}

// forwarded returns, for each engine that wrote to log, the time from ready to its first request.
func forwarded(log string) (quantiles, error) {
	events, err := enginetest.ReadEvents(log)
	if err != nil {
		return nil, err
	}
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
	return waits, nil
}

// crowd is how many clients ask a cold model at once.
const crowd = 200

// herd asks a cold model from many clients at once, three times.
func herd(b *bench) error {
	if !b.hasOurs {
		return nil
	}
	log := filepath.Join(b.dir, "herd.events")
	flags := []string{"--start-delay", "300ms", "--events", log}
	trials := []model{{"h0", flags}, {"h1", flags}, {"h2", flags}}
	t, err := b.startAssistant(trials, 10)
	if err != nil {
		return err
	}
	if err := t.router.await(b.ctx, answers(t.addr, get(t.addr, "/v1/models"))); err != nil {
		return err
	}
	failures := b.report.row(fmt.Sprintf("%d first requests: errors", crowd), "", low).limit(0)
	spawned := b.report.row(fmt.Sprintf("%d first requests: engines started", crowd), "", low).limit(1)
	last := b.report.row(fmt.Sprintf("%d first requests: ready to last answer", crowd), "ms", low)
	for _, m := range trials {
		request := load{request: post(t.addr, m.name, 1<<10, answer)}
		var all sync.WaitGroup
		errs := make(chan error, crowd)
		for range crowd {
			all.Go(func() {
				c := client{addr: t.addr, timeout: 10 * time.Second}
				defer c.close()
				errs <- request.once(&c, nil)
			})
		}
		all.Wait()
		end := time.Now().UnixNano()
		failed := 0
		for range crowd {
			if <-errs != nil {
				failed++
			}
		}
		failures.add(ours, float64(failed))
		events, err := enginetest.ReadEvents(log)
		if err != nil {
			return err
		}
		engines := 0
		for _, e := range events {
			switch {
			case e.Alias != m.name:
			case e.Name == enginetest.EventStart:
				engines++
			case e.Name == enginetest.EventReady:
				last.add(ours, float64(end-e.Time)/1e6)
			}
		}
		spawned.add(ours, float64(engines))
	}
	return b.ctx.Err()
}
