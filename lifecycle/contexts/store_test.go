package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestAConversationGoesOn(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := fake(t, s)
	turn := chat("rivers", 300)
	first := ask(t, at, turn)
	var served Served
	served.Note(7)
	served.Computed(first.reuse.Computed, 300*time.Millisecond)
	done := save(t, s, at, identity, &served)
	if done.Contexts != 1 || done.Tokens < first.reuse.Computed || done.Bytes == 0 {
		t.Fatalf("saved: got %+v, want one context of the %d tokens", done, first.reuse.Computed)
	}
	s.Leave(at.Dir)

	later := fake(t, s)
	follow := next(turn, first.text)
	if !s.Offers(identity, 7) || !s.Offers(identity, 0) || s.Offers(identity, 8) || s.Offers(Identity{}, 7) {
		t.Error("what is offered is not what was saved")
	}
	given := restore(t, s, later, identity, follow)
	if len(given) != 1 || given[0].Tokens != done.Tokens || given[0].Common != done.Tokens || given[0].Request != 0 {
		t.Fatalf("restored: got %+v, want all %d tokens", given, done.Tokens)
	}
	got := ask(t, later, follow)
	if got.text != first.text || got.reuse.Cached != done.Tokens {
		t.Errorf("got %+v, want %q with %d tokens reused", got, first.text, done.Tokens)
	}
	if !s.Verify(given[0], got.reuse.Cached) {
		t.Error("of use, but not held so")
	}
	if left, err := os.ReadDir(later.Dir); err != nil || len(left) != 0 {
		t.Errorf("the engine's directory still has %v, %v", left, err)
	}
	if st := s.Stats(); st.Saved != 1 || st.Restored != 1 || st.Hits != 1 || st.Misses != 0 || st.Files != 1 || st.Bytes <= done.Bytes {
		t.Errorf("stats: %+v", st)
	}

	// It is saved again, longer: the shorter one is of no more use.
	again := save(t, s, later, identity, nil)
	st := s.Stats()
	if again.Tokens <= done.Tokens || st.Files != 1 || st.Dropped[Superseded] != 1 || !s.Offers(identity, 7) {
		t.Errorf("saved again: %+v, stats %+v", again, st)
	}
}

// Another process finds what this one has kept, and nobody else can read it.
func TestKeptOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "contexts")
	s := open(t, dir, 1<<30)
	follow := keep(t, s, chat("rivers", 300), nil)
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{dir: 0o700, s.path(keptDir): 0o700, kept(t, s)[0]: 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
			}
		}
	}
	later := open(t, dir, 1<<30)
	if s.Stats().Bytes != later.Stats().Bytes || later.Stats().Files != 1 {
		t.Errorf("before %+v, after %+v", s.Stats(), later.Stats())
	}
	if got := restore(t, later, fake(t, later), identity, follow); len(got) != 1 {
		t.Errorf("restored %+v", got)
	}
}

// Two conversations wait, one that nobody has heard of between them.
func TestEachGetsItsOwn(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := fake(t, s)
	rivers, stones := chat("rivers", 300), chat("stones", 200)
	afterRivers, afterStones := next(rivers, ask(t, at, rivers).text), next(stones, ask(t, at, stones).text)
	if done := save(t, s, at, identity, nil); done.Contexts != 2 {
		t.Fatalf("saved %+v, want both slots", done)
	}
	later := fake(t, s)
	given := restore(t, s, later, identity, afterStones, chat("lights", 300), afterRivers, afterRivers)
	if len(given) != 2 || given[0].Request != 0 || given[1].Request != 2 || given[0].Slot == given[1].Slot || given[0].Tokens >= given[1].Tokens {
		t.Fatalf("restored %+v", given)
	}
	for i, turn := range [][]message{afterStones, afterRivers} {
		if got := ask(t, later, turn).reuse.Cached; got != given[i].Common {
			t.Errorf("turn %d: %d tokens reused, want %d", i, got, given[i].Common)
		}
	}
}

// Another conversation of the same long beginning has the beginning restored.
func TestSharedBeginning(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	turn := chat("rivers", 300)
	keep(t, s, turn, nil)
	other := []message{turn[0], {"user", "Something else."}}
	at := fake(t, s)
	given := restore(t, s, at, identity, other)
	if len(given) != 1 || given[0].Common < 256 || given[0].Common == given[0].Tokens {
		t.Fatalf("restored %+v", given)
	}
	if got := ask(t, at, other).reuse.Cached; got < given[0].Common {
		t.Errorf("%d tokens reused, want %d", got, given[0].Common)
	}
}

