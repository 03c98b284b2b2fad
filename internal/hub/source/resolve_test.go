package source_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assistant/internal/hub/hubtest"
	"assistant/internal/hub/source"
)

// bring fetches a file from where Locate says first, in two parts, as transfer does, and checks its sum.
func bring(t *testing.T, f source.File) []byte {
	t.Helper()
	at, err := f.Locate(t.Context())
	if err != nil {
		t.Fatalf("locate %s: %v", f.Name, err)
	}
	return fetch(t, f, at[0].URL, at[0].Header)
}

func fetch(t *testing.T, f source.File, url string, header http.Header) []byte {
	t.Helper()
	var whole []byte
	for _, r := range []string{"bytes=0-9", "bytes=10-"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(req.Header, header)
		req.Header.Set("Range", r)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusPartialContent {
			t.Fatalf("%s: %d %s %v", f.Name, resp.StatusCode, b, err)
		}
		whole = append(whole, b...)
	}
	if f.SHA256 != "" && hubtest.Sum(whole) != f.SHA256 || f.Size >= 0 && f.Size != int64(len(whole)) {
		t.Fatalf("%s: %d bytes, not what was promised", f.Name, len(whole))
	}
	return whole
}

func resolve(t *testing.T, r *source.Resolver, s string) *source.Plan {
	t.Helper()
	ref, err := source.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	again, err := source.Parse(plan.Source)
	if err != nil || again.String() != plan.Source {
		t.Errorf("%s became %s, which is read as %v, %v", s, plan.Source, again, err)
	}
	return plan
}

// refused resolves what must fail, with all of says in the error.
func refused(t *testing.T, r *source.Resolver, s string, says ...string) error {
	t.Helper()
	ref, err := source.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.Resolve(t.Context(), ref)
	if err == nil {
		t.Fatalf("%s became %+v", s, plan)
	}
	for _, w := range says {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error does not say %q: %v", s, w, err)
		}
	}
	return err
}

func shape(p *source.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %q %d\n", p.Source, p.Name, p.Quantization, p.Licence, p.Size)
	for _, f := range p.Files {
		fmt.Fprintf(&b, "%s %s %d\n", f.Role, f.Name, f.Size)
	}
	return b.String()
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func newHub(t *testing.T) (*hubtest.Hub, *source.Resolver) {
	h := hubtest.NewHub(t)
	const repo = "Qwen/Qwen2.5-VL-GGUF"
	h.Repo(repo).Licence = "apache-2.0"
	h.Add(repo, "qwen2.5-vl-q4_k_m.gguf", hubtest.GGUF("q4", 1000))
	h.Add(repo, "qwen2.5-vl-q8_0-00001-of-00002.gguf", hubtest.GGUF("q8-1", 2000))
	h.Add(repo, "qwen2.5-vl-q8_0-00002-of-00002.gguf", hubtest.GGUF("q8-2", 1500))
	h.Add(repo, "mmproj-qwen2.5-vl-f16.gguf", hubtest.GGUF("mmproj", 300))
	h.AddSmall(repo, "README.md", []byte("# a model, of which more is told here"))
	return h, &source.Resolver{HuggingFace: h.URL}
}

func TestHub(t *testing.T) {
	h, r := newHub(t)
	plan := resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF")
	equal(t, shape(plan), `hf:Qwen/Qwen2.5-VL-GGUF:Q4_K_M qwen2.5-vl Q4_K_M "apache-2.0" 1348
weights qwen2.5-vl-q4_k_m.gguf 1024
projector mmproj-qwen2.5-vl-f16.gguf 324
`)
	if plan.Revision != h.Repo("Qwen/Qwen2.5-VL-GGUF").Commit {
		t.Errorf("revision %q", plan.Revision)
	}
	if b := bring(t, plan.Files[0]); !bytes.Equal(b, hubtest.GGUF("q4", 1000)) {
		t.Error("other bytes came")
	}

	split := resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF:q8_0@main")
	equal(t, shape(split), `hf:Qwen/Qwen2.5-VL-GGUF:Q8_0@main qwen2.5-vl Q8_0 "apache-2.0" 3872
weights qwen2.5-vl-q8_0-00001-of-00002.gguf 2024
weights qwen2.5-vl-q8_0-00002-of-00002.gguf 1524
projector mmproj-qwen2.5-vl-f16.gguf 324
`)
	for _, f := range split.Files {
		bring(t, f)
	}

	whole := resolve(t, r, "https://huggingface.co/Qwen/Qwen2.5-VL-GGUF/resolve/main/qwen2.5-vl-q4_k_m.gguf#sha256="+plan.Files[0].SHA256)
	equal(t, whole.Files[0].Name, "qwen2.5-vl-q4_k_m.gguf")
	refused(t, r, "https://huggingface.co/Qwen/Qwen2.5-VL-GGUF/resolve/main/qwen2.5-vl-q4_k_m.gguf#sha256="+strings.Repeat("0", 64), "not 000")

	readme := resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF:README.md") // not LFS: the hub has it itself, and no sum of it
	if f := readme.Files[0]; f.SHA256 != "" || len(readme.Files) != 1 || !bytes.HasPrefix(bring(t, f), []byte("# a model")) {
		t.Errorf("got %+v", readme.Files)
	}
}

func TestHubRevision(t *testing.T) {
	h, r := newHub(t)
	h.Repo("a/b-GGUF").Branch = "refs/pr/1"
	h.Add("a/b-GGUF", "deep/with space+@#?%/b-Q4_0.gguf", hubtest.GGUF("b", 10))
	plan := resolve(t, r, "hf:a/b-GGUF@refs/pr/1")
	equal(t, plan.Source, "hf:a/b-GGUF:Q4_0@refs/pr/1")
	bring(t, plan.Files[0])
	named := resolve(t, r, "https://huggingface.co/a/b-GGUF/resolve/refs%2Fpr%2F1/deep/with%20space+@%23%3F%25/b-Q4_0.gguf")
	equal(t, named.Files[0].SHA256, plan.Files[0].SHA256)
}

// TestManyFiles: what a repository of any size holds is told in short.
func TestManyFiles(t *testing.T) {
	h, r := newHub(t)
	for i := range 2000 {
		h.Add("a/many", fmt.Sprintf("m%d-Q4_K_M.gguf", i), nil)
	}
	refused(t, r, "hf:a/many", "name the file", "m10-Q4_K_M.gguf", "more")
	refused(t, r, "hf:a/many:Q9", "there are", "and 1960 more")
}

// TestHubLeadsOn: a hub that moved takes no token along, not even on the way back.
func TestHubLeadsOn(t *testing.T) {
	h, r := newHub(t)
	r.Token = "hf_secret"
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			t.Error("another origin was told the token")
		}
		http.Redirect(w, req, h.URL+req.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer other.Close()
	h.Fault = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") == "" {
			return false
		}
		http.Redirect(w, req, other.URL+req.URL.RequestURI(), http.StatusTemporaryRedirect)
		return true
	}
	resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF")
}

