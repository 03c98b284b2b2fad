package lifecycle

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestOutputIsFollowed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := new(Output)
	done := o.follow(r, slog.New(slog.DiscardHandler))
	var all []string
	next := 0
	read := func() (more <-chan struct{}) {
		var lines []string
		lines, next, more = o.Since(next)
		all = append(all, lines...)
		return more
	}
	for i := range 3 {
		more := read()
		fmt.Fprintf(w, "line %d\n", i)
		<-more
	}
	more := read()
	w.Close()
	<-more
	if read() != nil {
		t.Error("there is to be more of what has ended")
	}
	<-done
	if want := []string{"line 0", "line 1", "line 2"}; !slices.Equal(all, want) {
		t.Errorf("%q, want %q", all, want)
	}
}

func TestOutputThatIsGoneIsPassedOver(t *testing.T) {
	o := new(Output)
	o.add("first")
	_, next, _ := o.Since(0)
	long := strings.Repeat("x", outputKept/2)
	for range 5 {
		o.add(long)
	}
	lines, next, _ := o.Since(next)
	if len(lines) == 0 || len(lines) > 2 || next != 6 {
		t.Errorf("%d lines, the next is %d", len(lines), next)
	}
	if lines, _, _ = o.Since(next); len(lines) != 0 {
		t.Errorf("%d lines once more", len(lines))
	}
}
