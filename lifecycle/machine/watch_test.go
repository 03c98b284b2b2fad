package machine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// watched starts a watch of a pretended machine and returns counts of what it does.
func watched(devices []Device, fails *atomic.Bool) (w *Watch, looks, asks, samples *atomic.Int64) {
	looks, asks, samples = new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	w = start(&Watch{
		on: func(s Sample) {
			samples.Add(1)
			if len(s.Devices) != len(devices) {
				panic("devices are missing")
			}
		},
		host: func(context.Context) (Sample, error) {
			looks.Add(1)
			if fails != nil && fails.Load() {
				return Sample{}, errors.New("no")
			}
			return Sample{}, nil
		},
		devices: func(context.Context) []Device { asks.Add(1); return devices },
	})
	return w, looks, asks, samples
}

func TestWatchLooksEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, looks, asks, _ := watched([]Device{{Name: "CUDA0"}}, nil)
		defer w.Close()
		time.Sleep(20*time.Second + time.Millisecond)
		synctest.Wait()
		if n := looks.Load(); n != 11 {
			t.Errorf("%d looks in 20 s, want 11", n)
		}
		if n := asks.Load(); n != 4 { // at 0, 6, 12, 18
			t.Errorf("the devices' tools were run %d times in 20 s, want 4", n)
		}
	})
}

func TestWatchAsksForDevicesOnceWhereThereAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, asks, _ := watched(nil, nil)
		defer w.Close()
		w.Urge()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := asks.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestWatchUrged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, asks, _ := watched([]Device{{Name: "CUDA0"}}, nil)
		defer w.Close()
		time.Sleep(time.Second)
		before := asks.Load()
		w.Urge()
		w.Urge() // does not wait, and does not double
		time.Sleep(time.Second)
		synctest.Wait()
		if n := asks.Load() - before; n < 9 || n > 12 {
			t.Errorf("asked %d times in the second after, want 10", n)
		}
		time.Sleep(20 * time.Second) // over after 5 s
		synctest.Wait()
		before = asks.Load()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := asks.Load() - before; n > 5 {
			t.Errorf("asked %d times in 20 s long after", n)
		}
	})
}

func TestWatchGoesOnAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		fails.Store(true)
		w, _, _, samples := watched(nil, &fails)
		defer w.Close()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := samples.Load(); n != 0 {
			t.Errorf("%d samples of nothing", n)
		}
		fails.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := samples.Load(); n != 5 {
			t.Errorf("%d samples after it went well again, want 5", n)
		}
	})
}

// The real machine, whatever it is: a sample is sane.
func TestLook(t *testing.T) {
	s, err := Look(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Host.Total <= 0 || s.Host.Available <= 0 || s.Host.Available > s.Host.Total || s.Load < 0 {
		t.Errorf("%+v", s)
	}
	got := make(chan Sample, 100)
	w := NewWatch(Options{}, func(s Sample) { got <- s })
	if first := <-got; first.Host.Total != s.Host.Total {
		t.Errorf("the watch sees %+v, a look %+v", first, s)
	}
	w.Close()
}

func TestListThatFailedIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := &deviceSampler{
			cards: func(context.Context) []Card { return nil },
			list: func(context.Context) ([]Listed, bool) {
				asked++
				if asked == 1 {
					return nil, false // the machine was busy: it took longer than 5 s
				}
				return ParseListed("Available devices:\n  Vulkan0: Intel(R) Arc(TM) A770 (16384 MiB, 15000 MiB free)\n")
			},
			host: func(context.Context) int64 { return 64 << 30 },
		}
		var last Sample
		w := start(&Watch{on: func(s Sample) { last = s }, host: func(context.Context) (Sample, error) { return Sample{}, nil }, devices: d.sample, unknown: d.unknown})
		time.Sleep(time.Hour)
		w.Close()
		if asked < 2 || len(last.Devices) == 0 {
			t.Errorf("asked %d times in an hour, %d devices known", asked, len(last.Devices))
		}
	})
}
