package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/time/rate"
)

func TestMain(m *testing.M) {
	if os.Getenv(envKilled) != "" {
		fetchToBeKilled()
		return
	}
	goleak.VerifyTestMain(m)
}

const part = 64 << 10 // of these tests

// small are options with parts of which a small file has many, and clients of its own, so that none is left over.
func small(tb testing.TB) Options {
	tb.Helper()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, CheckRedirect: FollowSafely}
	tb.Cleanup(client.CloseIdleConnections)
	return Options{Client: client, PartSize: part, Stall: time.Second}
}

// brings fetches what must come, and looks whether it did.
func brings(tb testing.TB, path string, f File, o Options, want []byte) Result {
	tb.Helper()
	got, err := Fetch(tb.Context(), path, f, o)
	if err != nil {
		tb.Fatalf("fetch: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(b, want) || got.SHA256 != sumOf(want) || got.Size != int64(len(want)) {
		tb.Fatalf("%+v, %d bytes, %v", got, len(b), err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		tb.Errorf("left behind: %q", left)
	}
	return got
}

func TestFetch(t *testing.T) {
	for name, size := range map[string]int{"one byte": 1, "a part": part, "a byte more": part + 1, "many": 40*part + 77} {
		t.Run(name, func(t *testing.T) {
			data := content(1, size)
			s := serve(t, data)
			var mu sync.Mutex
			last := int64(-1)
			o := small(t)
			o.Progress = func(done, total int64) {
				mu.Lock()
				defer mu.Unlock()
				if done < last || total != int64(size) {
					t.Errorf("progress goes from %d to %d of %d", last, done, total)
				}
				last = done
			}
			brings(t, filepath.Join(t.TempDir(), "deep", "f"), file(data, s), o, data)
			if last != int64(size) {
				t.Errorf("the last word is %d", last)
			}
			if sent := s.sent.Load(); sent > int64(size)+1 {
				t.Errorf("%d bytes were sent", sent)
			}
		})
	}
}

// Nothing of the file is known before, and its server gives no parts.
func TestServerWithoutParts(t *testing.T) {
	data := content(2, 5*part)
	s := serve(t, data)
	s.plain = true
	s.mangle = func(n int, w io.Writer) io.Writer {
		if n < 3 {
			return &cut{w, 2 * part}
		}
		return w
	}
	f := file(data, s)
	f.Size, f.SHA256 = -1, ""
	brings(t, filepath.Join(t.TempDir(), "f"), f, small(t), data)
}

// Connections that break cost what was not sent, no more.
func TestCutsCostNothingThatCame(t *testing.T) {
	data := content(3, 30*part)
	s := serve(t, data)
	s.mangle = func(n int, w io.Writer) io.Writer {
		if n%2 == 0 {
			return &cut{w, part / 3}
		}
		return w
	}
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, s), small(t), data)
	if sent := s.sent.Load(); sent > int64(len(data))*105/100 {
		t.Errorf("%d bytes were sent of %d", sent, len(data))
	}
}

// Of two requests one fails, in all the ways there are.
func TestHalfOfAllRequestsFail(t *testing.T) {
	data := content(4, 30*part)
	s := serve(t, data)
	s.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n%2 == 1 {
			return false
		}
		switch n / 2 % 5 {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.Header().Set("Content-Range", "bytes 5-10/20")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("wrong!"))
		case 3:
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("wrong"))
		default:
			panic(http.ErrAbortHandler)
		}
		return true
	}
	o := small(t)
	o.PartSize = 3 * part
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, s), o, data)
}

// A server that falls silent is given up, and another is asked.
func TestStalledMirrorIsLeft(t *testing.T) {
	data := content(5, 10*part)
	dead, good := serve(t, data), serve(t, data)
	dead.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, dead, good), small(t), data)
	if good.sent.Load() < int64(len(data))*9/10 {
		t.Errorf("the good one sent %d bytes", good.sent.Load())
	}
}

func TestDeadMirrorIsLeft(t *testing.T) {
	data := content(6, 5*part)
	dead, good := serve(t, data), serve(t, data)
	dead.Close()
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, dead, good), small(t), data)
}

