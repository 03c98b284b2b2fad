package main

import (
	"fmt"
	"slices"
	"time"
)

// sizes are how many models are configured, of which one is used.
var sizes = []int{1, 1000, 10000}

// A scaled router is one with so many models.
type scaled struct {
	target
	start float64 // seconds from exec to the first answer about the last model
	rss   float64 // KiB, idle and before the first request
}

// scale compares one configured model with thousands.
func scale(b *bench) error {
	defer b.procs.stopAll()
	up := map[string][]scaled{} // in the order of sizes
	for _, r := range b.routers(false) {
		for _, n := range sizes {
			s, err := b.scaled(r, n)
			if err != nil && (r.name == ours || b.ctx.Err() != nil) {
				return fmt.Errorf("%s with %d models: %w", r.name, n, err)
			}
			if err != nil {
				b.leaveOut(r.name, fmt.Errorf("with %d models: %w", n, err))
				delete(up, r.name)
				break
			}
			up[r.name] = append(up[r.name], s)
		}
	}
	for i, n := range sizes {
		b.reportScaled(i, n, up)
	}
	return b.compareScaled(up)
}

func (b *bench) reportScaled(i, n int, up map[string][]scaled) {
	start := b.report.row(plural(n)+": start", "s", low)
	for name, all := range up {
		start.add(name, all[i].start)
	}
	if n == 1 {
		return
	}
	memory := b.report.row(plural(n)+": memory more than with 1", "MB", low)
	for name, all := range up {
		memory.add(name, (all[i].rss-all[0].rss)*1024/1e6)
	}
	if i == len(sizes)-1 {
		start.limit(1)
		memory.limit(30)
	}
}

// compareScaled asks the one model that is used, in turns.
func (b *bench) compareScaled(up map[string][]scaled) error {
	p50, cpu := map[int]*row{}, map[int]*row{}
	for i, n := range sizes[1:] {
		p50[i+1] = b.report.row(plural(n)+": p50 of that with 1", "×", low).limit(1.1)
		cpu[i+1] = b.report.row(plural(n)+": CPU of that with 1", "×", low).limit(1.1)
	}
	for round := range b.rounds + 1 {
		for _, r := range b.routers(false) {
			m := make([]measured, len(up[r.name]))
			for i, s := range up[r.name] {
				var err error
				if m[i], err = (load{request: post(s.addr, "m0", 1<<10, answer), clients: 1}).run(b.ctx, s.target, b.seconds/2); err != nil {
					return err
				}
				if m[i].requests == 0 {
					return fmt.Errorf("%s: %w", r.name, m[i].failure)
				}
				if round > 0 && i > 0 {
					p50[i].add(r.name, m[i].whole.at(.5)/m[0].whole.at(.5))
					cpu[i].add(r.name, m[i].cpu/float64(m[i].requests)/(m[0].cpu/float64(m[0].requests)))
				}
			}
		}
	}
	return nil
}

func (b *bench) scaled(r router, n int) (s scaled, err error) {
	if s.target, err = r.up(b, fleet{models: b.fakes(n), room: 1}); err != nil {
		return s, err
	}
	s.start = time.Since(s.router.started).Seconds()
	time.Sleep(time.Second) // for what a start leaves to do
	s.rss = s.router.rss()
	return s, s.router.await(b.ctx, answers(s.addr, post(s.addr, "m0", 64, answer)))
}

// plural is a number of models in words.
func plural(n int) string {
	if n == 1 {
		return "1 model"
	}
	digits := []byte(fmt.Sprint(n))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = slices.Insert(digits, i, ',')
	}
	return string(digits) + " models"
}
