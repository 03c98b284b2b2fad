package enginetest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The delays have the mean that was asked for, most are shorter, a few are much
// longer, and a body's is always the same.
func TestTailed(t *testing.T) {
	const n = 100_000
	delays := make([]time.Duration, n)
	var sum time.Duration
	for i := range delays {
		delays[i] = tailed(200*time.Millisecond, 1.2, fmt.Appendf(nil, `{"model":"m","user":"%d"}`, i))
		sum += delays[i]
	}
	slices.Sort(delays)
	if mean := sum / n; mean < 190*time.Millisecond || mean > 210*time.Millisecond {
		t.Errorf("mean %v, want 200ms", mean)
	}
	// By the distribution: exp(-sigma²/2) = 0.487 and exp(2.326 sigma - sigma²/2) = 7.93 times the mean.
	if median := delays[n/2]; median < 92*time.Millisecond || median > 102*time.Millisecond {
		t.Errorf("median %v, want 97ms", median)
	}
	if p99 := delays[n*99/100]; p99 < 1450*time.Millisecond || p99 > 1720*time.Millisecond {
		t.Errorf("p99 %v, want 1.59s", p99)
	}
	if a, b := tailed(time.Second, 1.2, []byte("x")), tailed(time.Second, 1.2, []byte("x")); a != b {
		t.Errorf("the same body got %v and %v", a, b)
	}
	if got := tailed(time.Second, 0, []byte("x")); got != time.Second {
		t.Errorf("without a tail got %v, want 1s", got)
	}
}

func TestAnswerTail(t *testing.T) {
	e := Start(t, "--answer-delay", "50ms", "--answer-tail", "1", "--tokens", "1")
	body := []byte(`{"model":"m","user":"7"}`)
	want := tailed(50*time.Millisecond, 1, body)
	begin := time.Now()
	if status, got := call(t, e.URL+"/v1/chat/completions", string(body)); status != 200 {
		t.Fatalf("got %d %s", status, got)
	}
	if took := time.Since(begin); took < want {
		t.Errorf("answered after %v, want %v or more", took, want)
	}
}
