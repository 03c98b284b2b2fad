package keys

import "time"

// bucket holds what may still be used of a bound a minute. It fills steadily, up to a minute's worth. What was used beyond that is a debt,
// which fills first. The zero value is full.
type bucket struct {
	level float64
	at    time.Time // of level
}

// now brings the level up to date and returns it. Without a bound nothing is touched: one that comes later begins full.
func (b *bucket) now(t time.Time, perMinute int) float64 {
	if perMinute == 0 {
		return 0
	}
	full := float64(perMinute)
	if b.at.IsZero() {
		b.level = full
	} else if passed := t.Sub(b.at); passed > 0 {
		b.level += full * passed.Minutes()
	}
	b.level, b.at = min(b.level, full), later(b.at, t)
	return b.level
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wait is how long until there is one; 0 if there is.
func (b *bucket) wait(t time.Time, perMinute int) time.Duration {
	return filling(1-b.now(t, perMinute), perMinute)
}

// filling is how long so much takes to come in.
func filling(missing float64, perMinute int) time.Duration {
	if perMinute == 0 || missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(perMinute) * float64(time.Minute))
}

// left is how much may be used at once, and how long until it is a minute's worth again.
func (b *bucket) left(t time.Time, perMinute int) Left {
	level := b.now(t, perMinute)
	return Left{Limit: perMinute, Remaining: int(max(0, level)), Reset: filling(float64(perMinute)-level, perMinute)}
}
