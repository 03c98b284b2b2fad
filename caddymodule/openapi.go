package caddymodule

import (
	_ "embed"
	"net/http"

	"assistant/internal/keys"
)

// openAPI is the document of what is served. A test holds it against endpoints and routes, and schemathesis holds the answers against it
// (make fuzz-api).
//
//go:embed openapi.json
var openAPI []byte

// The document tells nothing of models, so no key is asked for.
func init() {
	document := get((*Handler).serveOpenAPI)
	document.open = true
	routes["/openapi.json"] = document
}

func (h *Handler) serveOpenAPI(w http.ResponseWriter, _ *http.Request, _ *keys.Key) {
	writeJSON(w, http.StatusOK, openAPI)
}
