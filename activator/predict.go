package activator

import (
	"maps"
	"slices"
	"time"
)

// The oracle's constants. They were chosen in the simulation of predict_test.go, and err on the side of not starting.
const (
	followWithin = 30 * time.Second // B "follows" A if it is asked for so soon after
	followShare  = 0.6              // of A's requests that B has to follow to be expected
	followSeen   = 3                // requests for A before anything is said
	followDecay  = 200              // requests for A after which its counts are halved, so that habits may change
	mostFollow   = 16               // successors kept of a model

	daySlot   = 15 * time.Minute
	daySlots  = int(24 * time.Hour / daySlot)
	dayWeight = 0.3         // of the last day: two days in a row make 0.51
	dayShare  = 0.5         // of days on which a slot saw a request for it to be expected again
	dayAhead  = time.Minute // before the slot begins
)

// oracle learns when models are asked for: at what time of the day, and after which others, as an embedding model is after
// a chat one. It only speaks of models: whether there is room is the policy's affair.
type oracle struct {
	habits map[string]*habit
	recent []ask // within followWithin, oldest first, one a model
	news   bool  // something is expected that was not when it was last asked
}

// habit is what is known of one model.
type habit struct {
	asked   int
	follows map[string]int // how often others were asked for soon after it
	until   time.Time      // expected until then, because of what it follows
	tried   time.Time      // when it was last started ahead; zero once a request came

	days  [daySlots]float32 // moving share of days on which the slot of the day saw a request
	today [daySlots]bool
	day   int64 // number of the day that today is
}

type ask struct {
	key  string
	at   time.Time
	told map[string]bool // whose following it was counted already
}

func newOracle() *oracle { return &oracle{habits: map[string]*habit{}} }

// asked notes a request for the model.
func (o *oracle) asked(key string, now time.Time) {
	h := o.habit(key, now)
	h.today[slotOf(now)], h.tried = true, time.Time{}
	o.recent = slices.DeleteFunc(o.recent, func(a ask) bool { return now.Sub(a.at) > followWithin })
	again := false
	for _, a := range o.recent {
		if a.key == key {
			again = true // one burst of requests is one
			continue
		}
		if !a.told[key] {
			a.told[key] = true
			o.habit(a.key, now).followedBy(key)
		}
	}
	if again {
		return
	}
	h.asked++
	o.recent = append(o.recent, ask{key: key, at: now, told: map[string]bool{}})
	for next, n := range h.follows {
		if h.asked >= followSeen && float64(n) >= followShare*float64(h.asked) {
			follower := o.habit(next, now)
			o.news = o.news || !now.Before(follower.until)
			follower.until = now.Add(followWithin)
		}
	}
}

func (h *habit) followedBy(key string) {
	if h.follows == nil {
		h.follows = map[string]int{}
	}
	if _, known := h.follows[key]; !known && len(h.follows) >= mostFollow {
		return
	}
	h.follows[key]++
	if h.asked < followDecay {
		return
	}
	h.asked /= 2
	for k, n := range h.follows {
		h.follows[k] = n / 2
	}
}

func (o *oracle) habit(key string, now time.Time) *habit {
	h := o.habits[key]
	if h == nil {
		h = &habit{day: dayOf(now)}
		o.habits[key] = h
	}
	h.turnDay(now)
	return h
}

// turnDay adds what the last day was like to the habit. Days without any request count too.
func (h *habit) turnDay(now time.Time) {
	for days := min(dayOf(now)-h.day, 30); days > 0; days-- {
		for i, hit := range h.today {
			seen := float32(0)
			if hit {
				seen = 1
			}
			h.days[i] += dayWeight * (seen - h.days[i])
		}
		h.today = [daySlots]bool{}
	}
	h.day = dayOf(now)
}

// expected lists the models that are likely to be asked for soon, sorted.
func (o *oracle) expected(now time.Time) []string {
	o.news = false
	var keys []string
	coming := slotOf(now.Add(dayAhead))
	for _, key := range slices.Sorted(maps.Keys(o.habits)) {
		h := o.habit(key, now)
		if now.Sub(h.tried) < daySlot+dayAhead {
			continue // it was, and nobody came
		}
		byDay := h.days[coming] >= dayShare && !h.today[slotOf(now)]
		if byDay || now.Before(h.until) {
			keys = append(keys, key)
		}
	}
	return keys
}

// tried notes that a model was started ahead of any request: once is enough.
func (o *oracle) tried(key string, now time.Time) { o.habit(key, now).tried = now }

// next is when another model may become expected without anything happening.
func (o *oracle) next(now time.Time) time.Time {
	ahead := now.Add(dayAhead)
	return ahead.Truncate(daySlot).Add(daySlot - dayAhead)
}

// dayOf and slotOf divide time as the clock on the wall does: habits are people's.
func dayOf(t time.Time) int64 {
	_, zone := t.Zone()
	return (t.Unix() + int64(zone)) / int64(24*time.Hour/time.Second)
}

func slotOf(t time.Time) int {
	return (t.Hour()*60 + t.Minute()) / int(daySlot/time.Minute)
}

// oracle returns what is to be asked, the old one as long as it is wanted.
func (set *Settings) oracle(old *oracle) *oracle {
	switch {
	case !set.Predict:
		return nil
	case old == nil:
		return newOracle()
	default:
		return old
	}
}

// likely lists the models without an instance that are likely to be asked for soon.
func (s *state) likely(now time.Time) []*modelState {
	if s.oracle == nil || len(s.hot) > 0 {
		return nil // the room is not idle
	}
	var out []*modelState
	for _, key := range s.oracle.expected(now) {
		spec := s.catalog.Model(key)
		if spec == nil {
			delete(s.oracle.habits, key)
			continue
		}
		if m := s.model(spec); len(m.instances) == 0 {
			s.ask(m)
			out = append(out, m)
		}
	}
	return out
}
