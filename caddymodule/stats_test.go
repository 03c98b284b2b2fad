package caddymodule

import (
	"io"
	"testing"
)

// Caddy starts apps in no order: metrics may be asked for before the first configuration is in force.
func TestMetricsBeforeTheConfiguration(t *testing.T) {
	d, err := newRuntime()
	if err != nil {
		t.Fatal(err)
	}
	rt := d.(*runtime)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			rt.writeMetrics(io.Discard)
		}
	}()
	rt.mu.Lock()
	rt.runner.set(t.TempDir(), rt.log)
	rt.mu.Unlock()
	<-done
	rt.runner.close()
}