// A text completion has no template.
func TestPrompts(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := fake(t, s)
	prompt := "once" + strings.Repeat(" upon a time", 60)
	body := func(v any) []byte {
		b, err := json.Marshal(map[string]any{"prompt": v, "max_tokens": 1})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var reply map[string]any
	if err := newClient(at).ask(t.Context(), "/v1/completions", body(prompt), &reply); err != nil {
		t.Fatal(err)
	}
	save(t, s, at, identity, nil)
	for _, tt := range []struct {
		path   string
		prompt any
		want   int
	}{
		{"/v1/completions", prompt + " more", 1},
		{"/v1/completions", []string{prompt}, 1},
		{"/v1/completions", []string{prompt, prompt}, 0},
		{"/v1/completions", []int{1, 2, 3}, 0},
		{"/v1/completions", nil, 0},
		{"/v1/embeddings", prompt, 0},
	} {
		given, err := s.Restore(t.Context(), fake(t, s), identity, []Request{{tt.path, body(tt.prompt)}})
		if err != nil || len(given) != tt.want {
			t.Errorf("%s %.40v: got %+v, %v; want %d", tt.path, tt.prompt, given, err, tt.want)
		}
	}
}

// What can't be looked up is left to the engine, and does not stop the next.
func TestStrangeRequests(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	follow := keep(t, s, chat("rivers", 300), nil)
	at := fake(t, s)
	requests := []Request{{chatPath, []byte("{")}, {chatPath, make([]byte, maxLookup+1)}, {"/v1/completions", []byte(`{}`)}, {"", nil}, {chatPath, bodyOf(t, follow, 8)}}
	given, err := s.Restore(t.Context(), at, identity, requests)
	if err != nil || len(given) != 1 || given[0].Request != 4 {
		t.Errorf("got %+v, %v", given, err)
	}
}

// None of these files reaches the engine, which would end over some and answer wrongly by others.
func TestDamagedFilesAreDropped(t *testing.T) {
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	flip := func(at, n int) func([]byte) []byte {
		return func(b []byte) []byte {
			if at < 0 {
				at += len(b)
			}
			for i := range n {
				b[at+i] ^= 0xff
			}
			return b
		}
	}
	for name, damage := range map[string]func([]byte) []byte{
		"short by 1": cut(1), "short by 10": cut(10), "short by 4096": cut(4096),
		"half": func(b []byte) []byte { return b[:len(b)/2] }, "5 bytes": func(b []byte) []byte { return b[:5] },
		"empty": func([]byte) []byte { return nil }, "longer": func(b []byte) []byte { return append(b, 0) },
		"last 64 flipped": flip(-64, 64), "one flipped": flip(5000, 1), "magic": flip(0, 1), "a token": flip(40, 1),
		"zeroes": func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, t.TempDir(), 1<<30)
			follow := keep(t, s, chat("rivers", 300), nil)
			file := kept(t, s)[0]
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			at := fake(t, s)
			if given := restore(t, s, at, identity, follow); len(given) != 0 {
				t.Errorf("restored %+v", given)
			}
			if got := ask(t, at, follow); got.reuse.Cached != 0 || got.text != " 1 2 3 4 5" {
				t.Errorf("the answer is %+v", got)
			}
			if st := s.Stats(); st.Dropped[Damaged] != 1 || st.Files != 0 || st.Bytes != 0 || len(kept(t, s)) != 0 {
				t.Errorf("not dropped: %+v", st)
			}
		})
	}
}

// What a process that was killed has left, or somebody has spoilt since, is gone after Open, and nothing else.
func TestOpenDropsWhatIsNotWhole(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(state, sidecar string) error
		want  uint64 // dropped
	}{
		"no sidecar": {func(_, sidecar string) error { return os.Remove(sidecar) }, 0},
		"no state":   {func(state, _ string) error { return os.Remove(state) }, 1},
		"cut state":  {func(state, _ string) error { return os.Truncate(state, 100) }, 1},
		"a directory": {func(state, _ string) error {
			return errors.Join(os.Remove(state), os.MkdirAll(filepath.Join(state, "x"), 0o700))
		}, 1},
		"cut sidecar":    {func(_, sidecar string) error { return os.Truncate(sidecar, 30) }, 1},
		"empty sidecar":  {func(_, sidecar string) error { return os.Truncate(sidecar, 0) }, 1},
		"other sidecar":  {func(_, sidecar string) error { return os.WriteFile(sidecar, []byte("{}\n0\n"), 0o600) }, 1},
		"edited sidecar": {editSidecar, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, 1<<30)
			keep(t, s, chat("rivers", 300), nil)
			keep(t, s, chat("stones", 200), nil)
			state := kept(t, s)[0]
			if err := tt.spoil(state, strings.TrimSuffix(state, stateExt)+sidecarExt); err != nil {
				t.Fatal(err)
			}
			for _, junk := range []string{s.path(incomingDir, "9.kv"), filepath.Join(place(t, s), "3.kv"), s.path(keptDir, "README")} {
				if err := os.WriteFile(junk, []byte("ggsq"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			st := open(t, dir, 1<<30).Stats()
			if st.Files != 1 || st.Dropped[Damaged] != tt.want {
				t.Errorf("got %+v, want 1 file and %d dropped", st, tt.want)
			}
			var files []string
			if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if !d.IsDir() {
					files = append(files, path)
				}
				return err
			}); err != nil || len(files) != 2 {
				t.Errorf("left: %q, %v", files, err)
			}
		})
	}
}

