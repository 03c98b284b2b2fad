package lifecycle

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
)

// outputKept is how much of an instance's output is kept, in bytes: enough for a start's story.
const outputKept = 64 << 10

// tailLines is how many last lines an error tells.
const tailLines = 8

// Output is the last of what an instance printed, stdout and stderr in one. It is safe for
// concurrent use.
type Output struct {
	mu    sync.Mutex
	lines []string
	first int // how many lines were there before the first that is kept
	size  int
	ended bool
	more  chan struct{} // closed when a line is added, or the output has ended; nil = nobody waits
}

func (o *Output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	for o.size += len(line) + 1; o.size > outputKept && len(o.lines) > 1; o.lines = o.lines[1:] {
		o.size -= len(o.lines[0]) + 1
		o.first++
	}
	o.wake()
}

// end says that no more will come.
func (o *Output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wake()
}

// wake tells those who wait. The lock is held.
func (o *Output) wake() {
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
}

// Since returns the lines from the n-th that was ever printed on, as far as they are kept, and the number of the next. more is closed when there are
// others; it is nil if there will be none, as the output has ended.
func (o *Output) Since(n int) (lines []string, next int, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next = o.first + len(o.lines)
	lines = slices.Clone(o.lines[min(max(n-o.first, 0), len(o.lines)):])
	if o.ended {
		return lines, next, nil
	}
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return lines, next, o.more
}

// String returns all that is kept.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 {
		return ""
	}
	return strings.Join(o.lines, "\n") + "\n"
}

// Tail returns the last few lines, for an error.
func (o *Output) Tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines[max(0, len(o.lines)-tailLines):], "\n")
}

// follow reads an engine's output to its end and returns what is closed then. Overlong lines are cut
// into several: a progress bar without newlines must not grow without bound.
func (o *Output) follow(r *os.File, log *slog.Logger) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer o.end()
		in := bufio.NewReaderSize(r, 4<<10)
		for {
			line, _, err := in.ReadLine()
			if len(line) > 0 {
				text := strings.ToValidUTF8(string(line), "\uFFFD")
				o.add(text)
				log.Debug(text)
			}
			if err != nil {
				if err != io.EOF {
					log.Debug("engine output ended", "error", err)
				}
				return
			}
		}
	}()
	return done
}
