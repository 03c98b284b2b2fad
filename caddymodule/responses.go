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
	routes[responsesPath+"/"] = route{errors: responses.ErrorBody, methods: map[string]serveFunc{
		http.MethodGet: (*Handler).getResponse, http.MethodDelete: (*Handler).deleteResponse, http.MethodPost: (*Handler).cancelResponse,
	}}
}

// ownerOf is whose responses a key's are.
func ownerOf(key *keys.Key) string {
	if key == nil {
		return ""
	}
	return key.Name
}

// getResponse answers GET /v1/responses/ID and /v1/responses/ID/input_items.
func (h *Handler) getResponse(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	id, part := responseID(r.URL)
	switch part {
	case "":
		answerStored(w)(h.rt.store.Get(ownerOf(key), id, r.URL.Query()))
	case "input_items":
		answerStored(w)(h.rt.store.InputItems(ownerOf(key), id, r.URL.Query()))
	default:
		openai.PathNotFound(r.Method, r.URL.Path).WriteTo(w)
	}
}

// deleteResponse answers DELETE /v1/responses/ID.
func (h *Handler) deleteResponse(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	id, part := responseID(r.URL)
	if part != "" {
		openai.PathNotFound(r.Method, r.URL.Path).WriteTo(w)
		return
	}
	answerStored(w)(h.rt.store.Delete(ownerOf(key), id))
}

// cancelResponse answers POST /v1/responses/ID/cancel.
func (h *Handler) cancelResponse(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	id, part := responseID(r.URL)
	if part != "cancel" {
		openai.PathNotFound(r.Method, r.URL.Path).WriteTo(w)
		return
	}
	answerStored(w)(h.rt.store.Cancel(ownerOf(key), id))
}

// responseID is the id within a path, and what follows it.
func responseID(u *url.URL) (id, part string) {
	id, part, _ = strings.Cut(strings.TrimPrefix(u.Path, responsesPath+"/"), "/")
	return id, part
}

// answerStored answers with what the store said.
func answerStored(w http.ResponseWriter) func(body []byte, err error) {
	return func(body []byte, err error) {
		var api *openai.Error
		if errors.As(err, &api) {
			api.WriteTo(w)
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
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