func editSidecar(_, sidecar string) error {
	text, err := os.ReadFile(sidecar)
	if err != nil {
		return err
	}
	return os.WriteFile(sidecar, []byte(strings.Replace(string(text), `"tokens":`, `"tokens":1`, 1)), 0o600)
}

func TestOldOnesAreDropped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<30)
	keep(t, s, chat("rivers", 300), nil)
	keep(t, s, chat("stones", 200), nil)
	before := time.Now().Add(-maxAge - time.Hour)
	sidecar := strings.TrimSuffix(kept(t, s)[0], stateExt) + sidecarExt
	if err := os.Chtimes(sidecar, before, before); err != nil {
		t.Fatal(err)
	}
	if st := open(t, dir, 1<<30).Stats(); st.Files != 1 || st.Dropped[Old] != 1 {
		t.Errorf("got %+v", st)
	}
}

// Other engines are not offered what these have saved; another build of the same engine has it dropped.
func TestOtherIdentities(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	follow := keep(t, s, chat("rivers", 300), nil)
	for _, other := range []Identity{{"other", "args", "build"}, {"model", "other", "build"}, {"model", "args", "other"}} {
		if given := restore(t, s, fake(t, s), other, follow); len(given) != 0 || s.Offers(other, 0) {
			t.Errorf("%+v was given %+v", other, given)
		}
	}
	s.Forget(Identity{"model", "other", "build"})
	if s.Stats().Files != 1 {
		t.Error("Forget dropped another's")
	}
	s.Forget(identity)
	if st := s.Stats(); st.Files != 0 || st.Dropped[Forgotten] != 1 {
		t.Errorf("not forgotten: %+v", st)
	}
}

