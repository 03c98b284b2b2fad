package responses

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

func TestOwners(t *testing.T) {
	s := NewStore(0)
	id := stored(t, s, "ann", `{"model":"m","input":"hi"}`)
	for _, owner := range []string{"bob", ""} {
		for name, ask := range map[string]func() ([]byte, error){
			"get": func() ([]byte, error) { return s.Get(owner, id, nil) }, "delete": func() ([]byte, error) { return s.Delete(owner, id) },
			"cancel": func() ([]byte, error) { return s.Cancel(owner, id) }, "items": func() ([]byte, error) { return s.InputItems(owner, id, nil) },
		} {
			if _, err := ask(); blamed(err) != "404 " || err.Error() != "Response with id '"+id+"' not found." {
				t.Errorf("%s by %q: %v", name, owner, err)
			}
		}
	}
	got, err := s.Delete("ann", id)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "deleted", got, `{"id":"resp_1","object":"response","deleted":true}`)
	if _, err := s.Get("ann", id, nil); blamed(err) != "404 " {
		t.Errorf("after that: %v", err)
	}
	if s.size != 0 || len(s.items) != 0 || s.used.Len() != 0 {
		t.Errorf("it is empty, and holds %d bytes, %d items", s.size, len(s.items))
	}
}

func TestGetAsStream(t *testing.T) {
	s := NewStore(0)
	id := stored(t, s, "", `{"model":"m","input":"hi"}`)
	if _, err := s.Get("", id, url.Values{"stream": {"true"}}); blamed(err) != "400 stream" {
		t.Errorf("got %v", err)
	}
	if _, err := s.Get("", id, url.Values{"stream": {"false"}, "include": {"x"}}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestInputItems(t *testing.T) {
	s := NewStore(0)
	id := stored(t, s, "", `{"model":"m","input":[{"id":"a","role":"user","content":"1"},{"id":"b","role":"assistant","content":"2"},{"id":"b","role":"system","content":"3"},
		{"id":"d","type":"reasoning","summary":[]},{"id":"e","type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"x"}]}`)
	got, err := s.InputItems("", id, url.Values{"order": {"asc"}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "all", got, `{"object":"list","first_id":"a","last_id":"fco_1","has_more":false,"data":[
		{"id":"a","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"1"}]},
		{"id":"b","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"2","annotations":[],"logprobs":[]}]},
		{"id":"msg_1","type":"message","status":"completed","role":"system","content":[{"type":"input_text","text":"3"}]},
		{"id":"d","type":"reasoning","status":"completed","summary":[]},
		{"id":"e","type":"function_call","status":"completed","call_id":"1","name":"f","arguments":"{}"},
		{"id":"fco_1","type":"function_call_output","status":"completed","call_id":"1","output":"x"}]}`)
	for query, want := range map[string]string{
		"order=asc&limit=2": "a b true", "order=asc&limit=2&after=d": "e fco_1 false", "limit=1": "fco_1 fco_1 true", "after=b": "a a false",
		"after=a": "  false", "order=asc&limit=6": "a fco_1 false", "limit=0": "400 limit", "limit=101": "400 limit", "limit=x": "400 limit",
		"order=up": "400 order", "after=z": "400 after",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.InputItems("", id, values)
		is := blamed(err)
		if err == nil {
			page := parsed(t, []byte(steady(string(got))))
			is = fmt.Sprint(page["first_id"], " ", page["last_id"], " ", page["has_more"])
		}
		if is != want {
			t.Errorf("%s: got %s, want %s", query, is, want)
		}
	}
}

func TestFullStore(t *testing.T) {
	body := `{"model":"m","input":"` + strings.Repeat("x", 1000) + `"}`
	s := NewStore(8_000)
	first, second := stored(t, s, "", body), stored(t, s, "", body)
	each := s.size / 2
	if each < 3000 || each > 4000 {
		t.Fatalf("one is %d bytes", each)
	}
	if _, err := s.Get("", first, nil); err != nil {
		t.Fatal(err)
	}
	third := stored(t, s, "", body)
	for id, want := range map[string]string{first: "<nil>", second: "404 ", third: "<nil>"} {
		if _, err := s.Get("", id, nil); blamed(err) != want {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.Get("", stored(t, s, "", `{"model":"m","input":"`+strings.Repeat("x", 10_000)+`"}`), nil); blamed(err) != "404 " {
		t.Errorf("larger than the store: %v", err)
	}
	if s.size != 2*each || s.used.Len() != 2 {
		t.Errorf("%d bytes in %d", s.size, s.used.Len())
	}
}

func TestOldResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(0)
		first, second := stored(t, s, "", `{"model":"m","input":"hi"}`), stored(t, s, "", `{"model":"m","input":"hi"}`)
		time.Sleep(maxAge - time.Second)
		if _, err := s.Get("", first, nil); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if _, err := s.Get("", first, nil); blamed(err) != "404 " {
			t.Errorf("after 30 days: %v", err)
		}
		stored(t, s, "", `{"model":"m","input":"hi"}`)
		if s.entries[second] != nil || s.used.Len() != 1 {
			t.Error("it is held on")
		}
	})
}

// begun starts a response in the background.
func begun(t testing.TB, s *Store, cancel context.CancelFunc) (c *Call, id string) {
	t.Helper()
	c = create(t, s, "ann", `{"model":"m","input":"hi","background":true}`)
	if !c.Background() || c.Stream() != nil {
		t.Fatal("it is not in the background")
	}
	answer, err := c.Start(cancel)
	if err != nil {
		t.Fatal(err)
	}
	r := parsed(t, answer)
	if r["status"] != "queued" || r["background"] != true || r["completed_at"] != nil {
		t.Errorf("started: %s", answer)
	}
	return c, r["id"].(string)
}

func statusOf(t testing.TB, s *Store, id string) string {
	t.Helper()
	answer, err := s.Get("ann", id, nil)
	if err != nil {
		return blamed(err)
	}
	r := parsed(t, answer)
	if e, ok := r["error"].(map[string]any); ok {
		return fmt.Sprint(r["status"], ": ", e["message"])
	}
	return r["status"].(string)
}

func TestBackground(t *testing.T) {
	answer := `{"choices":[{"index":0,"message":{"content":"yes"},"finish_reason":"stop"}]}`
	for _, tt := range []struct {
		name   string
		do     func(s *Store, c *Call, id string, w *dialect.Writer)
		want   string
		cancel int
	}{
		{"queued", func(*Store, *Call, string, *dialect.Writer) {}, "queued", 0},
		{"running", func(_ *Store, c *Call, _ string, _ *dialect.Writer) { c.Running() }, "in_progress", 0},
		{"answered", func(_ *Store, c *Call, _ string, w *dialect.Writer) {
			c.Running()
			_, _ = w.Write([]byte(answer))
			w.Close()
			c.Running()
			c.Abandon()
		}, "completed", 1},
		{"failed", func(_ *Store, c *Call, _ string, w *dialect.Writer) {
			openai.EngineFailed("m", "").WriteTo(w)
			w.Close()
			c.Abandon()
		}, `failed: the engine of the model "m" failed`, 1},
		{"what is no answer", func(_ *Store, c *Call, _ string, w *dialect.Writer) {
			_, _ = w.Write([]byte("<html>"))
			w.Close()
			c.Abandon()
		}, "failed: the engine's answer: invalid character '<' looking for beginning of value", 1},
		{"given up", func(_ *Store, c *Call, _ string, _ *dialect.Writer) { c.Abandon() }, "failed: the answer was given up", 1},
		{"cancelled", func(s *Store, c *Call, id string, w *dialect.Writer) {
			for range 2 {
				if got, err := s.Cancel("ann", id); err != nil || parsed(t, got)["status"] != "cancelled" {
					t.Errorf("cancelled: %s, %v", got, err)
				}
			}
			_, _ = w.Write([]byte(answer))
			w.Close()
			c.Abandon()
		}, "cancelled", 1},
		{"cancelled too late", func(s *Store, _ *Call, id string, w *dialect.Writer) {
			_, _ = w.Write([]byte(answer))
			w.Close()
			if got, err := s.Cancel("ann", id); err != nil || parsed(t, got)["status"] != "completed" {
				t.Errorf("cancelled: %s, %v", got, err)
			}
		}, "completed", 1},
		{"deleted", func(s *Store, c *Call, id string, w *dialect.Writer) {
			if _, err := s.Delete("ann", id); err != nil {
				t.Error(err)
			}
			_, _ = w.Write([]byte(answer))
			w.Close()
			c.Abandon()
		}, "404 ", 1},
	} {
		s, cancelled := NewStore(0), 0
		c, id := begun(t, s, func() { cancelled++ })
		w := dialect.NewWriter(httptest.NewRecorder(), c.ErrorBody)
		w.Answers(c)
		tt.do(s, c, id, w)
		if got := statusOf(t, s, id); got != tt.want || cancelled != tt.cancel {
			t.Errorf("%s: got %q, cancelled %d times", tt.name, got, cancelled)
		}
		if running := s.running > 0; running != (tt.cancel == 0) {
			t.Errorf("%s: %d bytes run", tt.name, s.running)
		}
	}
}

func TestCancelOfAnother(t *testing.T) {
	s := NewStore(0)
	id := stored(t, s, "", `{"model":"m","input":"hi"}`)
	if _, err := s.Cancel("", id); blamed(err) != "400 " || err.Error() != "Cannot cancel a synchronous response." {
		t.Errorf("got %v", err)
	}
}

func TestPreviousResponseIsRunning(t *testing.T) {
	s := NewStore(0)
	c, id := begun(t, s, func() {})
	body := []byte(`{"model":"m","input":"hi","previous_response_id":"` + id + `"}`)
	if _, err := s.Create("ann", body); blamed(err) != "400 previous_response_id" || !strings.Contains(err.Error(), "not ended") {
		t.Errorf("got %v", err)
	}
	whole(t, c, `{"content":"yes"}`, "stop")
	create(t, s, "ann", string(body))
}

// Those that run stay, whatever else comes; there is a limit to them.
func TestStoreFullOfRunning(t *testing.T) {
	s := NewStore(10_000)
	var running []*Call
	var ids []string
	for {
		c := create(t, s, "ann", `{"model":"m","input":"hi","background":true}`)
		answer, err := c.Start(func() {})
		if err != nil {
			var e *openai.Error
			if blamed(err) != "429 " {
				t.Errorf("full: %v", err)
			}
			if !errors.As(err, &e) || e.RetryAfter == 0 {
				t.Error("it does not say when to come back")
			}
			break
		}
		running, ids = append(running, c), append(ids, parsed(t, answer)["id"].(string))
	}
	if len(ids) < 2 || s.size > 10_000 {
		t.Fatalf("%d run, %d bytes", len(ids), s.size)
	}
	if got := statusOf(t, s, stored(t, s, "ann", `{"model":"m","input":"`+strings.Repeat("x", 5000)+`"}`)); got != "404 " {
		t.Errorf("no room for it: %s", got)
	}
	for i, c := range running {
		whole(t, c, `{"content":"yes"}`, "stop")
		if got := statusOf(t, s, ids[i]); got != "completed" {
			t.Errorf("%d: %s", i, got)
		}
	}
	if s.size > 10_000 || s.running != 0 {
		t.Errorf("%d bytes, %d of them run", s.size, s.running)
	}
}

func TestAtTheSameTime(t *testing.T) {
	s := NewStore(400_000)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			owner, before := fmt.Sprint(i%3), ""
			for k := range 40 {
				ask := `{"model":"m","input":"hi"` + before
				switch k % 3 {
				case 0:
					r := last(t, streamed(create(t, s, owner, ask+`,"stream":true}`), sse("stop", `{"content":"yes"}`), 9))["response"].(map[string]any)
					if _, err := s.Get(owner, r["id"].(string), nil); err != nil {
						t.Error(err)
					}
				case 1:
					c := create(t, s, owner, ask+`,"background":true}`)
					_, cancel := context.WithCancel(t.Context())
					answer, err := c.Start(cancel)
					if err != nil {
						t.Error(err)
						return
					}
					id := parsed(t, answer)["id"].(string)
					all.Go(func() { c.Running(); c.Abandon() })
					if _, err := s.Cancel(owner, id); err != nil {
						t.Error(err)
					}
				default:
					id := stored(t, s, owner, ask+`}`)
					before = `,"previous_response_id":"` + id + `"`
					if k%2 == 0 {
						before = ""
						_, _ = s.InputItems(owner, id, nil)
						_, _ = s.Delete(owner, id)
					}
				}
				if before != "" && k%5 == 0 {
					before = ""
				}
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(0)
	for at := s.used.Front(); at != nil; at = at.Next() {
		size += entryAt(at).size
	}
	if size != s.size || s.size > 400_000 || s.running != 0 || len(s.entries) != s.used.Len() {
		t.Errorf("%d bytes are counted as %d; %d of %d; %d run", size, s.size, len(s.entries), s.used.Len(), s.running)
	}
}
