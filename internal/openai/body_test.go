package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// limits are small enough to cross quickly: 64 KiB a body, 16 KiB of it in memory, 64 KiB for all.
func limits(t testing.TB) Limits {
	t.Helper()
	return Limits{MaxBody: 64 << 10, MaxMemory: 16 << 10, Budget: NewBudget(64 << 10), SpoolDir: t.TempDir()}
}

func TestReadBody(t *testing.T) {
	for _, tt := range []struct {
		name    string
		size    int
		spooled bool
	}{
		{"empty", 0, false},
		{"small", 100, false},
		{"just below a buffer", 4095, false},
		{"a buffer", 4096, false},
		{"just over a buffer", 4097, false},
		{"as long as memory goes", 16 << 10, false},
		{"longer than memory", 16<<10 + 1, true},
		{"much longer than memory", 40 << 10, true},
		{"as long as allowed", 64 << 10, true},
	} {
		for _, known := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: "/known", false: "/chunked"}[known], func(t *testing.T) {
				lim := limits(t)
				want := bytes.Repeat([]byte("0123456789abcde\n"), tt.size/16+1)[:tt.size]
				length := int64(-1)
				if known {
					length = int64(tt.size)
				}
				source := &eofCounter{r: bytes.NewReader(want)}
				body, err := ReadBody(source, length, lim)
				if err != nil {
					t.Fatal(err)
				}
				if source.eofs == 0 {
					t.Error("not read to its end: net/http would not notice a client that leaves")
				}
				if body.Len() != int64(tt.size) || !bytes.Equal(body.Bytes(), want) {
					t.Errorf("got %d bytes, not the ones sent", body.Len())
				}
				if got := lim.Budget.Used() == 0; got != tt.spooled {
					t.Errorf("spooled: got %v, want %v", got, tt.spooled)
				}
				for range 2 {
					r := body.NewReader()
					if err := iotest.TestReader(r, want); err != nil {
						t.Error(err)
					}
					if err := r.Close(); err != nil {
						t.Error(err)
					}
					if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
						t.Errorf("read after close: %v", err)
					}
				}
				_ = body.Close()
				_ = body.Close()
				if used := lim.Budget.Used(); used != 0 {
					t.Errorf("%d bytes still reserved", used)
				}
				if left, _ := os.ReadDir(lim.SpoolDir); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

type eofCounter struct {
	r    io.Reader
	eofs int
}

func (c *eofCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if errors.Is(err, io.EOF) {
		c.eofs++
	}
	return n, err
}

func TestReadBodyFaults(t *testing.T) {
	reset := errors.New("connection reset by peer")
	for _, tt := range []struct {
		name   string
		r      io.Reader
		length int64
		status int   // of an *Error
		is     error // or this
	}{
		{"stated too long", iotest.ErrReader(errors.New("was read")), 64<<10 + 1, 413, nil},
		{"chunked too long", strings.NewReader(strings.Repeat("x", 64<<10+1)), -1, 413, nil},
		{"endless", repeat("x"), -1, 413, nil},
		{"shorter than stated", strings.NewReader("xy"), 3, 400, nil},
		{"shorter than stated, spooled", strings.NewReader(strings.Repeat("x", 20<<10)), 30 << 10, 400, nil},
		{"chunks cut", io.MultiReader(strings.NewReader("xy"), iotest.ErrReader(io.ErrUnexpectedEOF)), -1, 400, nil},
		{"longer than stated", strings.NewReader("xyz"), 2, 400, nil},
		{"client gone", io.MultiReader(strings.NewReader("xy"), iotest.ErrReader(reset)), 3, 0, reset},
		{"client gone, spooled", io.MultiReader(strings.NewReader(strings.Repeat("x", 20<<10)), iotest.ErrReader(reset)), -1, 0, reset},
		{"too slow", iotest.ErrReader(os.ErrDeadlineExceeded), -1, 408, nil},
		{"bounded by somebody else", iotest.ErrReader(&http.MaxBytesError{Limit: 7}), -1, 413, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lim := limits(t)
			body, err := ReadBody(tt.r, tt.length, lim)
			var api *Error
			switch {
			case err == nil:
				t.Fatalf("got a body of %d bytes", body.Len())
			case tt.status != 0 && (!errors.As(err, &api) || api.Status != tt.status):
				t.Errorf("got %v, want %d", err, tt.status)
			case tt.is != nil && (!errors.Is(err, tt.is) || !errors.Is(err, ErrClientGone)):
				t.Errorf("got %v, want %v", err, tt.is)
			}
			if used := lim.Budget.Used(); used != 0 {
				t.Errorf("%d bytes still reserved", used)
			}
			if left, _ := os.ReadDir(lim.SpoolDir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestReadBodyWithoutRoomToSpool(t *testing.T) {
	lim := limits(t)
	lim.SpoolDir += "/missing"
	_, err := ReadBody(strings.NewReader(strings.Repeat("x", 20<<10)), -1, lim)
	var api *Error
	if !errors.As(err, &api) || api.Status != 503 || api.RetryAfter <= 0 {
		t.Errorf("got %v, want a 503", err)
	}
	if used := lim.Budget.Used(); used != 0 {
		t.Errorf("%d bytes still reserved", used)
	}
}

// When the others' bodies have used up the memory, a body goes to a file and can be scanned there all the same.
func TestReadBodyBeyondBudget(t *testing.T) {
	lim := limits(t)
	var held []*Body
	for range 16 { // 4 KiB each
		body, err := ReadBody(strings.NewReader(`{"model":"a"}`), 13, lim)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, body)
	}
	if used := lim.Budget.Used(); used != 64<<10 {
		t.Fatalf("%d bytes reserved, want all", used)
	}
	body, err := ReadBody(strings.NewReader(`{"model":"b"}`), 13, lim)
	if err != nil {
		t.Fatal(err)
	}
	req, err := Scan(body.Bytes())
	if err != nil || req.Model != "b" {
		t.Errorf("got %+v, %v", req, err)
	}
	for _, b := range append(held, body) {
		_ = b.Close()
	}
	if used := lim.Budget.Used(); used != 0 {
		t.Errorf("%d bytes still reserved", used)
	}
}

// A transport may go on sending when the request is over: its bytes must stay what they were.
func TestReaderOutlivesBody(t *testing.T) {
	for _, size := range []int{1 << 10, 32 << 10} { // in memory, in a file
		lim := limits(t)
		want := bytes.Repeat([]byte("a"), size)
		body, err := ReadBody(bytes.NewReader(want), int64(size), lim)
		if err != nil {
			t.Fatal(err)
		}
		reader := body.NewReader()
		_ = body.Close()
		for range 8 { // would get the buffer, were it free
			other, err := ReadBody(bytes.NewReader(bytes.Repeat([]byte("b"), size)), int64(size), lim)
			if err != nil {
				t.Fatal(err)
			}
			_ = other.Close()
		}
		got, err := io.ReadAll(reader)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d bytes, %v", size, len(got), err)
		}
		_ = reader.Close()
		if used := lim.Budget.Used(); used != 0 {
			t.Errorf("%d bytes still reserved", used)
		}
	}
}

// A transport may close the body in one goroutine while another reads it.
func TestReaderClosedWhileRead(t *testing.T) {
	lim := limits(t)
	body, err := ReadBody(repeatN("x", 32<<10), 32<<10, lim)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		r := body.NewReader()
		wg.Go(func() { _, _ = io.Copy(io.Discard, r) })
		wg.Go(func() { _ = r.Close() })
	}
	_ = body.Close()
	wg.Wait()
}

func repeatN(s string, n int64) io.Reader { return io.LimitReader(repeat(s), n) }

func TestBudget(t *testing.T) {
	b := NewBudget(100)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 1000 {
				if b.TryReserve(30) {
					b.Release(30)
				}
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 {
		t.Errorf("%d bytes used", b.Used())
	}
	if !b.TryReserve(100) || b.TryReserve(1) {
		t.Error("the limit is not 100")
	}
}

// Each size of buffer holds what is asked for and wastes a quarter at most; the last pool's is 32 MiB.
func TestClassOf(t *testing.T) {
	before := int64(4 << 10)
	for class := range pools {
		got, size := classOf(before)
		if got != class || size != before {
			t.Errorf("%d bytes are of class %d and size %d, want %d and the same", before, got, size, class)
		}
		got, next := classOf(before + 1)
		if got != class+1 || next <= before || next > before+before/4 {
			t.Errorf("%d bytes are of class %d and size %d", before+1, got, next)
		}
		before = next
	}
	if class, size := classOf(1); class != 0 || size != 4<<10 {
		t.Errorf("1 byte is of class %d and size %d", class, size)
	}
	if class, _ := classOf(32 << 20); class != len(pools)-1 {
		t.Errorf("32 MiB are of class %d of %d", class, len(pools))
	}
}

func BenchmarkReadBody(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"2MiB", 2 << 20}, {"8MiB", 8 << 20}} {
		b.Run(bb.name, func(b *testing.B) {
			content := make([]byte, bb.size)
			lim := Limits{MaxBody: DefaultMaxBody, MaxMemory: DefaultMaxBody, Budget: NewBudget(DefaultBudget)}
			r := bytes.NewReader(nil)
			b.SetBytes(int64(bb.size))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset(content)
				body, err := ReadBody(r, int64(bb.size), lim)
				if err != nil {
					b.Fatal(err)
				}
				_ = body.Close()
			}
		})
	}
}
