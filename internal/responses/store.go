package responses

import (
	"container/list"
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"assistant/internal/openai"
)

// DefaultMaxBytes is how much a [Store] holds unless told otherwise, in bytes: 64 MiB.
const DefaultMaxBytes = 64 << 20

const (
	maxAge   = 30 * 24 * time.Hour // of a response, from its creation: what OpenAI promises
	overhead = 1 << 10             // of a response, in bytes, besides what it says
)

// Store holds responses in memory: answers, and the items that they were given to. Those that were not used for longest go when it is
// full, and all go after 30 days. A response is counted as the bytes of its request and of its JSON. One that runs in the background
// does not go before it has ended.
//
// Each is of an owner, the name of an API key; "" are those without one. To others, it is not there. All methods may be called at the
// same time. Errors are *openai.Error: 404 for a response that is not there.
type Store struct {
	max int64

	mu      sync.Mutex
	size    int64
	running int64                    // of size, that of responses that run
	entries map[string]*list.Element // of *entry, by id
	used    list.List                // of *entry, that used last in front
	items   map[itemKey]*heldItem    // those of all entries
}

// entry is a response that is held.
type entry struct {
	owner    string
	response *response // not changed: another takes its place
	input    []item
	request  int64 // size of the request, in bytes
	size     int64 // of all, in bytes
	made     time.Time
	cancel   context.CancelFunc // what ends it; nil = it does not run
}

type itemKey struct{ owner, id string }

// heldItem is an item of one or more entries: a client may send back what it was given.
type heldItem struct {
	item item
	held int
}

// NewStore returns a store for maxBytes; 0 = [DefaultMaxBytes].
func NewStore(maxBytes int64) *Store {
	if maxBytes == 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Store{max: maxBytes, entries: map[string]*list.Element{}, items: map[itemKey]*heldItem{}}
}

// Get answers GET /v1/responses/ID: the response, as JSON. query is the request's; one that asks for a stream is a 400, for events are
// not kept.
func (s *Store) Get(owner, id string, query url.Values) ([]byte, error) {
	if query.Get("stream") == "true" {
		return nil, openai.InvalidRequest("stream", `a response is not streamed again here: leave "stream" out to get all of it`)
	}
	r := s.held(owner, id)
	if r == nil {
		return nil, notFound(id)
	}
	return openai.Marshal(r), nil
}

// held finds a response; nil = there is none.
func (s *Store) held(owner, id string) *response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(owner, id); e != nil {
		return e.response
	}
	return nil
}

// Delete answers DELETE /v1/responses/ID: {"id":ID,"object":"response","deleted":true}. One that runs in the background is cancelled.
func (s *Store) Delete(owner, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(owner, id) == nil {
		return nil, notFound(id)
	}
	s.remove(s.entries[id])
	return openai.Marshal(struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{id, "response", true}), nil
}

// Cancel answers POST /v1/responses/ID/cancel: the response, as JSON, cancelled unless it has ended before. One that is not in the
// background is a 400.
func (s *Store) Cancel(owner, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(owner, id)
	if e == nil {
		return nil, notFound(id)
	}
	if !e.response.Background {
		return nil, openai.InvalidRequest("", "Cannot cancel a synchronous response.")
	}
	if e.response.running() {
		r := *e.response
		r.Status = statusCancelled
		s.replace(e, &r)
	}
	return openai.Marshal(e.response), nil
}

// find finds what is held of a response and notes that it is used; nil = there is none.
func (s *Store) find(owner, id string) *entry {
	at := s.entries[id]
	if at == nil {
		return nil
	}
	e := entryAt(at)
	if e.owner != owner {
		return nil
	}
	if e.old() {
		s.remove(at)
		return nil
	}
	s.used.MoveToFront(at)
	return e
}

func (e *entry) old() bool { return e.cancel == nil && time.Since(e.made) >= maxAge }

func entryAt(at *list.Element) *entry { return at.Value.(*entry) } //nolint:errcheck,forcetypeassert // nothing else is in the list

// keep stores a call's response. One that was stored by Start takes the place of that, unless it was cancelled or deleted.
func (s *Store) keep(c *Call, r *response) {
	e := &entry{owner: c.owner, response: r, input: c.input, request: c.size, made: time.Now()}
	e.weigh()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.background {
		if at := s.entries[r.ID]; at != nil && entryAt(at).response.running() {
			s.used.MoveToFront(at)
			s.replace(entryAt(at), r)
		}
		return
	}
	if e.size <= s.max-s.running {
		s.insert(e)
	}
}

// chain returns the items of a response, of those before it among them. An error is of the request that names it.
func (s *Store) chain(owner, id string) ([]item, *openai.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var turns []*entry
	for before := &id; before != nil; before = turns[len(turns)-1].response.Previous {
		e := s.find(owner, *before)
		if e == nil {
			return nil, &openai.Error{
				Status: http.StatusBadRequest, Type: openai.TypeInvalidRequest, Param: "previous_response_id",
				Code: "previous_response_not_found", Message: "Previous response with id '" + *before + "' not found.",
			}
		}
		if e.response.running() {
			return nil, openai.InvalidRequest("previous_response_id", "The response with id '"+*before+"' has not ended yet.")
		}
		turns = append(turns, e)
	}
	var items []item
	for _, e := range slices.Backward(turns) {
		items = append(append(items, e.input...), e.response.Output...)
	}
	return items, nil
}

// item finds an item by its id.
func (s *Store) item(owner, id string) (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.items[itemKey{owner, id}]
	if h == nil {
		return item{}, false
	}
	return h.item, true
}

// weigh sets the size.
func (e *entry) weigh() { e.size = e.request + int64(len(openai.Marshal(e.response))) + overhead }

// insert takes a response in.
func (s *Store) insert(e *entry) {
	s.entries[e.response.ID] = s.used.PushFront(e)
	s.count(e, 1)
	s.shrink()
}

// replace gives a response that runs its next state.
func (s *Store) replace(e *entry, r *response) {
	s.count(e, -1)
	e.response = r
	if !r.running() {
		e.cancel()
		e.cancel = nil
	}
	e.weigh()
	s.count(e, 1)
	s.shrink()
}

func (s *Store) remove(at *list.Element) {
	e := entryAt(at)
	s.used.Remove(at)
	delete(s.entries, e.response.ID)
	s.count(e, -1)
	if e.cancel != nil {
		e.cancel()
	}
}

// count adds an entry to what is known of all, or takes it from that again.
func (s *Store) count(e *entry, by int) {
	s.size += int64(by) * e.size
	if e.cancel != nil {
		s.running += int64(by) * e.size
	}
	for _, items := range [][]item{e.input, e.response.Output} {
		for i := range items {
			s.countItem(itemKey{e.owner, items[i].ID}, &items[i], by)
		}
	}
}

func (s *Store) countItem(key itemKey, it *item, by int) {
	h := s.items[key]
	if h == nil {
		h = &heldItem{item: *it}
		s.items[key] = h
	}
	if h.held += by; h.held == 0 {
		delete(s.items, key)
	}
}

// shrink lets go what is too old or too much.
func (s *Store) shrink() {
	for at := s.used.Back(); at != nil; {
		e, before := entryAt(at), at.Prev()
		if !e.old() && s.size <= s.max {
			return
		}
		if e.cancel == nil {
			s.remove(at)
		}
		at = before
	}
}
