package usage

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alice = Who{Key: "alice", Owner: "Alice", Team: "a"}
	bob   = Who{Key: "bob"}
)

// clock is a log whose time the test sets.
type clock struct {
	*Log
	at  time.Time
	out strings.Builder
}

func at(day string) *clock {
	c := &clock{}
	c.is(day)
	c.Log = newLog(slog.New(slog.NewTextHandler(&c.out, nil)), func() time.Time { return c.at })
	return c
}

func (c *clock) is(day string) {
	c.at, _ = time.Parse(time.DateOnly, day)
	c.at = c.at.Add(23 * time.Hour).In(time.FixedZone("east", 9*3600)) // days are UTC's
}

func row(day string, who Who, model string, counts ...int64) Row {
	return Row{day, who, model, Counts{counts[0], counts[1], counts[2]}}
}

func (c *clock) want(t *testing.T, rows ...Row) {
	t.Helper()
	if diff := cmp.Diff(rows, c.Rows()); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestDays(t *testing.T) {
	c := at("2026-11-30")
	c.Add(alice, "m", 10, 1)
	c.Add(Who{}, "m", 5, 0)
	c.Add(alice, "m", 20, 2)
	if got := c.Month("alice"); got != 33 {
		t.Errorf("in November: %d", got)
	}
	c.is("2026-12-01")
	if got := c.Month("alice"); got != 0 {
		t.Errorf("in December: %d", got)
	}
	c.Add(alice, "n", 1, 1)
	c.is("2026-11-29")
	c.Add(alice, "n", 1, 1) // on a clock that is set back the later day goes on
	c.want(t,
		row("2026-11-30", Who{}, "m", 1, 5, 0), row("2026-11-30", alice, "m", 2, 30, 3),
		row("2026-12-01", alice, "n", 2, 2, 2))
	if a, nobody := c.Month("alice"), c.Month("nobody"); a != 4 || nobody != 0 {
		t.Errorf("this month: %d, %d", a, nobody)
	}
}

func TestWhatIsLongAgoIsPutTogether(t *testing.T) {
	c := at("2025-03-01")
	for _, day := range []string{
		"2025-03-01", "2025-03-31", "2025-10-02", "2025-10-30", "2026-09-05", "2026-09-06", "2026-10-01", "2026-10-31", "2026-11-01",
	} {
		c.is(day)
		c.Add(bob, "m", 10, 1)
	}
	c.is("2026-11-30")
	c.Add(alice, "m", 1, 0)
	c.want(t,
		row("", bob, "m", 2, 20, 2), row("2025-10", bob, "m", 2, 20, 2), row("2026-09", bob, "m", 2, 20, 2),
		row("2026-10-01", bob, "m", 1, 10, 1), row("2026-10-31", bob, "m", 1, 10, 1), row("2026-11-01", bob, "m", 1, 10, 1),
		row("2026-11-30", alice, "m", 1, 1, 0))
	c.is("2027-01-01") // October is a month now, and that of 2025 has no name any more
	_ = c.Month("bob")
	c.want(t,
		row("", bob, "m", 4, 40, 4), row("2026-09", bob, "m", 2, 20, 2), row("2026-10", bob, "m", 2, 20, 2),
		row("2026-11", alice, "m", 1, 1, 0), row("2026-11", bob, "m", 1, 10, 1))
	var metrics strings.Builder
	c.WriteMetrics(&metrics)
	for _, line := range []string{
		`assistant_key_requests_total{key="bob",model="m"} 9`,
		`assistant_key_tokens_total{key="bob",model="m",type="prompt"} 90`,
		`assistant_key_tokens_total{key="alice",model="m",type="completion"} 0`,
		`# TYPE assistant_key_tokens_total counter`,
	} {
		if !strings.Contains(metrics.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, metrics.String())
		}
	}
}

func TestTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "usage.json")
	c := at("2026-11-26")
	c.Keep(file)
	c.Add(alice, "m\"n", 10, 1)
	c.Close()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c = at("2026-11-27")
	c.Add(bob, "m", 1, 1) // before it is known what was used
	c.Keep(file)
	c.Add(alice, "m\"n", 1, 1)
	c.Close()
	c.Close()
	if got := c.Month("alice"); got != 13 {
		t.Errorf("this month: %d", got)
	}
	c = at("2026-11-27")
	c.Keep(file)
	c.Add(bob, "m", 1, 1)
	c.Close()
	c.want(t,
		row("2026-11-26", alice, "m\"n", 1, 10, 1), row("2026-11-27", alice, "m\"n", 1, 1, 1), row("2026-11-27", bob, "m", 2, 2, 2))
	if c.out.Len() > 0 {
		t.Error(c.out.String())
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	c = at("2026-11-26") // the clock was wrong before, or is now
	c.Keep(file)
	c.Close()
	if got := c.Month("bob"); got != 4 {
		t.Errorf("of a day to come: %d", got)
	}
}

