package responses

import (
	"context"
	"net/http"
	"time"

	"assistant/internal/openai"
)

// Background says whether the client is to be answered at once, and the model asked meanwhile. Whoever serves it then does
//
//	ctx, cancel := context.WithCancel(…)    // not of the client's request, which ends before
//	body, err := call.Start(cancel)         // the answer to the client
//	go func() {
//		defer call.Abandon()
//		w := dialect.NewWriter(…, call.ErrorBody)
//		w.Answers(call)
//		… ask as for any other call, within ctx; call.Running() when the model is at it
//		w.Close()
//	}()
//
// where what w writes to is thrown away: it is the [Store] that the response is fetched from.
func (c *Call) Background() bool { return c.background }

// Start stores the response as queued and returns it as JSON, for the client. cancel is called when the client cancels or deletes
// the response, and when it has ended; it must not wait, nor call the Store. The error is an *openai.Error with status 429: as many
// responses run as there is room for.
func (c *Call) Start(cancel context.CancelFunc) ([]byte, error) {
	r := c.response
	r.Status = statusQueued
	e := &entry{owner: c.owner, response: &r, input: c.input, request: c.size, made: time.Now(), cancel: cancel}
	e.weigh()
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.size > s.max-s.running {
		return nil, &openai.Error{
			Status: http.StatusTooManyRequests, Type: openai.TypeRateLimit, Code: openai.CodeRateLimit, RetryAfter: 10 * time.Second,
			Message: "too many responses run in the background",
		}
	}
	s.insert(e)
	return openai.Marshal(&r), nil
}

// Running notes that the model is at it. To clients it makes no difference but to know.
func (c *Call) Running() {
	r := c.response
	r.Status = statusInProgress
	c.becomes(&r)
}

// ErrorBody is a [dialect.ErrorBody] that stores the response of [Call.Start] as failed.
func (c *Call) ErrorBody(e *openai.Error) []byte {
	r := c.response
	r.fails(e)
	c.becomes(&r)
	return ErrorBody(e)
}

// becomes gives the response of Start its next state.
func (c *Call) becomes(r *response) {
	if c.background {
		c.store.keep(c, r)
	}
}

// Abandon stores the response of [Call.Start] as failed, if it has not ended.
func (c *Call) Abandon() {
	c.ErrorBody(&openai.Error{Status: http.StatusInternalServerError, Message: "the answer was given up"})
}
