package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// answer asks for a short one, so that the way to it counts.
const answer = `"max_tokens":16`

// each measures every peer in turns, rounds times, and gives a peer's figures of
// a round to record. Its requests that failed are a row of their own, of which no
// failure of ours is allowed. It stops the peers at the end.
func (b *bench) each(name string, l func(addr string) load, record func(peer string, t target, m measured)) error {
	defer b.procs.stopAll()
	type started struct {
		name string
		target
	}
	var up []started
	for _, p := range b.peers() {
		t, err := p.start(b)
		switch {
		case err == nil:
			up = append(up, started{p.name, t})
		case b.isRival(p.name) && b.ctx.Err() == nil:
			b.leaveOut(p.name, err)
		default:
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	errors := b.report.row(name+": errors", "", low).always(0)
	for round := range b.rounds + 1 {
		d := b.seconds
		if round == 0 { // warms up connections, heaps and branch predictors
			d /= 5
		}
		for _, p := range up {
			m, err := l(p.addr).run(b.ctx, p.target, d)
			if err == nil && m.failed > 0 {
				err = b.failed(p.name, m)
			}
			if err != nil {
				return err
			}
			if round > 0 {
				errors.add(p.name, float64(m.failed))
				record(p.name, p.target, m)
			}
		}
	}
	return nil
}

// failed says what a peer's first failure was. It is an error of the bench if the
// peer is one of those that have no reason to fail.
func (b *bench) failed(peer string, m measured) error {
	err := fmt.Errorf("%s: %d of %d requests failed, the first by: %w", peer, m.failed, m.failed+m.requests, m.failure)
	if peer == direct || peer == caddy {
		return err
	}
	fmt.Fprintln(os.Stderr, err)
	return nil
}

func warm1(b *bench) error {
	const name = "1 KB, 1 connection"
	p50 := b.report.row(name+": p50", "µs", low)
	added := b.report.row(name+": p50 added", "µs", low).atMost(0.6, caddy).atMost(0.4, llamaSwap)
	var base float64
	return b.each(name, func(addr string) load {
		return load{request: post(addr, "m1", 1<<10, answer), clients: 1}
	}, func(peer string, _ target, m measured) {
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
	const name = "1 KB, 64 connections"
	rate := b.report.row(name+": answered", "req/s", high).atLeast(2, caddy)
	p99 := b.report.row(name+": p99", "µs", low)
	cpu := b.report.row(name+": CPU", "s/10k req", low).atMost(0.5, caddy).atMost(0.25, llamaSwap)
	return b.each(name, func(addr string) load {
		return load{request: post(addr, "m1", 1<<10, answer), clients: 64}
	}, func(peer string, _ target, m measured) {
		rate.add(peer, float64(m.requests)/m.seconds)
		p99.add(peer, m.whole.at(.99))
		if peer != direct && m.requests > 0 {
			cpu.add(peer, m.cpu/float64(m.requests)*1e4)
		}
	})
}

// body200k are requests as long conversations are. The goal for the memory is the
// project's: what a router keeps of a body is gone with the request.
func body200k(b *bench) error {
	return b.bodies("200 KB, 16 connections", 200<<10, 16, func(peak *row) { peak.always(100) })
}

// body2m are requests with pictures in them.
func body2m(b *bench) error {
	return b.bodies("2 MB, 4 connections", 2<<20, 4, func(*row) {})
}

func (b *bench) bodies(name string, size, clients int, goal func(peak *row)) error {
	rate := b.report.row(name+": answered", "req/s", high)
	cpu := b.report.row(name+": CPU", "s/10k req", low)
	peak := b.report.row(name+": most memory of the router", "MB", low)
	goal(peak)
	return b.each(name, func(addr string) load {
		return load{request: post(addr, "m1", size, answer), clients: clients}
	}, func(peer string, t target, m measured) {
		rate.add(peer, float64(m.requests)/m.seconds)
		if peer != direct && m.requests > 0 {
			cpu.add(peer, m.cpu/float64(m.requests)*1e4)
			peak.add(peer, t.router.peak()*1024/1e6)
		}
	})
}

func stream64(b *bench) error {
	const name = "64 streams of 200 tokens"
	rate := b.report.row(name+": passed on", "chunks/s", high)
	ttft := b.report.row(name+": first byte p50", "µs", low)
	cpu := b.report.row(name+": CPU", "s/1M chunks", low)
	return b.each(name, func(addr string) load {
		// The role, 200 tokens, the finish reason, the end mark.
		return load{request: post(addr, "m1", 1<<10, `"stream":true,"max_tokens":200`), clients: 64, events: 203}
	}, func(peer string, _ target, m measured) {
		rate.add(peer, float64(m.events)/m.seconds)
		ttft.add(peer, m.first.at(.5))
		if peer != direct && m.events > 0 {
			cpu.add(peer, m.cpu/float64(m.events)*1e6)
		}
	})
}

// memory opens streams that say something once in two seconds.
func memory(b *bench) error {
	row := b.report.row(fmt.Sprintf("memory a stream, %d open", b.streams), "KiB", low).limit(64)
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
	clients := make([]client, b.streams)
	failed := make(chan error, b.streams)
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
		return 0, fmt.Errorf("%d of %d streams ended early, the first by: %w", early, b.streams, <-failed)
	}
	return (most - before) / float64(b.streams), b.ctx.Err()
}
