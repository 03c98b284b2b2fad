package main

import (
	"fmt"
	"sync"
	"time"
)

// answer asks for a short one, so that the way to it counts.
const answer = `"max_tokens":16`

// each measures every peer in turns, rounds times, and gives a peer's figures of
// a round to record. It stops the peers at the end.
func (b *bench) each(l func(addr string) load, record func(peer string, m measured)) error {
	defer b.procs.stopAll()
	peers := b.peers()
	targets := make([]target, len(peers))
	for i, p := range peers {
		var err error
		if targets[i], err = p.start(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for round := range b.rounds + 1 {
		d := b.seconds
		if round == 0 { // warms up connections, heaps and branch predictors
			d /= 5
		}
		for i, p := range peers {
			m, err := l(targets[i].addr).run(b.ctx, targets[i], d)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round > 0 {
				record(p.name, m)
			}
		}
	}
	return nil
}

func warm1(b *bench) error {
	p50 := b.report.row("1 KB, 1 connection: p50", "µs", low)
	added := b.report.row("1 KB, 1 connection: p50 added", "µs", low).atMost(0.6)
	var base float64
	return b.each(func(addr string) load {
		return load{request: post(addr, "m1", 1<<10, answer), clients: 1}
	}, func(peer string, m measured) {
		v := m.whole.at(.5)
		p50.add(peer, v)
		if peer == direct { // the first of its round
			base = v
			return
		}
		added.add(peer, v-base)
	})
}

func warm64(b *bench) error {
	rate := b.report.row("1 KB, 64 connections", "req/s", high).atLeast(2)
	p99 := b.report.row("1 KB, 64 connections: p99", "µs", low)
	cpu := b.report.row("1 KB, 64 connections: CPU", "s/10k req", low).atMost(0.5)
	return b.each(func(addr string) load {
		return load{request: post(addr, "m1", 1<<10, answer), clients: 64}
	}, func(peer string, m measured) {
		rate.add(peer, float64(m.requests)/m.seconds)
		p99.add(peer, m.whole.at(.99))
		if peer != direct {
			cpu.add(peer, m.cpu/float64(m.requests)*1e4)
		}
	})
}

func body200k(b *bench) error {
	rate := b.report.row("200 KB, 16 connections", "req/s", high)
	cpu := b.report.row("200 KB, 16 connections: CPU", "s/10k req", low)
	return b.each(func(addr string) load {
		return load{request: post(addr, "m1", 200<<10, answer), clients: 16}
	}, func(peer string, m measured) {
		rate.add(peer, float64(m.requests)/m.seconds)
		if peer != direct {
			cpu.add(peer, m.cpu/float64(m.requests)*1e4)
		}
	})
}

func stream64(b *bench) error {
	rate := b.report.row("64 streams of 200 tokens", "chunks/s", high)
	ttft := b.report.row("64 streams: first byte p50", "µs", low)
	cpu := b.report.row("64 streams: CPU", "s/1M chunks", low)
	return b.each(func(addr string) load {
		// The role, 200 tokens, the finish reason, the end mark.
		return load{request: post(addr, "m1", 1<<10, `"stream":true,"max_tokens":200`), clients: 64, events: 203}
	}, func(peer string, m measured) {
		rate.add(peer, float64(m.events)/m.seconds)
		ttft.add(peer, m.first.at(.5))
		if peer != direct {
			cpu.add(peer, m.cpu/float64(m.events)*1e6)
		}
	})
}

// streams is how many the memory of one is averaged over.
const streams = 1000

// memory opens streams that say something once in two seconds.
func memory(b *bench) error {
	row := b.report.row(fmt.Sprintf("memory a stream, %d open", streams), "KiB", low).limit(64)
	for _, p := range b.peers() {
		if p.name == direct {
			continue
		}
		t, err := p.start(b, "--token-delay", "2s")
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		kib, err := b.memoryOf(t)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		row.add(p.name, kib)
		b.procs.stopAll()
	}
	return nil
}

// memoryOf returns what t's router has more in RAM for each open stream, in KiB:
// the largest of ten looks in a second.
func (b *bench) memoryOf(t target) (float64, error) {
	before := t.router.rss()
	var open, gone sync.WaitGroup
	clients := make([]client, streams)
	failed := make(chan error, streams)
	for i := range clients {
		clients[i] = client{addr: t.addr, timeout: time.Minute}
		open.Add(1)
		gone.Go(func() {
			begun := sync.OnceFunc(open.Done)
			_, err := clients[i].try(post(t.addr, "m1", 1<<10, `"stream":true,"max_tokens":200`), begun)
			failed <- err // before begun: whoever sees all streams open sees this too
			begun()
		})
		time.Sleep(time.Millisecond) // a burst would measure the accept queue
	}
	open.Wait()
	var most float64
	for range 10 {
		most = max(most, t.router.rss())
		time.Sleep(100 * time.Millisecond)
	}
	early := len(failed)
	for i := range clients {
		if c := clients[i].conn; c != nil {
			_ = c.SetDeadline(time.Now()) // ends try, which is done with writing c.conn
		}
	}
	gone.Wait()
	for i := range clients {
		clients[i].close()
	}
	if early > 0 {
		return 0, fmt.Errorf("%d of %d streams ended early, the first by: %w", early, streams, <-failed)
	}
	return (most - before) / streams, b.ctx.Err()
}