func TestHubChoices(t *testing.T) {
	_, r := newHub(t)
	r.Memory = 512<<20 + 2000
	ref, _ := source.Parse("hf:Qwen/Qwen2.5-VL-GGUF")
	got, err := r.Choices(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, fmt.Sprint(got), "[{Q4_K_M Q4_K_M 1 1024 true true} {Q8_0 Q8_0 2 3548 false false}]")
	equal(t, resolve(t, r, ref.String()).Quantization, "Q4_K_M")
	r.Memory = 1 << 40
	equal(t, resolve(t, r, ref.String()).Quantization, "Q8_0")
	r.Memory = 1 << 20
	refused(t, r, ref.String(), "fits into 1.0 MiB", "Q4_K_M (1.0 kB), Q8_0 (3.5 kB)")
}

func TestHubSignedAddressesExpire(t *testing.T) {
	h, r := newHub(t)
	f := resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF").Files[0]
	old, err := f.Locate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(old[0].URL, h.CDN.URL) {
		t.Errorf("%s is not the CDN's: every part would have to ask the hub first", old[0].URL)
	}
	h.CDN.Expire()
	resp, err := http.Get(old[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Fatalf("an old address still holds: %d", resp.StatusCode)
	}
	bring(t, f)
}

func TestHubRefusals(t *testing.T) {
	h, r := newHub(t)
	h.Token = "hf_secret"
	gated, private := h.Repo("meta/gated-GGUF"), h.Repo("me/private-GGUF")
	gated.Gated, private.Private = true, true
	h.Add("meta/gated-GGUF", "g-Q4_K_M.gguf", hubtest.GGUF("g", 100))
	h.Add("me/private-GGUF", "p-Q4_K_M.gguf", hubtest.GGUF("p", 100))
	h.Add("o/safetensors", "model.safetensors", []byte("x"))

	for s, want := range map[string]error{
		"hf:meta/gated-GGUF":              source.ErrDenied,
		"hf:me/private-GGUF":              source.ErrNotFound,
		"hf:no/body":                      source.ErrNotFound,
		"hf:Qwen/Qwen2.5-VL-GGUF@v9":      source.ErrNotFound,
		"hf:Qwen/Qwen2.5-VL-GGUF:Q9":      source.ErrNotFound,
		"hf:o/safetensors":                source.ErrNotFound,
		"hf:Qwen/Qwen2.5-VL-GGUF:no.gguf": source.ErrNotFound,
	} {
		if err := refused(t, r, s, "source "+s); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", s, err, want)
		}
	}
	refused(t, r, "hf:meta/gated-GGUF", "accept its licence at https://huggingface.co/meta/gated-GGUF", "HF_TOKEN")
	refused(t, r, "hf:me/private-GGUF", "no such repository", "HF_TOKEN")
	refused(t, r, "hf:Qwen/Qwen2.5-VL-GGUF@v9", "no revision v9")
	refused(t, r, "hf:Qwen/Qwen2.5-VL-GGUF:Q9", "there are Q4_K_M (1.0 kB), Q8_0 (3.5 kB)")
	refused(t, r, "hf:o/safetensors", "no GGUF", "-GGUF")

	r.Token = "wrong"
	refused(t, r, "hf:me/private-GGUF", "whether HF_TOKEN still holds")
	refused(t, r, "hf:meta/gated-GGUF", "may not have it", "https://huggingface.co/meta/gated-GGUF")
	r.Token = h.Token
	bring(t, resolve(t, r, "hf:meta/gated-GGUF").Files[0])
	bring(t, resolve(t, r, "hf:me/private-GGUF").Files[0])
	for _, q := range h.CDN.Requests() {
		if q.Authorization != "" {
			t.Errorf("the CDN was told %s", q.Authorization)
		}
	}
}

