//go:build clients

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"assistant/internal/enginetest"
	"assistant/internal/realtest"
)

// passedOn are the kinds of models whose engine answers what it likes: here it repeats the request.
var passedOn = map[string]string{"SpeechRequest": "speech", "TranscriptionRequest": "transcription", "ImageRequest": "image", "ModerationRequest": "moderation"}

// fuzzModels are the models that schemathesis asks. Those of llama-server's refuse what is not of their kind.
func fuzzModels(t *testing.T) map[string]string {
	engine := enginetest.Binary(t)
	models := map[string]string{}
	for _, kind := range passedOn {
		models["a-"+kind+".toml"] = fakeModel(kind, engine, "--echo")
	}
	file := filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), tinyFile)
	for _, kind := range []string{"chat", "embedding", "rerank"} {
		models["a-"+kind+".toml"] = fmt.Sprintf("kind = %q\nengine = \"llama-server\"\nmodel_path = %q\n", kind, file)
	}
	models["a-chat.toml"] += "aliases = [\"default\"]\n"
	return models
}

// endless are streams that have no end of their own.
var endless = []string{"/models/sse", "/assistant/events"}

// afar is what waits for servers elsewhere, which may fail (502); what downloads begin in the background gets nowhere here.
const afar = "/api/pull"

// perhaps are the checks that are left out: what a request holds beyond our own fields is the engine's affair, and the fake one takes
// anything, so that it says nothing whether nonsense was refused (and fields that nobody knows are no nonsense).
const perhaps = "negative_data_rejection,positive_data_acceptance"

// TestOpenAPI has schemathesis hold the answers against the document, for ASSISTANT_TEST_CASES requests.
func TestOpenAPI(t *testing.T) {
	cases, err := strconv.Atoi(cmp.Or(os.Getenv("ASSISTANT_TEST_CASES"), "2000"))
	if err != nil {
		t.Fatal(err)
	}
	nowhere := httptest.NewServer(http.NotFoundHandler())
	defer nowhere.Close()
	s := startServer(t, fuzzModels(t), "HF_ENDPOINT="+nowhere.URL, "HTTPS_PROXY="+nowhere.URL, "LLAMA_SERVER="+enginetest.Binary(t), enginetest.EnvArgs+"=--lenient --tokens 5")
	document, operations := s.documentForFuzzing()
	each := cases*13/10/operations + 1 // some operations have fewer requests than that which differ
	seed := cmp.Or(os.Getenv("ASSISTANT_TEST_SEED"), "1")
	args := []string{
		"-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", document, "--url", s.https, "--tls-verify", s.ca(), "--exclude-checks", perhaps, "--seed", seed,
		"--max-examples", strconv.Itoa(each), "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--request-timeout", "30",
		"--warnings", "off", "--suppress-health-check", "all", "--no-color",
	}
	for _, path := range append(endless, afar) {
		args = append(args, "--exclude-path", path)
	}
	cmd := exec.Command(realtest.Need(t, "ASSISTANT_TEST_PYTHON_SCHEMATHESIS"), args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	ran := regexp.MustCompile(`(\d+) generated`).FindSubmatch(out)
	if err != nil || ran == nil {
		t.Fatalf("seed %s: %v\n%s", seed, err, out)
	}
	n, _ := strconv.Atoi(string(ran[1]))
	if n < cases {
		t.Errorf("%d cases, want %d", n, cases)
	}
	fmt.Printf("\nschemathesis: %d cases of %d operations, seed %s: no 5xx, nothing that is not in the document\n", n, operations, seed)
	if log := s.log(); strings.Contains(log, "panic") {
		t.Error("something panicked")
	}
}

// documentForFuzzing writes the document to a file, with the names of the models in it: made-up names would all be a 404. It returns the
// number of operations too.
func (s *server) documentForFuzzing() (file string, operations int) {
	s.t.Helper()
	res, err := s.client.Get(s.https + "/openapi.json")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		s.t.Fatal(err)
	}
	for path, item := range doc.Paths {
		for method := range item {
			if method != "parameters" && path != endless[0] && path != endless[1] {
				operations++
			}
		}
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		s.t.Fatal(err)
	}
	for name, schema := range whole["components"].(map[string]any)["schemas"].(map[string]any) {
		fields, ok := schema.(map[string]any)["properties"].(map[string]any)
		if !ok || fields["model"] == nil || !strings.HasSuffix(name, "Request") && name != "NamedModel" {
			continue
		}
		names := []string{"a-chat", "a-embedding", "a-rerank", "nobody"}
		if kind := passedOn[name]; kind != "" {
			names = []string{"a-" + kind, "nobody"}
		}
		fields["model"] = map[string]any{"enum": names}
	}
	named, err := json.Marshal(whole)
	if err != nil {
		s.t.Fatal(err)
	}
	file = filepath.Join(s.dir, "openapi.json")
	s.write("openapi.json", string(named))
	return file, operations
}
