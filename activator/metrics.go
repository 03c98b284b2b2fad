package activator

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"assistant/lifecycle"
	"assistant/lifecycle/machine"
)

// metricSet is what the activator tells of itself. Series of a model exist from its first use on, so
// that ten thousand configured models cost nothing.
type metricSet struct{ set *metrics.Set }

// startBuckets are upper bounds in seconds for starts and waits, from a warm page cache's tens of
// milliseconds to a large model's minutes.
var startBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}

func newMetricSet(a *Activator) *metricSet {
	m := &metricSet{set: metrics.NewSet()}
	m.set.RegisterMetricsWriter(a.writeGauges)
	return m
}

// WriteMetrics writes the activator's metrics in Prometheus' text format.
func (a *Activator) WriteMetrics(w io.Writer) { a.metrics.set.WritePrometheus(w) }

func (m *metricSet) histogram(name, model, more string) *metrics.PrometheusHistogram {
	return m.set.GetOrCreatePrometheusHistogramExt(fmt.Sprintf(`%s{model=%q%s}`, name, model, more), startBuckets)
}

func (m *metricSet) started(model string, run *lifecycle.Running) {
	m.histogram("assistant_cold_start_seconds", model, `,phase="spawn"`).Update(run.Spawned.Seconds())
	m.histogram("assistant_cold_start_seconds", model, `,phase="ready"`).Update(run.Loaded.Seconds())
}

// FirstByte notes how long after readiness an instance gave its first byte.
func (a *Activator) FirstByte(model string, took time.Duration) {
	a.metrics.histogram("assistant_cold_start_seconds", model, `,phase="first_token"`).Update(took.Seconds())
}

func (m *metricSet) waited(model string, took time.Duration) {
	m.histogram("assistant_queue_wait_seconds", model, "").Update(took.Seconds())
}

func (m *metricSet) stopping(model string, why lifecycle.Reason) {
	m.set.GetOrCreateCounter(fmt.Sprintf(`assistant_evictions_total{model=%q,reason=%q}`, model, why)).Inc()
}

// freed notes how long device memory took to be free after its instance was gone.
func (m *metricSet) freed(took time.Duration) {
	m.set.GetOrCreatePrometheusHistogramExt("assistant_device_release_seconds", startBuckets).Update(took.Seconds())
}

// failed counts an instance that went by itself, before or after it was ready.
func (m *metricSet) failed(model string, ready bool) {
	name := "assistant_start_failures_total"
	if ready {
		name = "assistant_engine_crashes_total"
	}
	m.set.GetOrCreateCounter(fmt.Sprintf(`%s{model=%q}`, name, model)).Inc()
}

// writeGauges writes what is so at the moment of asking.
func (a *Activator) writeGauges(w io.Writer) {
	states := map[lifecycle.State]int{}
	var perModel strings.Builder
	a.mu.Lock()
	for _, in := range a.state.live {
		states[in.State]++
	}
	for _, m := range a.state.inUse() {
		fmt.Fprintf(&perModel, "assistant_in_flight{model=%q} %d\n", m.key, m.leases)
		fmt.Fprintf(&perModel, "assistant_queued{model=%q} %d\n", m.key, m.queue.n)
	}
	memory := a.memoryGauges()
	a.mu.Unlock()
	_, _ = io.WriteString(w, memory)
	for _, s := range []lifecycle.State{lifecycle.Starting, lifecycle.Ready, lifecycle.Draining} {
		fmt.Fprintf(w, "assistant_instances{state=%q} %d\n", s, states[s])
	}
	lines := slices.Sorted(strings.Lines(perModel.String())) // one metric's series stand together
	_, _ = io.WriteString(w, strings.Join(lines, ""))
}

// memoryGauges writes what of the memory is whose, by pool: the host and each device.
func (a *Activator) memoryGauges() string {
	s := &a.state
	if !s.machine.Limited {
		return ""
	}
	var reserved, used machine.Amount
	for _, in := range s.live {
		reserved, used = reserved.Plus(in.Reserved), used.Plus(in.Used)
	}
	freeing := s.stillFreeing()
	var b strings.Builder
	pool := func(name string, room, reserved, measured, freeing int64) {
		fmt.Fprintf(&b, "assistant_memory_bytes{pool=%q,of=\"room\"} %d\n", name, room)
		fmt.Fprintf(&b, "assistant_memory_bytes{pool=%q,of=\"reserved\"} %d\n", name, reserved)
		fmt.Fprintf(&b, "assistant_memory_bytes{pool=%q,of=\"measured\"} %d\n", name, measured)
		fmt.Fprintf(&b, "assistant_memory_bytes{pool=%q,of=\"freeing\"} %d\n", name, freeing)
	}
	pool("host", s.machine.Room.Host, reserved.Host, used.Host, freeing.Host)
	for i, d := range s.machine.Devices {
		if i < machine.MaxDevices && !d.Unified {
			pool(d.Name, s.machine.Room.Device[i], reserved.Device[i], used.Device[i], freeing.Device[i])
		}
	}
	fmt.Fprintf(&b, "assistant_machine_busy %d\n", count(s.machine.Busy))
	return b.String()
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}