func TestHubMirrors(t *testing.T) {
	h, r := newHub(t)
	mirror, _ := newHub(t)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	lagging, _ := newHub(t)
	lagging.Add("Qwen/Qwen2.5-VL-GGUF", "qwen2.5-vl-q4_k_m.gguf", hubtest.GGUF("older", 1000))

	r.HuggingFace = down.URL + ", " + h.URL + "/," + lagging.URL + "," + mirror.URL
	f := resolve(t, r, "hf:Qwen/Qwen2.5-VL-GGUF").Files[0]
	at, err := f.Locate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(at) != 2 || !strings.HasPrefix(at[0].URL, h.CDN.URL) || !strings.HasPrefix(at[1].URL, mirror.CDN.URL) {
		t.Fatalf("got %v: want the hub, then the mirror that has the same file", at)
	}
	for _, l := range at {
		fetch(t, f, l.URL, l.Header)
	}

	r.HuggingFace = down.URL
	refused(t, r, "hf:Qwen/Qwen2.5-VL-GGUF", "refused")
	r.HuggingFace = "hub.example"
	refused(t, r, "hf:Qwen/Qwen2.5-VL-GGUF", "HF_ENDPOINT", "https://")
}

func TestHubTokenIsNotSentUnencrypted(t *testing.T) {
	seen := make(chan string, 1)
	client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		seen <- req.Header.Get("Authorization")
		return nil, errors.New("cut off")
	})}
	r := &source.Resolver{HuggingFace: "http://mirror.example", Token: "hf_secret", Client: client}
	refused(t, r, "hf:a/b", "cut off")
	equal(t, <-seen, "")
	r.HuggingFace = "https://mirror.example"
	refused(t, r, "hf:a/b", "cut off")
	equal(t, <-seen, "Bearer hf_secret")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestHostile: what a server says is not believed where it could do harm.
