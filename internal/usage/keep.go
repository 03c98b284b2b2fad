package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"assistant/internal/wholefile"
)

// writeInterval is how long after a change the file is written: what a process that is killed loses.
const writeInterval = 3 * time.Second

// restFactor is how many times longer than a write took there is none: a file of very many keys and models is written less often.
const restFactor = 20

// keeper is how a log gets into its file.
type keeper struct {
	file  string
	wake  chan struct{}
	done  chan struct{} // closed when nothing more is counted
	ended chan struct{} // closed when the last was written; nil if nothing is kept
	once  *sync.Once    // for closing done
}

func newKeeper() keeper {
	return keeper{wake: make(chan struct{}, 1), done: make(chan struct{}), once: new(sync.Once)}
}

// changed says that there is something to write.
func (k keeper) changed() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// fileVersion is of the file's form. Others are set aside.
const fileVersion = 1

type fileForm struct {
	Version int   `json:"version"`
	Rows    []Row `json:"rows"`
}

// Keep takes in what a file has of earlier times, and keeps the file current from now on until [Log.Close]. It is to be called once. A file
// that cannot be read is set aside, and told in the log.
func (l *Log) Keep(file string) {
	rows, err := read(file)
	if err != nil {
		aside := file + ".broken"
		l.log.Error("the file of what was used is set aside, and counting begins anew", "error", errors.Join(err, os.Rename(file, aside)), "aside", aside)
	}
	l.keep.file, l.keep.ended = file, make(chan struct{})
	l.take(rows)
	go l.write()
}

// take adds what was used before.
func (l *Log) take(rows []Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	var past []Row
	for _, r := range rows {
		if r.Day >= l.day { // later ones are of a clock that was wrong
			l.add(r.id(), r.Counts)
			continue
		}
		past = append(past, r)
		place(l.totals, total{r.Key, r.Model}).add(r.Counts)
		if len(r.Day) == len(l.day) && month(r.Day) == month(l.day) {
			*place(l.months, r.Key) += r.Tokens()
		}
	}
	l.past = compact(append(l.past, past...), l.now().UTC())
}

// read reads a file; one that is not there is empty.
func read(file string) ([]Row, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var form fileForm
	if err := json.Unmarshal(b, &form); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if form.Version != fileVersion {
		return nil, fmt.Errorf("%s: version %d, not %d", file, form.Version, fileVersion)
	}
	for _, r := range form.Rows {
		if !isDay(r.Day) || r.Requests < 0 || r.Prompt < 0 || r.Completion < 0 {
			return nil, fmt.Errorf("%s: no row of it: %+v", file, r)
		}
	}
	return form.Rows, nil
}

func isDay(s string) bool {
	layout := time.DateOnly
	switch len(s) {
	case 0:
		return true
	case len(monthForm):
		layout = monthForm
	}
	_, err := time.Parse(layout, s)
	return err == nil
}

// write writes the file some time after each change, and in the end.
func (l *Log) write() {
	k := l.keep
	defer close(k.ended)
	rest, failed := writeInterval, false
	for last := false; !last; {
		select {
		case <-k.wake:
		case <-k.done:
			if len(k.wake) == 0 {
				return
			}
		}
		select {
		case <-time.After(rest):
		case <-k.done:
			last = true
		}
		select {
		case <-k.wake: // what was counted meanwhile is written now
		default:
		}
		begun := time.Now()
		err := wholefile.Replace(k.file, l.form())
		rest = max(writeInterval, restFactor*time.Since(begun))
		if err != nil {
			k.changed()
			if !failed {
				l.log.Error("what was used could not be written: it is tried again", "error", err)
			}
		}
		failed = err != nil
	}
}

// form is what the file is to have: a row a line, for people and their tools.
func (l *Log) form() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"version":%d,"rows":[`, fileVersion)
	for i, r := range l.Rows() {
		if i > 0 {
			b.WriteByte(',')
		}
		line, _ := json.Marshal(r) // strings and numbers can be
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}

// Close writes the file once more. What is counted after it is not kept.
func (l *Log) Close() {
	l.keep.once.Do(func() { close(l.keep.done) })
	if l.keep.ended != nil {
		<-l.keep.ended
	}
}
