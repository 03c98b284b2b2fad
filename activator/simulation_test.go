package activator

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"
)

var (
	simSeeds  = flag.Int("sim.seeds", 24, "seeds that TestSimulation tries")
	simEvents = flag.Int("sim.events", 50_000, "events a seed")
	simFirst  = flag.Uint64("sim.first", 0, "the first seed")
)

// TestSimulation drives step with random events and checks what must always hold after each one: 1.2 million events unless flags
// say otherwise (make soak). A seed replays exactly: run one with -run 'TestSimulation/seed=N$'.
func TestSimulation(t *testing.T) {
	var mu sync.Mutex
	var all waitedFor
	granted, refused, cancelled, events := 0, 0, 0, 0
	seen := map[string]int{}
	t.Run("all", func(t *testing.T) {
		for i := range *simSeeds {
			seed := *simFirst + uint64(i)
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(seed)
				if err := w.run(*simEvents); err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all = longer(all, w.longest)
				for what, n := range w.seen {
					seen[what] += n
				}
				granted, refused, cancelled, events = granted+w.granted, refused+w.refused, cancelled+w.cancelled, events+w.events
			})
		}
	})
	t.Logf("%d seeds from %d, %d events: %d answered, %d refused, %d left; longest waits: for room while nobody was on the way out %v, for room altogether %v (2 × max_wait), for a slot %v (max_wait %v), in starts %v",
		*simSeeds, *simFirst, events, granted, refused, cancelled, all.room, all.without, all.slot, simMaxWait, all.start.Round(time.Second))
	t.Logf("on the way: %v", seen)
	for _, what := range []string{"start", "save", "rescue", "replica", "stop for room", "stop for idle", "stop for load", "stop for unwanted", "stop for changed"} {
		if seen[what] == 0 && !t.Failed() {
			t.Errorf("nothing of the kind %q happened: the world does not reach it", what)
		}
	}
}

// TestSimulationReplays shows that a seed leads to the same end twice.
func TestSimulationReplays(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			run := func() string {
				w := newWorld(seed)
				if err := w.run(10_000); err != nil {
					t.Fatal(err)
				}
				return fmt.Sprint(w.granted, w.refused, w.cancelled, w.reasons, w.st.gen, w.now)
			}
			if a, b := run(), run(); a != b {
				t.Fatalf("one seed, two ends: %s and %s", a, b)
			}
		})
	}
}
