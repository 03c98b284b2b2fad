package enginetest

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ask sends a chat and returns its text and what it says of the prompt.
func ask(t *testing.T, e *Engine, body string) (text string, cached, computed int) {
	t.Helper()
	status, got := call(t, e.URL+"/v1/chat/completions", body)
	var a struct {
		Choices []struct{ Message struct{ Content string } }
		Timings struct {
			CacheN  int `json:"cache_n"`
			PromptN int `json:"prompt_n"`
		}
		Usage struct {
			Details struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
	}
	if err := json.Unmarshal([]byte(got), &a); err != nil || status != 200 || len(a.Choices) != 1 {
		t.Fatalf("%d %s: %v", status, got, err)
	}
	if a.Usage.Details.Cached != a.Timings.CacheN {
		t.Errorf("usage and timings differ: %s", got)
	}
	return a.Choices[0].Message.Content, a.Timings.CacheN, a.Timings.PromptN
}

const (
	turn1 = `{"max_tokens":3,"messages":[{"role":"system","content":"one two three four five six seven eight"},{"role":"user","content":"hello"}]`
	turn2 = `{"max_tokens":3,"messages":[{"role":"system","content":"one two three four five six seven eight"},{"role":"user","content":"hello"},{"role":"assistant","content":" 1 2 3"},{"role":"user","content":"and now"}]`
)

func TestSlotsAreSavedAndRestored(t *testing.T) {
	dir := t.TempDir()
	flags := []string{"--slot-save-path", dir, "-np", "2"}
	e := Start(t, flags...)
	text, cached, first := ask(t, e, turn1+"}")
	if text != " 1 2 3" || cached != 0 {
		t.Fatalf("first turn: got %q, %d cached", text, cached)
	}
	_, hot, rest := ask(t, e, turn2+"}")
	if hot < first || rest >= first {
		t.Errorf("next turn, hot: %d cached and %d computed after %d", hot, rest, first)
	}
	save := func(slot, name string) (int, string) {
		return call(t, e.URL+"/slots/"+slot+"?action=save", `{"filename":"`+name+`"}`)
	}
	status, got := save("0", "a.bin")
	if status != 200 || !strings.Contains(got, `"n_saved":`) {
		t.Fatalf("save: %d %s", status, got)
	}
	if status, got := save("1", "empty.bin"); status != 200 || !strings.Contains(got, `"n_written":36`) {
		t.Errorf("save of an empty slot: %d %s", status, got)
	}
	if status, _ := save("0", "../a.bin"); status != http.StatusBadRequest {
		t.Errorf("a path as a name: got %d, want 400", status)
	}

	next := Start(t, flags...)
	if status, got := call(t, next.URL+"/slots/1?action=restore", `{"filename":"a.bin"}`); status != 200 {
		t.Fatalf("restore: %d %s", status, got)
	}
	text, cached, _ = ask(t, next, turn2+"}")
	if text != " 1 2 3" || cached < hot {
		t.Errorf("restored: got %q, %d cached, want as hot, %d", text, cached, hot)
	}
	if _, got := call(t, next.URL+"/slots/1?action=erase", "{}"); !strings.Contains(got, "n_erased") {
		t.Errorf("erase: %s", got)
	}
	if _, cached, _ = ask(t, next, turn2+"}"); cached != 0 {
		t.Errorf("erased: %d cached", cached)
	}
}

func TestBadSlotFiles(t *testing.T) {
	dir := t.TempDir()
	e := Start(t, "--slot-save-path", dir)
	ask(t, e, turn1+"}")
	call(t, e.URL+"/slots/0?action=save", `{"filename":"good.bin"}`)
	good, err := os.ReadFile(filepath.Join(dir, "good.bin"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-700] ^= 1 // of a token that the next turn has, too
	restore := func(e *Engine, b []byte) (int, error) {
		if err := os.WriteFile(filepath.Join(dir, "bad.bin"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(e.URL+"/slots/1?action=restore", "", strings.NewReader(`{"filename":"bad.bin"}`))
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	for name, b := range map[string][]byte{"nothing": nil, "a word": good[:5], "no magic": good[4:], "a row cut": good[:40]} {
		if status, err := restore(e, b); status != http.StatusBadRequest {
			t.Errorf("%s: got %d %v, want 400", name, status, err)
		}
	}
	if status, err := restore(Start(t, "--slot-save-path", dir, "-a", "other"), good); status != http.StatusBadRequest {
		t.Errorf("another model: got %d %v, want 400", status, err)
	}
	changed := Start(t, "--slot-save-path", dir)
	if status, err := restore(changed, flipped); status != http.StatusOK {
		t.Fatalf("changed: got %d %v, want 200", status, err)
	}
	if text, _, _ := ask(t, changed, turn2+"}"); text != " 1001 1002 1003" {
		t.Errorf("changed: got %q, want another text", text)
	}
	if status, err := restore(e, good[:len(good)-1]); err == nil {
		t.Errorf("a byte short: got %d, want the engine to end", status)
	}
}

func TestVersion(t *testing.T) {
	argv := Command("--version")
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "11669") {
		t.Errorf("got %q, %v", out, err)
	}
}
