package caddymodule

import (
	"context"
	"sync"
	"time"

	"assistant/activator"
	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/lifecycle/machine"
	"assistant/lifecycle/memory"
	"assistant/modeldir"
)

// surveyWithin bounds how long a model's first start waits for what it needs to be known. The engine's own tool, the slowest source,
// is given as long.
const surveyWithin = 5 * time.Second

// overseer keeps the activator told of the machine and of what models need, and keeps what is learnt of them.
type overseer struct {
	rt    *runtime
	learn *memory.Learnt
	watch *machine.Watch
	meter *lifecycle.Meter
	press machine.Pressure
	ctx   context.Context // ends with the looking
	stop  context.CancelFunc
	seen  chan struct{} // closed at the first sample
	late  chan struct{} // closed when the first sample has had its time

	mu      sync.Mutex
	last    machine.Sample
	maxLoad float64
	noted   map[string]activator.Learnt // by memory.Key: what was handed to learn
}

// oversee begins to look at the machine. What is learnt is kept in stateDir.
func oversee(rt *runtime, stateDir string) *overseer {
	o := &overseer{
		rt: rt, learn: memory.OpenLearnt(stateDir, rt.log), meter: lifecycle.NewMeter(),
		seen: make(chan struct{}), late: make(chan struct{}), noted: map[string]activator.Learnt{},
	}
	o.ctx, o.stop = context.WithCancel(context.Background())
	time.AfterFunc(surveyWithin, func() { close(o.late) })
	program, _ := engine.LlamaServerPath() // without one there are no devices of its to ask for
	o.watch = machine.NewWatch(machine.Options{LlamaServer: program, Log: rt.log}, o.look)
	return o
}

// close ends the looking and keeps what was learnt.
func (o *overseer) close() {
	o.stop()
	o.watch.Close()
	if err := o.learn.Close(); err != nil {
		o.rt.log.Warn("what was learnt of the models is not kept", "error", err)
	}
}

func (o *overseer) setMaxLoad(limit float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.maxLoad = limit
}

// look takes a sample of the machine: it measures what instances use, and tells the activator what there is.
func (o *overseer) look(s machine.Sample) {
	looked := time.Now()
	measures := o.meter.Look(o.ctx, o.rt.act.Metered(), s)
	for _, m := range measures {
		if m.New && !m.Loading {
			o.learn.ObservePeak(memory.Key(m.Model), m.Peak)
			o.rt.act.Measured(m.Key, m.Generation, m.Used) // after: it may ask what was learnt
		}
	}
	o.note()
	o.mu.Lock()
	o.last = s
	busy, short := o.press.Observe(s, o.maxLoad, time.Now())
	o.mu.Unlock()
	o.rt.act.SetMachine(activator.Machine{
		Limited: true, Capacity: lifecycle.Capacity(s), Room: lifecycle.Room(s, measures), Devices: s.Devices, Busy: busy, Short: short,
		Looked: looked,
	})
	select {
	case <-o.seen:
	default:
		close(o.seen)
	}
}

// note keeps what the models' use has taught since the last look.
func (o *overseer) note() {
	for _, l := range o.rt.act.Learnt() {
		key := memory.Key(l.Model)
		if o.noted[key] == l {
			continue
		}
		o.noted[key] = l
		o.learn.ObserveStart(key, l.Start)
		o.learn.ObserveService(key, l.Service)
	}
}

// Survey implements activator.Surveyor: what is declared, else what was learnt, on top of what the model's file says.
func (o *overseer) Survey(m *modeldir.Model) activator.Facts {
	select {
	case <-o.seen:
	case <-o.late: // a driver's tool hangs, or nothing can be read here: models are not to wait for it
	}
	ctx, cancel := context.WithTimeout(o.ctx, surveyWithin)
	defer cancel()
	o.mu.Lock()
	sample := o.last
	o.mu.Unlock()
	program, _ := engine.LlamaServerPath()
	need, err := memory.Estimate(ctx, m, memory.Here{Host: sample.Host, Devices: sample.Devices, LlamaServer: program})
	if err != nil {
		o.rt.log.Debug("memory not known from the model's file", "model", m.Name, "error", err)
	}
	facts, _ := o.learn.Get(memory.Key(m))
	return activator.Facts{Need: memory.Combine(need, facts), Start: facts.Start, Service: facts.Service}
}

// lateSurveyor is the surveyor of a runtime, which is made before the first configuration says where what was learnt lies.
type lateSurveyor struct{ overseer *overseer }

// Survey implements activator.Surveyor. Nothing is asked for before a configuration, and with it a catalog, is in force.
func (l *lateSurveyor) Survey(m *modeldir.Model) activator.Facts { return l.overseer.Survey(m) }
