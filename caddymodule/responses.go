package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"assistant/internal/dialect"
	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/internal/responses"
)

// OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses. Responses are kept for as long as the process lives.

const responsesPath = "/v1/responses"

func init() {
	endpoints[responsesPath] = endpoint{api: &api{
		errors: responses.ErrorBody,
		read: func(x *exchange, body []byte) (dialect.Call, error) {
			return x.h.rt.store.Create(ownerOf(x.key), body)
		},
	}}
	one := responsesPath + "/" + anyID
	routes[one] = route{methods: map[string]serveFunc{
		http.MethodGet: stored((*responses.Store).Get), http.MethodHead: stored((*responses.Store).Get), http.MethodDelete: stored(deleteStored),
	}}
	routes[one+"/cancel"] = post(stored(cancelStored))
	routes[one+"/input_items"] = get(stored((*responses.Store).InputItems))
	for path, to := range routes {
		if strings.HasPrefix(path, one) {
			to.errors = responses.ErrorBody
			routes[path] = to
		}
	}
}

// ownerOf is whose responses a key's are.
func ownerOf(key *keys.Key) string {
	if key == nil {
		return ""
	}
	return key.Name
}

// stored is a route about a response that is kept, answered by the store.
func stored(answer func(s *responses.Store, owner, id string, query url.Values) ([]byte, error)) serveFunc {
	return func(h *Handler, w http.ResponseWriter, r *http.Request, key *keys.Key) {
		id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, responsesPath+"/"), "/")
		body, err := answer(h.rt.store, ownerOf(key), id, r.URL.Query())
		var api *openai.Error
		if errors.As(err, &api) {
			api.WriteTo(w)
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
}

func deleteStored(s *responses.Store, owner, id string, _ url.Values) ([]byte, error) {
	return s.Delete(owner, id)
}

func cancelStored(s *responses.Store, owner, id string, _ url.Values) ([]byte, error) {
	return s.Cancel(owner, id)
}

// serveLater answers the client at once, with a response that it can fetch, and has the model answer meanwhile.
func (x *exchange) serveLater(call *responses.Call) error {
	ctx, cancel := context.WithCancel(context.Background()) // the client's own ends with this answer
	queued, err := call.Start(cancel)
	if err != nil {
		cancel()
		return err
	}
	later := *x
	x.body, x.asked, x.end = nil, nil, nil // they are its
	later.r = x.r.Clone(ctx)
	later.client = dialect.NewWriter(&discarded{http.Header{requestIDHeader: x.w.Header()[requestIDHeader]}}, call.ErrorBody)
	later.client.Answers(call)
	later.w = later.client
	go later.finish(call)
	x.status = http.StatusOK
	writeJSON(x.client.Unwrap(), http.StatusOK, queued)
	return nil
}

// finish has the model answer what nobody waits for.
func (x *exchange) finish(call *responses.Call) {
	defer x.close()
	defer call.Abandon()
	defer func() { // as net/http does it: one request is not to end the server
		if v := recover(); v != nil {
			x.h.rt.log.Error("a response in the background failed", "model", x.model.Name, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	if err := x.serveNow(); err != nil {
		x.h.rt.log.Debug("a response in the background was given up", "model", x.model.Name, "error", err)
		return
	}
	x.client.Close()
}

// discarded is a client that needs no answer.
type discarded struct{ header http.Header }

func (d *discarded) Header() http.Header       { return d.header }
func (*discarded) WriteHeader(int)             {}
func (*discarded) Write(p []byte) (int, error) { return len(p), nil }
func (*discarded) FlushError() error           { return nil }