// What a process that is killed loses is what it counted in the last seconds.
func TestTheFileIsWrittenSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "usage.json")
		l := New(slog.Default())
		l.Keep(file)
		defer l.Close()
		time.Sleep(time.Hour)
		l.Add(bob, "m", 1, 1)
		time.Sleep(writeInterval - time.Nanosecond)
		if rows, err := read(file); len(rows) > 0 || err != nil {
			t.Errorf("too soon: %v, %v", rows, err)
		}
		l.Add(bob, "m", 1, 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		rows, err := read(file)
		if err != nil || len(rows) != 1 || rows[0].Requests != 2 {
			t.Errorf("%v, %v", rows, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if rows, _ := read(file); len(rows) > 0 {
			t.Error("nothing has changed, and was written")
		}
	})
}

func TestBrokenFilesAreSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no JSON": "{", "another version": `{"version":2,"rows":[]}`, "no day": `{"version":1,"rows":[{"day":"2026-13","model":"m"}]}`,
		"negative": `{"version":1,"rows":[{"day":"","model":"m","prompt_tokens":-1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "usage.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := at("2026-11-27")
			c.Keep(file)
			c.Add(bob, "m", 1, 1)
			c.Close()
			if aside, err := os.ReadFile(file + ".broken"); err != nil || string(aside) != text {
				t.Errorf("%q, %v", aside, err)
			}
			if !strings.Contains(c.out.String(), "set aside") {
				t.Errorf("log %s", c.out.String())
			}
			if rows, err := read(file); err != nil || len(rows) != 1 {
				t.Errorf("%v, %v", rows, err)
			}
		})
	}
}

func TestWritesThatFailAreTriedAgain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "usage.json")
	c := at("2026-11-27")
	c.Keep(file)
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(file, "full"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Add(bob, "m", 1, 1)
	c.Close()
	if !strings.Contains(c.out.String(), "could not be written") {
		t.Errorf("log %s", c.out.String())
	}
}

func TestSum(t *testing.T) {
	rows := []Row{
		row("", bob, "m", 1, 1000, 0), row("2026-09", bob, "m", 1, 100, 0), row("2026-11-01", alice, "m", 1, 10, 0),
		row("2026-11-01", bob, "n", 2, 20, 0), row("2026-11-02", bob, "m", 1, 1, 1),
	}
	for name, c := range map[string]struct {
		from, to string
		key      *string
		by       By
		want     []Row
	}{
		"all":        {"2026-09-01", "2026-11-30", nil, By{}, []Row{row("", Who{}, "", 5, 131, 1)}},
		"by model":   {"2026-11-01", "2026-11-30", nil, By{Model: true}, []Row{row("", Who{}, "m", 2, 11, 1), row("", Who{}, "n", 2, 20, 0)}},
		"by day":     {"2026-09-01", "2026-11-01", nil, By{Day: true}, []Row{row("2026-09", Who{}, "", 1, 100, 0), row("2026-11-01", Who{}, "", 3, 30, 0)}},
		"bob's":      {"2026-11-01", "2026-11-02", &bob.Key, By{Key: true}, []Row{row("", bob, "", 3, 21, 1)}},
		"by team":    {"2026-11-01", "2026-11-01", nil, By{Owner: true, Team: true}, []Row{row("", Who{}, "", 2, 20, 0), row("", Who{Owner: "Alice", Team: "a"}, "", 1, 10, 0)}},
		"no such":    {"2027-01-01", "2027-01-01", nil, By{}, nil},
		"mid-month":  {"2026-09-02", "2026-09-30", nil, By{}, nil},
		"everything": {"2026-11-02", "2026-11-02", nil, By{true, true, true, true, true}, rows[4:]},
	} {
		if diff := cmp.Diff(c.want, Sum(rows, c.from, c.to, c.key, c.by)); diff != "" {
			t.Errorf("%s: - want, + got:\n%s", name, diff)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	l := New(slog.Default())
	l.Keep(filepath.Join(t.TempDir(), "usage.json"))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				l.Add(alice, "m", 1, 1)
				_ = l.Month("alice")
			}
			_ = l.Rows()
		})
	}
	all.Wait()
	l.Close()
	if got := l.Month("alice"); got != 800 {
		t.Errorf("%d tokens", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	l := New(slog.Default())
	b.ReportAllocs()
	for b.Loop() {
		l.Add(alice, "a-model-with-a-name", 100, 10)
	}
}