// A mirror that has something else of the same size is told by the hash, and the other is asked.
func TestCorruptMirrorIsLeft(t *testing.T) {
	data := content(7, 5*part)
	bad := bytes.Clone(data)
	bad[3*part] ^= 1
	wrong, good := serve(t, bad), serve(t, data)
	path := filepath.Join(t.TempDir(), "f")
	brings(t, path, file(data, wrong, good), small(t), data)
	_, err := Fetch(t.Context(), path+"2", file(data, wrong), small(t))
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), sumOf(data)) || !strings.Contains(err.Error(), sumOf(bad)) {
		t.Errorf("from the wrong one alone: %v", err)
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is wrong is in place: %v", err)
	}
	short := serve(t, data[:4*part])
	if _, err := Fetch(t.Context(), path+"3", file(data, short), small(t)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("from one that has less: %v", err)
	}
}

// An address that is good no more is asked for anew.
func TestExpiredAddressIsAskedForAgain(t *testing.T) {
	data := content(8, 20*part)
	s := serve(t, data)
	var good, located atomic.Int64
	s.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n%7 == 0 {
			good.Add(1) // all that were given before expire
		}
		if r.URL.Query().Get("until") != string(rune('a'+good.Load())) {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	f := file(data, s)
	f.Locate = func(context.Context) ([]Location, error) {
		located.Add(1)
		return []Location{{URL: s.URL + "/f?until=" + string(rune('a'+good.Load()))}}, nil
	}
	brings(t, filepath.Join(t.TempDir(), "f"), f, small(t), data)
	if n := located.Load(); n < 3 || n > 20 {
		t.Errorf("asked for %d times", n)
	}
}

func TestWhatIsNotThereIsTold(t *testing.T) {
	data := content(9, part)
	s := serve(t, data)
	s.fault = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadRequest)
		return true
	}
	_, err := Fetch(t.Context(), filepath.Join(t.TempDir(), "f"), file(data, s), small(t))
	status := (*StatusError)(nil)
	if !errors.As(err, &status) || status.Status != http.StatusBadRequest || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	f := file(data, s)
	fault := errors.New("the repository is gone")
	f.Locate = func(context.Context) ([]Location, error) { return nil, fault }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Fetch(ctx, filepath.Join(t.TempDir(), "g"), f, small(t)); err == nil {
		t.Error("it came from nowhere")
	}
}

// A file that becomes another one while it comes is begun anew; one that does so again and again is told.
func TestChangedFileIsBegunAnew(t *testing.T) {
	old, data := content(10, 20*part), content(11, 25*part)
	s := serve(t, old)
	var once sync.Once
	s.fault = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 8 {
			once.Do(func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.data, s.etag = data, `"2"`
			})
		}
		return false
	}
	f := file(data, s)
	f.Size, f.SHA256 = -1, ""
	brings(t, filepath.Join(t.TempDir(), "f"), f, small(t), data)

	restless := serve(t, old)
	restless.fault = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		restless.mu.Lock()
		defer restless.mu.Unlock()
		restless.etag = `"` + string(rune('a'+n%20)) + `"`
		return false
	}
	f = file(old, restless)
	f.SHA256 = ""
	if _, err := Fetch(t.Context(), filepath.Join(t.TempDir(), "g"), f, small(t)); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
}

// What was brought before an end is not brought again, and the hash is not computed again.
func TestGoesOnAfterAnEnd(t *testing.T) {
	data := content(12, 40*part)
	s := serve(t, data)
	path := filepath.Join(t.TempDir(), "f")
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	o := small(t)
	o.Limit = rate.NewLimiter(rate.Limit(20*part), 4*part)
	o.Progress = func(done, _ int64) {
		if done > int64(len(data))/2 {
			cancel(stopped)
		}
	}
	if _, err := Fetch(ctx, path, file(data, s), o); !errors.Is(err, stopped) {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a file is in place: %v", err)
	}
	brings(t, path, file(data, s), small(t), data)
	if sent, most := s.sent.Load(), int64(len(data)+5*part); sent > most {
		t.Errorf("%d bytes were sent, more than %d", sent, most)
	}
}

