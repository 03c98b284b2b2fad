package caddymodule

import (
	"encoding/json"
	"io"
	"net/http"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/modeldir"
)

// maxAsked bounds a request that only names a model, in bytes.
const maxAsked = 64 << 10

// askedBody is the body of a request that only names a model. Errors are *openai.Error.
func askedBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAsked+1))
	switch {
	case err != nil:
		return nil, openai.InvalidRequest("", "could not read the request body: "+err.Error())
	case len(body) > maxAsked:
		return nil, openai.TooLarge(maxAsked)
	}
	return body, nil
}

// namedIn reads the first of some fields of a request that is there: the name of a model. Errors are *openai.Error.
func namedIn(r *http.Request, fields ...string) (string, error) {
	body, err := askedBody(r)
	if err != nil {
		return "", err
	}
	var asked map[string]json.RawMessage
	if err := json.Unmarshal(body, &asked); err != nil {
		return "", openai.BadJSON(err.Error())
	}
	for _, field := range fields {
		if asked[field] == nil {
			continue
		}
		var name string
		if json.Unmarshal(asked[field], &name) != nil || name == "" {
			return "", openai.InvalidRequest(field, `"`+field+`" must be the name of a model`)
		}
		return name, nil
	}
	return "", openai.InvalidRequest(fields[0], `you must name a model in "`+fields[0]+`"`)
}

// modelOf reads which model a request is about: by the first of the fields that is there. Errors are *openai.Error.
func (h *Handler) modelOf(r *http.Request, key *keys.Key, fields ...string) (*modeldir.Model, error) {
	name, err := namedIn(r, fields...)
	if err != nil {
		return nil, err
	}
	return h.modelNamed(r, key, name)
}

// toManage reads which model is to be managed, as modelOf does. It answers the request and reports false if that cannot be.
func (h *Handler) toManage(w http.ResponseWriter, r *http.Request, key *keys.Key, action string, fields ...string) (*modeldir.Model, bool) {
	m, err := h.modelOf(r, key, fields...)
	if err != nil {
		h.audit(w, r, key, action, "", err)
		refuse(w, "", err)
		return nil, false
	}
	return m, true
}

// modelNamed finds a model that the key may use. Errors are *openai.Error.
func (h *Handler) modelNamed(r *http.Request, key *keys.Key, name string) (*modeldir.Model, error) {
	if err := h.waitReady(r); err != nil {
		return nil, err
	}
	m, ok := named(h.rt.catalog.Load(), key, name, modeldir.Chat)
	if !ok {
		return nil, openai.ModelNotFound(name)
	}
	return m, nil
}

// refuse answers with an error of ours.
func refuse(w http.ResponseWriter, model string, err error) {
	x := exchange{req: openai.Request{Model: model}}
	x.apiError(err).WriteTo(w)
}