// A file that an engine refuses, or ends over, is not tried again.
func TestRefusedFilesAreDropped(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := open(t, t.TempDir(), 1<<30)
		follow := keep(t, s, chat("rivers", 300), nil)
		at := fake(t, s, "-a", "another")
		if given := restore(t, s, at, identity, follow); len(given) != 0 {
			t.Errorf("restored %+v", given)
		}
		alive(t, at)
		if st := s.Stats(); st.Files != 0 || st.Dropped[Refused] != 1 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("ended", func(t *testing.T) {
		s := open(t, t.TempDir(), 1<<30)
		at := fake(t, s)
		turn := chat("rivers", 300)
		follow := next(turn, ask(t, at, turn).text)
		if _, err := s.Save(t.Context(), at, identity, nil); err != nil {
			t.Fatal(err)
		}
		s.Close()
		e := only(t, s) // pretend that it was saved a byte short
		b, err := os.ReadFile(kept(t, s)[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(kept(t, s)[0], b[:len(b)-1], 0o600); err != nil {
			t.Fatal(err)
		}
		e.Size, e.Sum, err = checksum(t.Context(), kept(t, s)[0])
		if err != nil {
			t.Fatal(err)
		}
		s.bytes--
		if _, err := s.Restore(t.Context(), fake(t, s), identity, waiting(t, follow)); err == nil {
			t.Error("no error, but the engine has ended")
		}
		if st := s.Stats(); st.Files != 0 || st.Dropped[Refused] != 1 || st.Bytes != 0 {
			t.Errorf("got %+v", st)
		}
	})
}

// only returns the store's only entry.
func only(t *testing.T, s *Store) *entry {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if len(s.entries) == 1 {
			return e
		}
	}
	t.Fatalf("%d entries, want 1", len(s.entries))
	return nil
}

func TestOfNoUse(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	turn := chat("rivers", 300)
	follow := keep(t, s, turn, nil)
	part := []message{turn[0], {"user", "Something else."}}
	given := restore(t, s, fake(t, s), identity, part)
	if s.Verify(given[0], 0) {
		t.Error("held to be of use")
	}
	if st := s.Stats(); st.Files != 1 || st.Misses != 1 {
		t.Errorf("in part: %+v, want it kept for its own conversation", st)
	}
	if given := restore(t, s, fake(t, s), identity, part); len(given) != 0 {
		t.Errorf("in part, again: %+v", given)
	}
	given = restore(t, s, fake(t, s), identity, follow)
	if len(given) != 1 {
		t.Fatalf("as a whole: %+v", given)
	}
	s.Verify(given[0], 1)
	s.Verify(given[0], 1) // and again, by a request that was sent twice
	if st := s.Stats(); st.Files != 0 || st.Bytes != 0 || st.Dropped[Unused] != 1 || st.Misses != 3 {
		t.Errorf("as a whole: %+v, want it dropped", st)
	}
	s.Verify(Restored{}, 0) // nothing was restored
}

// What is worth least goes first: the expected return by recency, the time to compute it, the bytes.
func TestBudget(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	keep(t, s, chat("rivers", 300), &Served{computed: 1, took: 5 * time.Millisecond})
	cheap := keep(t, s, chat("stones", 300), &Served{computed: 1, took: 2 * time.Millisecond})
	dear := keep(t, s, chat("lights", 300), &Served{computed: 1, took: 9 * time.Millisecond})
	total := s.Stats().Bytes
	s.SetBudget(total - 1)
	if st := s.Stats(); st.Files != 2 || st.Dropped[OverBudget] != 1 || st.Bytes >= total {
		t.Fatalf("a byte less: %+v", st)
	}
	if given := restore(t, s, fake(t, s), identity, cheap); len(given) != 0 {
		t.Errorf("the cheapest was not the one to go: %+v", given)
	}
	s.mu.Lock()
	for _, e := range s.entries { // the dear one was not asked for since yesterday; 9/2 is less than 5
		if e.Cost == 9*time.Millisecond {
			e.used = e.used.Add(-halfLife)
		}
	}
	s.mu.Unlock()
	s.SetBudget(total / 2)
	if given := restore(t, s, fake(t, s), identity, dear); len(given) != 0 || s.Stats().Files != 1 {
		t.Errorf("the one idle longest was not the one to go: %+v, %+v", given, s.Stats())
	}
	s.SetBudget(0)
	if st := s.Stats(); st.Files != 0 || st.Bytes != 0 || len(kept(t, s)) != 0 {
		t.Errorf("nothing to keep: %+v", st)
	}
	at := fake(t, s)
	ask(t, at, chat("rivers", 300))
	if done := save(t, s, at, identity, nil); done != (Saved{}) {
		t.Errorf("nothing to keep, but saved %+v", done)
	}
}

// A context that is too big for the budget is saved once, to learn that, and not again.
func TestTooBig(t *testing.T) {
	s := open(t, t.TempDir(), 10_000)
	at := fake(t, s)
	ask(t, at, chat("rivers", 300))
	if done := save(t, s, at, identity, nil); done.Contexts != 1 || s.Stats().Files != 0 {
		t.Errorf("first: %+v, %+v", done, s.Stats())
	}
	if done := save(t, s, at, identity, nil); done.Contexts != 0 || s.Stats().Dropped[OverBudget] != 2 {
		t.Errorf("again: %+v, %+v", done, s.Stats())
	}
}

// Slots that are busy, empty or hold next to nothing are let be.
func TestWhatIsNotSaved(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := fake(t, s, "-np", "3", "--tokens", "100000", "--token-delay", "1h")
	began := make(chan struct{})
	go func() {
		defer close(began)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at.Address+chatPath,
			strings.NewReader(fmt.Sprintf(`{"stream":true,"messages":[{"role":"user","content":%q}]}`, strings.Repeat("a ", 200))))
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := newClient(at).http.Do(req) // its first chunk comes at once, the next never
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { resp.Body.Close() })
	}()
	<-began
	ctx, _ := soon(t)
	if done, err := s.Save(ctx, at, identity, nil); err != nil || done != (Saved{}) {
		t.Errorf("got %+v, %v", done, err)
	}
	small := fake(t, s)
	ask(t, small, chat("x", 6))
	if done := save(t, s, small, identity, nil); done != (Saved{}) {
		t.Errorf("a few tokens: got %+v", done)
	}
}