// What is here of another file is not taken for this one's.
func TestLeftoversOfAnotherFile(t *testing.T) {
	old, data := content(13, 20*part), content(14, 20*part)
	path := filepath.Join(t.TempDir(), "f")
	ctx, cancel := context.WithCancel(t.Context())
	o := small(t)
	o.Limit = rate.NewLimiter(rate.Limit(20*part), 4*part)
	o.Progress = func(done, _ int64) {
		if done > 10*part {
			cancel()
		}
	}
	s := serve(t, old)
	if _, err := Fetch(ctx, path, file(old, s), o); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	brings(t, path, file(data, serve(t, data)), small(t), data)
}

// A crash may come between putting the file in place and forgetting how it came.
func TestFileInPlaceIsNotBroughtAgain(t *testing.T) {
	data := content(15, 3*part)
	s := serve(t, data)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	brings(t, path, file(data, s), small(t), data)
	if s.sent.Load() != 0 {
		t.Error("it was brought again")
	}
}

func TestTwoProcessesDoNotBringTheSame(t *testing.T) {
	data := content(16, part)
	path := filepath.Join(t.TempDir(), "f")
	j, err := openJournal(path + ".journal")
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if _, err := Fetch(t.Context(), path, file(data, serve(t, data)), small(t)); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}

// A token is for who it was meant for, not for where that one sends us.
func TestTokenStaysAtItsOrigin(t *testing.T) {
	data := content(17, part)
	s := serve(t, data)
	s.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		return false
	}
	front := serve(t, nil)
	front.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		http.Redirect(w, r, s.URL+"/elsewhere", http.StatusFound)
		return true
	}
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, front), small(t), data)
}

func TestBandwidthIsBounded(t *testing.T) {
	data := content(18, 10*part)
	o := small(t)
	o.Limit = rate.NewLimiter(rate.Limit(10*part), part)
	begun := time.Now()
	brings(t, filepath.Join(t.TempDir(), "f"), file(data, serve(t, data)), o, data)
	if took := time.Since(begun); took < 850*time.Millisecond { // all but the burst take a second at that rate
		t.Errorf("it took %v", took)
	}
}

// Retries without any success come to an end, and leave what is here.
func TestGivesUp(t *testing.T) {
	p := patience{tries: maxTries - 1}
	fault := &StatusError{Status: http.StatusBadGateway, Host: "h"}
	if err := p.wait(t.Context(), fault); !errors.Is(err, error(fault)) {
		t.Errorf("%v", err)
	}
	if passing(ErrCorrupt) || passing(ErrChanged) || !passing(&net.OpError{}) || !passing(&StatusError{Status: 429}) || passing(&StatusError{Status: 400}) {
		t.Error("what is worth another try")
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-1": 0, "x": 0, "Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "Thu, 01 Jan 2020 00:01:00 GMT": 0,
		"99999999999": 24 * time.Hour,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// A journal that is damaged is as if it was not there; it never makes a wrong file.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"head":{"size":10,"part_size":4}}` + "\n" + `{"part":1}` + "\n" + `{"hash":{"parts":1,"state":"eA=="}}` + "\n"))
	f.Add([]byte(`{"part":-1}` + "\n"))
	f.Add([]byte(`{"head":{"size":9223372036854775807,"part_size":1}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := &journal{}
		if err := j.read(bytes.NewReader(b)); err != nil {
			return
		}
		if have := j.have(); have < 0 || have > j.head.Size {
			t.Errorf("%d bytes of %d", have, j.head.Size)
		}
		if j.hash.Parts > len(j.done) {
			t.Errorf("the hash has %d of %d parts", j.hash.Parts, len(j.done))
		}
	})
}

// Whatever a journal claims, the file is the right one.
func TestLyingJournal(t *testing.T) {
	data := content(19, 5*part)
	path := filepath.Join(t.TempDir(), "f")
	j, err := openJournal(path + ".journal")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.begin(head{Size: int64(len(data)), PartSize: part, ETag: `"1"`, SHA256: sumOf(data), Boot: boot()}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := j.whole(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.close(), os.WriteFile(path+".part", make([]byte, len(data)), 0o600)); err != nil {
		t.Fatal(err)
	}
	brings(t, path, file(data, serve(t, data)), small(t), data)
}