func TestHostile(t *testing.T) {
	commit := strings.Repeat("a", 40)
	sibling := func(name, rest string) string {
		return `{"sha":"` + commit + `","siblings":[{"rfilename":"` + name + `"` + rest + `}]}`
	}
	for name, c := range map[string]struct{ body, says string }{
		"negative size": {sibling("m.gguf", `,"size":-1`), "no model has"},
		"sizes whose sum is none": {
			`{"sha":"` + commit + `","siblings":[{"rfilename":"m-00001-of-00002.gguf","size":5000000000000000000},` +
				`{"rfilename":"m-00002-of-00002.gguf","size":5000000000000000000}]}`, "no model has",
		},
		"huge size":          {sibling("m.gguf", `,"size":9000000000000000000`), "no model has"},
		"a sum that is none": {sibling("m.gguf", `,"size":1,"lfs":{"sha256":"../x","size":1}`), "sha256"},
		"escaping":           {sibling("../../m.gguf", `,"size":1`), "no GGUF"},
		"backslashes":        {sibling(`..\\m.gguf`, `,"size":1`), "no GGUF"},
		"NUL":                {sibling(`m\u0000.gguf`, `,"size":1`), "no GGUF"},
		"overlong":           {sibling(strings.Repeat("m", 250)+".gguf", `,"size":1`), "no GGUF"},
		"no commit":          {`{"sha":"../..","siblings":[]}`, "commit"},
		"no JSON":            {"<html>", "no description"},
		"without end":        {strings.Repeat(" ", 33<<20), "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.body) }))
			defer server.Close()
			refused(t, &source.Resolver{HuggingFace: server.URL}, "hf:a/b", c.says)
		})
	}

	o := hubtest.NewOllama(t)
	layer := func(digest, size string) string {
		return `{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:` + digest + `","size":` + size + `}`
	}
	digest := commit + commit[:24]
	for name, c := range map[string]struct{ body, says string }{
		"digest": {`{"layers":[` + layer("../../x", "1") + `]}`, "no sha256"},
		"size":   {`{"layers":[` + layer(digest, "-5") + `]}`, "no model has"},
		"sum":    {`{"layers":[` + strings.Repeat(layer(digest, "10000000000000")+",", 9) + `{}]}`, "no model has"},
		"json":   {`[`, "no manifest"},
	} {
		o.AddManifest("library/"+name+":latest", []byte(c.body))
		refused(t, &source.Resolver{OllamaRegistry: o.URL}, "ollama:"+name, c.says)
	}
}

func TestOllama(t *testing.T) {
	o := hubtest.NewOllama(t)
	o.Bearer = "a-token"
	o.Add("llava:7b", `{"model_format":"gguf","file_type":"Q4_0"}`,
		hubtest.Layer{Type: "model", Content: hubtest.GGUF("llava", 500)},
		hubtest.Layer{Type: "license", Content: []byte("\n   Apache License\n Version 2.0")},
		hubtest.Layer{Type: "projector", Content: hubtest.GGUF("clip", 200)},
		hubtest.Layer{Type: "template", Content: []byte("{{ .Prompt }}")},
		hubtest.Layer{Type: "system", Content: []byte("You are kind.")},
		hubtest.Layer{Type: "params", Content: []byte(`{"stop":["x"]}`)},
		hubtest.Layer{Type: "messages", Content: []byte(`[]`)},
		hubtest.Layer{Type: "adapter", Content: hubtest.GGUF("lora", 50)},
		hubtest.Layer{Type: "license", Content: []byte("more")},
	)
	o.Add("jo/plain:latest", `{}`, hubtest.Layer{Type: "model", Content: hubtest.GGUF("plain", 10)})
	o.Add("tensors:latest", `{}`, hubtest.Layer{Type: "tensor", Content: []byte("xxxx")})
	r := &source.Resolver{OllamaRegistry: o.URL}

	plan := resolve(t, r, "ollama:llava:7b")
	equal(t, shape(plan), `ollama:llava:7b llava-7b Q4_0 "Apache License" 899
weights llava-7b.gguf 524
projector mmproj-llava-7b.gguf 224
adapter lora-llava-7b.gguf 74
template template.txt 13
system system.txt 13
params params.json 14
messages messages.json 2
licence licence.txt 31
licence licence-2.txt 4
`)
	for _, f := range plan.Files {
		if f.Size > 10 {
			bring(t, f)
		}
	}
	if !strings.HasPrefix(plan.Revision, "sha256:") {
		t.Errorf("revision %q", plan.Revision)
	}
	equal(t, shape(resolve(t, r, "ollama:jo/plain")), "ollama:jo/plain:latest plain  \"\" 34\nweights plain.gguf 34\n")
	byHost := "ollama:" + strings.TrimPrefix(o.URL, "http://") + "/jo/plain"
	equal(t, resolve(t, &source.Resolver{}, byHost).Name, "plain")

	if err := refused(t, r, "ollama:nobody", "library/nobody:latest", "check its name"); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	refused(t, r, "ollama:tensors", "no GGUF")
	for _, q := range o.CDN.Requests() {
		if q.Authorization != "" {
			t.Errorf("the CDN was told %s", q.Authorization)
		}
	}
}

// TestRegistryLies: what is named by its digest is that, or nothing.
func TestRegistryLies(t *testing.T) {
	o := hubtest.NewOllama(t)
	licence := []byte("Apache License")
	o.Add("m:latest", "{}", hubtest.Layer{Type: "model", Content: hubtest.GGUF("m", 10)}, hubtest.Layer{Type: "license", Content: licence})
	o.CDN.Spoil(hubtest.Sum(licence), []byte("do what you want"))
	r := &source.Resolver{OllamaRegistry: o.URL}
	refused(t, r, "ollama:m", "licence", "other bytes")

	digest := "sha256:" + strings.Repeat("1", 64)
	o.AddManifest("library/m:"+digest, []byte(`{"layers":[]}`))
	refused(t, r, "oci:"+strings.TrimPrefix(o.URL, "http://")+"/library/m@"+digest, "with the digest sha256:")
}

