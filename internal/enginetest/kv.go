package enginetest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// kv is what the slots of an engine with --slot-save-path hold, and what llama-server b11669 does with it: a request
// goes to the idle slot that holds most of its prompt and computes the rest; a slot can be saved, restored and erased;
// a save waits for a busy slot; a file of another model, or no file, is refused; one that lacks its last few bytes ends
// the engine, and one with other bytes in its state is taken and gives another text.
type kv struct {
	dir   string
	print uint64 // of the model and its context, which files must have as well

	mu    sync.Mutex
	idle  *sync.Cond // a slot has become idle
	slots []kvSlot
	tasks int
}

type kvSlot struct {
	tokens []int32
	state  []byte // stateOf(tokens), unless somebody changed the file that it came from
	busy   bool
	task   int // the latest; 0 = none yet
}

// Sizes in bytes.
const (
	stateSize = 64   // of each token's state
	cutEnds   = 4096 // a file that lacks so many or fewer ends the engine
)

func newKV(o Options) *kv {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", filepath.Base(o.Model), o.Alias, o.Ctx)
	k := &kv{dir: o.SlotDir, print: h.Sum64(), slots: make([]kvSlot, o.Slots)}
	k.idle = sync.NewCond(&k.mu)
	return k
}

// stateOf stands for what an engine computes: each token's depends on all before it.
func stateOf(tokens []int32) []byte {
	h := fnv.New64a()
	state := make([]byte, 0, stateSize*len(tokens))
	for _, t := range tokens {
		_, _ = h.Write(binary.LittleEndian.AppendUint32(nil, uint32(t))) // never fails
		for i := range stateSize / 8 {
			state = binary.LittleEndian.AppendUint64(state, h.Sum64()+uint64(i))
		}
	}
	return state
}

func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// begin gives a prompt a slot, and tells the answer what the slot holds of it. The caller has been let in by the
// server: there is an idle slot, or one that is about to be.
func (k *kv) begin(prompt []int32, a *answer) *kvSlot {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := k.choose(prompt)
	for ; slot == nil; slot = k.choose(prompt) {
		k.idle.Wait()
	}
	a.prompt = len(prompt)
	a.cached = min(common(slot.tokens, prompt), len(prompt)-1)
	if !bytes.Equal(slot.state[:a.cached*stateSize], stateOf(prompt[:a.cached])) {
		a.garbled = 1000
	}
	k.tasks++
	slot.task, slot.busy = k.tasks, true
	slot.tokens, slot.state = prompt, stateOf(prompt)
	return slot
}

// choose returns the idle slot that holds more than a tenth of the prompt, and most of it, else the one unused longest.
func (k *kv) choose(prompt []int32) *kvSlot {
	var best *kvSlot
	most := len(prompt) / 10
	for i := range k.slots {
		s := &k.slots[i]
		switch n := common(s.tokens, prompt); {
		case s.busy:
		case n > most:
			best, most = s, n
		case best == nil, most == len(prompt)/10 && s.task < best.task:
			best = s
		}
	}
	return best
}

// end adds what was generated, but for the last token, which was not computed.
func (k *kv) end(slot *kvSlot, generated int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var text strings.Builder
	for i := range max(0, generated-1) {
		text.WriteString(" " + strconv.Itoa(i+1))
	}
	slot.tokens = slices.Concat(slot.tokens, tokensOf(text.String())[1:])
	slot.state = stateOf(slot.tokens)
	slot.busy = false
	k.idle.Broadcast()
}

func (k *kv) list(ctx int) []map[string]any {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]map[string]any, len(k.slots))
	for i, s := range k.slots {
		out[i] = map[string]any{"id": i, "n_ctx": ctx, "speculative": false, "is_processing": s.busy}
		if s.task > 0 {
			out[i]["id_task"], out[i]["n_prompt_tokens"] = s.task, len(s.tokens)
		}
	}
	return out
}

// act saves, restores or erases a slot.
func (k *kv) act(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Filename string `json:"filename"`
	}
	_ = json.NewDecoder(r.Body).Decode(&req) // erase has no body
	id, err := strconv.Atoi(r.PathValue("id"))
	action := r.URL.Query().Get("action")
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid_request_error", "Invalid slot ID")
		return
	case action != "save" && action != "restore" && action != "erase":
		refuse(w, http.StatusBadRequest, "invalid_request_error", "Invalid action")
		return
	case action != "erase" && filepath.Base(req.Filename) != req.Filename:
		refuse(w, http.StatusBadRequest, "invalid_request_error", "Invalid filename")
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := &k.slots[id%len(k.slots)] // it minds no number that is too high
	for slot.busy {
		k.idle.Wait()
	}
	reply := map[string]any{"id_slot": id, "filename": req.Filename}
	switch action {
	case "save":
		reply["n_saved"], reply["n_written"], err = k.save(slot, filepath.Join(k.dir, req.Filename))
	case "restore":
		reply["n_restored"], reply["n_read"], err = k.restore(slot, filepath.Join(k.dir, req.Filename))
	case "erase":
		reply = map[string]any{"id_slot": id, "n_erased": len(slot.tokens)}
		slot.tokens, slot.state = nil, nil
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", "Unable to "+action+" slot: No available space in KV cache or invalid slot save file")
		return
	}
	send(w, reply)
}

// save writes a slot's file as b11669 does: magic, version, the length of the row, the row (-1, 1, the number of
// tokens, these, the number of images), and then, as its state, the print and the state here.
func (k *kv) save(slot *kvSlot, file string) (tokens, size int, err error) {
	n := len(slot.tokens)
	b := binary.LittleEndian.AppendUint32(nil, 0x67677371)
	for _, v := range slices.Concat([]int32{4, int32(n + 4), -1, 1, int32(n)}, slot.tokens, []int32{0}) {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = binary.LittleEndian.AppendUint64(b, k.print)
	b = append(b, slot.state...)
	return n, len(b), os.WriteFile(file, b, 0o644)
}

var errSlotFile = errors.New("invalid slot save file")

func (k *kv) restore(slot *kvSlot, file string) (tokens, size int, err error) {
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 36 || binary.LittleEndian.Uint32(b) != 0x67677371 || binary.LittleEndian.Uint32(b[4:]) != 4 {
		return 0, 0, errSlotFile
	}
	n := int(binary.LittleEndian.Uint32(b[20:]))
	state := 36 + 4*n
	want := state + n*stateSize
	if n < 0 || n > 1<<24 || len(b) < state || len(b) < want-cutEnds || binary.LittleEndian.Uint64(b[state-8:]) != k.print {
		return 0, 0, errSlotFile
	}
	if len(b) < want {
		die()
	}
	slot.tokens = make([]int32, n)
	for i := range slot.tokens {
		slot.tokens[i] = int32(binary.LittleEndian.Uint32(b[24+4*i:]))
	}
	slot.state = b[state:want]
	if slot.task == 0 {
		k.tasks++
		slot.task = k.tasks
	}
	return n, want, nil
}