// An engine that does not get done with it holds nobody up, and leaves nothing half.
func TestSaveIsBounded(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	dir := place(t, s)
	network, address := handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `[{"id":0,"is_processing":false,"n_prompt_tokens":100,"id_task":1}]`)
			return
		}
		var req struct{ Filename string }
		_ = json.NewDecoder(r.Body).Decode(&req)
		_ = os.WriteFile(filepath.Join(dir, req.Filename), []byte("half"), 0o600)
		<-r.Context().Done()
	})
	ctx, bound := soon(t)
	began := time.Now()
	done, err := s.Save(ctx, Endpoint{network, address, dir}, identity, nil)
	if took := time.Since(began); err == nil || done != (Saved{}) || took > 50*bound {
		t.Errorf("got %+v, %v after %v; want an error after %v", done, err, took, bound)
	}
	s.Leave(dir)
	s.Leave("")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if st := s.Stats(); st.Files != 0 || st.Saved != 0 {
		t.Errorf("got %+v", st)
	}
}

// An engine that dies while it saves, tells lies, or writes what we can't read.
func TestBadSaves(t *testing.T) {
	for name, tt := range map[string]struct {
		file   string
		reply  string // "" = the connection breaks
		reason Reason
	}{
		"dies":           {"half", "", reasons},
		"lies of bytes":  {"\x71\x73\x67\x67\x02\x00\x00\x00\x40\x00\x00\x00" + strings.Repeat("\x01\x00\x00\x00", 64), `{"n_saved":64,"n_written":999}`, Damaged},
		"lies of tokens": {"\x71\x73\x67\x67\x02\x00\x00\x00\x40\x00\x00\x00" + strings.Repeat("\x01\x00\x00\x00", 64), `{"n_saved":65,"n_written":268}`, Foreign},
		"cut":            {"\x71\x73\x67\x67\x02\x00\x00\x00\x40\x00\x00\x00abcd", `{"n_saved":64,"n_written":16}`, Foreign},
		"no file":        {"", `{"n_saved":64,"n_written":16}`, reasons},
		"other magic":    {"GGUF1234567890abcdef", `{"n_saved":64,"n_written":20}`, Foreign},
		"other row":      {"\x71\x73\x67\x67\x05\x00\x00\x00\x44\x00\x00\x00" + strings.Repeat("\x01\x00\x00\x00", 68), `{"n_saved":64,"n_written":284}`, Foreign},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, t.TempDir(), 1<<30)
			dir := place(t, s)
			network, address := handler(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					fmt.Fprint(w, `[{"id":0,"is_processing":false,"n_prompt_tokens":100,"id_task":1}]`)
					return
				}
				var req struct{ Filename string }
				_ = json.NewDecoder(r.Body).Decode(&req)
				if tt.file != "" {
					_ = os.WriteFile(filepath.Join(dir, req.Filename), []byte(tt.file), 0o600)
				}
				if tt.reply == "" {
					panic(http.ErrAbortHandler)
				}
				fmt.Fprint(w, tt.reply)
			})
			_, err := s.Save(t.Context(), Endpoint{network, address, dir}, identity, nil)
			s.Close()
			if (tt.reason == reasons) != (err != nil) {
				t.Errorf("error %v", err)
			}
			st := s.Stats()
			if st.Files != 0 || st.Saved != 0 || tt.reason < reasons && st.Dropped[tt.reason] != 1 {
				t.Errorf("got %+v", st)
			}
			if left, err := os.ReadDir(s.path(incomingDir)); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// Older builds put the tokens alone into the file; they are kept as well.
func TestOlderFormat(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("\x71\x73\x67\x67\x02\x00\x00\x00\x02\x00\x00\x00\x07\x00\x00\x00\x08\x00\x00\x00state"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readTokens(file, 2); err != nil || len(got) != 2 || got[0] != 7 || got[1] != 8 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRestoreOnceItIsSaved(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := fake(t, s)
	turn := chat("rivers", 300)
	follow := next(turn, ask(t, at, turn).text)
	later := fake(t, s)
	if _, err := s.Save(t.Context(), at, identity, nil); err != nil {
		t.Fatal(err)
	}
	if given := restore(t, s, later, identity, follow); len(given) != 1 { // though it may not be checked yet
		t.Errorf("restored %+v", given)
	}
	// No slot is empty now but one; then none.
	ask(t, later, chat("stones", 100))
	if given := restore(t, s, later, identity, follow); len(given) != 0 {
		t.Errorf("restored over what the engine holds: %+v", given)
	}
}
