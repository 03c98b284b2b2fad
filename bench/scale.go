package main

import (
	"fmt"
	"time"
)

// many is how many models are configured, of which one is used.
const many = 10000

// scale compares one configured model with ten thousand.
func scale(b *bench) error {
	if !b.hasOurs {
		return nil
	}
	one, err := b.scaled(1)
	if err != nil {
		return err
	}
	all, err := b.scaled(many)
	if err != nil {
		return err
	}
	start := b.report.row("10,000 models: start", "s", low).limit(1)
	start.add(ours, all.start)
	b.report.row("1 model: start", "s", low).add(ours, one.start)
	b.report.row("10,000 models: memory more than 1 model", "MB", low).limit(30).add(ours, (all.rss-one.rss)*1024/1e6)

	p50 := b.report.row("10,000 models: p50 of 1 model's", "×", low).limit(1.1)
	cpu := b.report.row("10,000 models: CPU of 1 model's", "×", low).limit(1.1)
	for round := range b.rounds + 1 {
		var m [2]measured
		for i, t := range []target{one.target, all.target} {
			if m[i], err = (load{request: post(t.addr, "m0", 1<<10, answer), clients: 1}).run(b.ctx, t, b.seconds/2); err != nil {
				return err
			}
		}
		if round > 0 {
			p50.add(ours, m[1].whole.at(.5)/m[0].whole.at(.5))
			cpu.add(ours, m[1].cpu/float64(m[1].requests)/(m[0].cpu/float64(m[0].requests)))
		}
	}
	return nil
}

type scaled struct {
	target
	start float64 // seconds from exec to the first answer about the last model
	rss   float64 // KiB, idle and before the first request
}

func (b *bench) scaled(n int) (s scaled, err error) {
	models := make([]model, n)
	for i := range models {
		models[i].name = fmt.Sprintf("m%d", i)
	}
	if s.target, err = b.startAssistant(models, 10); err != nil {
		return s, err
	}
	lastModel := get(s.addr, "/v1/models/"+models[n-1].name)
	if err := s.router.await(b.ctx, answers(s.addr, lastModel)); err != nil {
		return s, err
	}
	s.start = time.Since(s.router.started).Seconds()
	time.Sleep(time.Second) // for what a start leaves to do
	s.rss = s.router.rss()
	return s, s.router.await(b.ctx, answers(s.addr, post(s.addr, "m0", 64, answer)))
}
