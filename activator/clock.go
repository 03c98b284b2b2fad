package activator

import "time"

// clock adds up the time for which something is so. The zero clock stands at 0 and does not run.
type clock struct {
	sum   time.Duration
	since time.Time // when it was set running; zero = it stands
}

func (c *clock) at(now time.Time) time.Duration {
	if c.since.IsZero() {
		return c.sum
	}
	return c.sum + now.Sub(c.since)
}

func (c *clock) run(running bool, now time.Time) {
	switch {
	case running && c.since.IsZero():
		c.since = now
	case !running && !c.since.IsZero():
		c.sum, c.since = c.at(now), time.Time{}
	}
}

// reaches is when a running clock will show so much; the zero time if it stands.
func (c *clock) reaches(sum time.Duration) time.Time {
	if c.since.IsZero() {
		return time.Time{}
	}
	return c.since.Add(sum - c.sum)
}