func TestRegistryAnswersAreBounded(t *testing.T) {
	o := hubtest.NewOllama(t)
	o.AddManifest("library/big:latest", bytes.Repeat([]byte(" "), 5<<20))
	refused(t, &source.Resolver{OllamaRegistry: o.URL}, "ollama:big", "more than 4194304 bytes")
}

func TestDownToPlainHTTPIsRefused(t *testing.T) {
	client := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		header := http.Header{"Location": {"http://cdn.example/x"}}
		return &http.Response{StatusCode: http.StatusFound, Header: header, Body: http.NoBody, Request: req}, nil
	})}
	refused(t, &source.Resolver{Client: client}, "https://h.example/x.gguf", "not encrypted")
}

func TestWeb(t *testing.T) {
	parts := map[string][]byte{
		"/m/x-Q4_0-00001-of-00002.gguf": hubtest.GGUF("1", 100), "/m/x-Q4_0-00002-of-00002.gguf": hubtest.GGUF("2", 50),
		"/m/page.gguf": []byte("<html>log in</html>"), "/m/whisper.bin": []byte("lmgg and more than that"),
		"/half/y-00001-of-00002.gguf": hubtest.GGUF("3", 10),
	}
	cdn := hubtest.NewCDN(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, ok := parts[req.URL.Path]
		if !ok {
			http.NotFound(w, req)
			return
		}
		http.Redirect(w, req, cdn.Sign(cdn.Put(b)), http.StatusFound)
	}))
	defer server.Close()
	r := &source.Resolver{}

	first, second := hubtest.Sum(parts["/m/x-Q4_0-00001-of-00002.gguf"]), hubtest.Sum(parts["/m/x-Q4_0-00002-of-00002.gguf"])
	address := server.URL + "/m/x-Q4_0-00001-of-00002.gguf#sha256=" + first + "," + second
	plan := resolve(t, r, address)
	equal(t, shape(plan), address+` x Q4_0 "" 198
weights x-Q4_0-00001-of-00002.gguf 124
weights x-Q4_0-00002-of-00002.gguf 74
`)
	for _, f := range plan.Files {
		bring(t, f)
	}
	cdn.Expire()
	bring(t, plan.Files[0])
	equal(t, resolve(t, r, server.URL+"/m/whisper.bin").Files[0].Name, "whisper.bin")
	refused(t, r, server.URL+"/m/x-Q4_0-00001-of-00002.gguf#sha256="+first, "1 sha256 for 2 files")
	refused(t, r, server.URL+"/m/page.gguf", `"<htm"`)
	if err := refused(t, r, server.URL+"/half/y-00001-of-00002.gguf", "y-00002-of-00002.gguf", "404"); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("v/gemma-Q4_K_M.gguf", hubtest.GGUF("g", 10))
	write("v/gemma-Q8_0.gguf", hubtest.GGUF("g", 20))
	write("v/mmproj-gemma-F16.gguf", hubtest.GGUF("p", 5))
	write("other/whisper.bin", []byte("lmgg"))
	write("cut.gguf", []byte("GGUF"))
	write("none/x.txt", nil)
	r := &source.Resolver{Base: dir}

	path := filepath.Join(dir, "v", "gemma-Q4_K_M.gguf")
	want := "file:" + path + " gemma Q4_K_M \"\" 63\nweights gemma-Q4_K_M.gguf 34\nprojector mmproj-gemma-F16.gguf 29\n"
	for _, s := range []string{"file:v", "file:v/gemma-Q4_K_M.gguf", "file:" + path} {
		plan := resolve(t, r, s)
		equal(t, shape(plan), want)
		equal(t, plan.Files[0].Path, path)
	}
	equal(t, resolve(t, r, "file:other/whisper.bin").Name, "whisper.bin")
	refused(t, r, "file:cut.gguf", "not a GGUF")
	refused(t, r, "file:none", "no GGUF")
	if err := refused(t, r, "file:nowhere", filepath.Join(dir, "nowhere")); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	ref, _ := source.Parse("file:v")
	if list, err := r.Choices(t.Context(), ref); err != nil || len(list) != 2 || !list[0].Default {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestCancelledWhileAsking(t *testing.T) {
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	ref, _ := source.Parse("hf:a/b")
	r := &source.Resolver{HuggingFace: server.URL + "," + server.URL}
	if _, err := r.Resolve(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
