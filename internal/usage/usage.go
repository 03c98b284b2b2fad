// Package usage counts requests and tokens by API key, model and day (UTC), and keeps the counts in a file.
package usage

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Counts is what was used.
type Counts struct {
	Requests   int64 `json:"requests"`
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
}

// Tokens is all of them.
func (c Counts) Tokens() int64 { return c.Prompt + c.Completion }

func (c *Counts) add(o Counts) {
	c.Requests += o.Requests
	c.Prompt += o.Prompt
	c.Completion += o.Completion
}

// Who has used a model. All are empty of requests that need no key.
type Who struct {
	Key   string `json:"key"`
	Owner string `json:"owner,omitempty"`
	Team  string `json:"team,omitempty"`
}

// Row is what somebody used of a model in some time.
type Row struct {
	// Day is 2026-11-27, or 2026-11 of all of a month that is longer ago, or empty of all before those that are kept.
	Day string `json:"day,omitempty"`
	Who
	Model string `json:"model"`
	Counts
}

// id is what a row is of.
type id struct {
	who   Who
	model string
}

func (r Row) id() id { return id{r.Who, r.Model} }

// Log is what was used, up to now. It is safe for concurrent use.
type Log struct {
	log  *slog.Logger
	now  func() time.Time
	keep keeper

	mu       sync.Mutex
	midnight time.Time // that was before the last look at the clock
	day      string    // today
	today    map[id]*entry
	past     []Row             // of earlier days, oldest first: replaced, never changed
	months   map[string]*int64 // tokens of this month, by key
	totals   map[total]*Counts // since the first
}

// entry is what was used today, and the sums that it is part of.
type entry struct {
	Counts
	month *int64
	total *Counts
}

// total is what a sum for metrics is of.
type total struct{ key, model string }

// New returns an empty log, which counts and keeps nothing before [Log.Keep].
func New(log *slog.Logger) *Log { return newLog(log, time.Now) }

func newLog(log *slog.Logger, now func() time.Time) *Log {
	l := &Log{log: log, now: now, keep: newKeeper(), totals: map[total]*Counts{}}
	l.turn()
	return l
}

// Add counts a request and its tokens.
func (l *Log) Add(who Who, model string, prompt, completion int) {
	l.mu.Lock()
	l.turn()
	l.add(id{who, model}, Counts{1, int64(prompt), int64(completion)})
	l.mu.Unlock()
	l.keep.changed()
}

// turn begins a new day if one has begun. On a clock that was set back the later day goes on. The lock is held, if anybody else knows l.
func (l *Log) turn() {
	const daily = 24 * time.Hour
	now := l.now().UTC()
	midnight := now.Truncate(daily)
	if midnight.Equal(l.midnight) {
		return
	}
	l.midnight = midnight
	day := now.Format(time.DateOnly)
	if day <= l.day {
		return
	}
	l.past = compact(append(slices.Clip(l.past), l.rows()...), now)
	if month(day) != month(l.day) {
		l.months = map[string]*int64{}
	}
	l.day, l.today = day, map[id]*entry{}
}

// month is that of a day, "" if there is none.
func month(day string) string { return day[:min(len(day), len(monthForm))] }

// monthForm is how a month is written, as [time.DateOnly] is for a day.
const monthForm = "2006-01"

// add adds to today's. The lock is held.
func (l *Log) add(of id, c Counts) {
	e := l.today[of]
	if e == nil {
		e = &entry{month: place(l.months, of.who.Key), total: place(l.totals, total{of.who.Key, of.model})}
		l.today[of] = e
	}
	e.add(c)
	*e.month += c.Tokens()
	e.total.add(c)
}

// place returns what a map has of a key, which is made if it is not there.
func place[K comparable, V any](m map[K]*V, k K) *V {
	v := m[k]
	if v == nil {
		v = new(V)
		m[k] = v
	}
	return v
}

// rows is today's, in order. The lock is held.
func (l *Log) rows() []Row {
	rows := make([]Row, 0, len(l.today))
	for of, e := range l.today {
		rows = append(rows, Row{l.day, of.who, of.model, e.Counts})
	}
	slices.SortFunc(rows, compare)
	return rows
}

func compare(a, b Row) int {
	return cmp.Or(
		cmp.Compare(a.Day, b.Day), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Owner, b.Owner),
		cmp.Compare(a.Team, b.Team), cmp.Compare(a.Model, b.Model),
	)
}

// Month is how many tokens a key has used in this calendar month.
func (l *Log) Month(key string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	if tokens := l.months[key]; tokens != nil {
		return *tokens
	}
	return 0
}

// Rows returns all that is known, oldest first.
func (l *Log) Rows() []Row {
	l.mu.Lock()
	past, today := l.past, l.rows()
	l.mu.Unlock()
	return append(slices.Clip(past), today...)
}

// keepMonths is for how long rows tell the time at all: as long as it takes to compare a month with that of a year ago.
const keepMonths = 13

// compact puts together what need not be told apart any more: days of months before the last, and months before those that are kept.
func compact(rows []Row, now time.Time) []Row {
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	days, months := first.AddDate(0, -1, 0).Format(monthForm), first.AddDate(0, -keepMonths, 0).Format(monthForm)
	rows = slices.Clone(rows)
	for i := range rows {
		switch r := &rows[i]; {
		case r.Day < months:
			r.Day = ""
		case r.Day < days:
			r.Day = month(r.Day)
		}
	}
	return merge(rows)
}

// merge puts rows in order, and those of the same together. It uses their memory.
func merge(rows []Row) []Row {
	slices.SortFunc(rows, compare)
	out := rows[:0]
	for _, r := range rows {
		if n := len(out); n > 0 && out[n-1].Day == r.Day && out[n-1].id() == r.id() {
			out[n-1].add(r.Counts)
			continue
		}
		out = append(out, r)
	}
	return out
}
