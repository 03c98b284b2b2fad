package caddymodule

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// document is what tests read of it.
type document struct {
	OpenAPI    string
	Paths      map[string]map[string]json.RawMessage
	Components struct{ Schemas map[string]json.RawMessage }
}

// What is served is in the document, and what is in the document is served.
func TestOpenAPIHasWhatIsServed(t *testing.T) {
	s := newSite(t)
	s.start()
	a := s.get("/openapi.json")
	var doc document
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != http.StatusOK || doc.OpenAPI != "3.1.0" {
		t.Fatalf("status %d, %v: %.100s", a.status, err, a.body)
	}
	served := map[string][]string{} // method and path: those that begin with it
	for path := range endpoints {
		served[http.MethodPost+" "+path] = nil
	}
	for path, to := range routes {
		for method := range to.methods {
			if method != http.MethodHead {
				served[method+" "+path] = nil
			}
		}
	}
	for path, item := range doc.Paths {
		for method := range item {
			if method == "parameters" {
				continue
			}
			key := strings.ToUpper(method) + " " + path
			if _, ok := served[key]; !ok {
				key = strings.TrimSuffix(key, anyID) // below a route that ends with a slash
			}
			if _, ok := served[key]; !ok {
				t.Errorf("%s %s is in the document and is not served", method, path)
			}
			served[key] = append(served[key], path)
		}
	}
	for key, documented := range served {
		if len(documented) == 0 {
			t.Errorf("%s is served and not in the document", key)
		}
	}
}

// What the document refers to is in it.
func TestOpenAPIRefersToItself(t *testing.T) {
	var doc document
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, part := range strings.Split(string(openAPI), `"$ref": "#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		refs = append(refs, name)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("%s is referred to and not there", name)
		}
	}
	for name := range doc.Components.Schemas {
		if !slices.Contains(refs, name) {
			t.Errorf("%s is there and not referred to", name)
		}
	}
}
