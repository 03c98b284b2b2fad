package hubtest

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's sum
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hub speaks Hugging Face's protocol: descriptions of repositories, and files, of which the large ones (LFS) are sent on to a CDN.
type Hub struct {
	URL   string
	CDN   *CDN
	Token string // what Authorization must bear for gated and private repositories; "" = none is good

	// Fault may answer in the hub's place, and then tells so. It is set before the first request.
	Fault func(http.ResponseWriter, *http.Request) bool

	mu       sync.Mutex
	repos    map[string]*Repo
	requests []Request
}

// Repo is a repository. Its fields are set before the first request.
type Repo struct {
	Licence string
	Gated   bool // its files are for those alone who accepted its licence
	Private bool // it is not even told of
	Commit  string
	Branch  string // "" = main

	files map[string]file
}

type file struct {
	content []byte
	lfs     bool
}

// NewHub starts a hub and its CDN, which end with the test.
func NewHub(t testing.TB) *Hub {
	t.Helper()
	h := &Hub{CDN: NewCDN(t), repos: map[string]*Repo{}}
	server := httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(server.Close)
	h.URL = server.URL
	return h
}

// Repo is the repository of that name (OWNER/REPO), made if it is new.
func (h *Hub) Repo(name string) *Repo {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.repo(name)
}

func (h *Hub) repo(name string) *Repo {
	if h.repos[name] == nil {
		h.repos[name] = &Repo{Commit: Sum([]byte(name))[:40], files: map[string]file{}}
	}
	return h.repos[name]
}

// Add puts a large file into a repository, and returns its SHA-256.
func (h *Hub) Add(repo, name string, content []byte) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repo(repo).files[name] = file{content, true}
	return h.CDN.Put(content)
}

// AddSmall puts a file into a repository that is in git itself: the hub serves it, and has no SHA-256 of it.
func (h *Hub) AddSmall(repo, name string, content []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repo(repo).files[name] = file{content, false}
}

// Requests lists what was asked for so far.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

func (h *Hub) serve(w http.ResponseWriter, req *http.Request) {
	h.mu.Lock()
	h.requests = append(h.requests, Request{req.Method, req.URL.Path, req.Header.Get("Range"), req.Header.Get("Authorization")})
	h.mu.Unlock()
	if h.Fault != nil && h.Fault(w, req) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(req.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		parts[i], _ = url.PathUnescape(parts[i])
	}
	switch {
	case len(parts) == 6 && parts[0] == "api" && parts[1] == "models" && parts[4] == "revision":
		h.describe(w, req, parts[2]+"/"+parts[3], parts[5])
	case len(parts) >= 5 && parts[2] == "resolve":
		h.resolve(w, req, parts[0]+"/"+parts[1], parts[3], strings.Join(parts[4:], "/"))
	default:
		http.NotFound(w, req)
	}
}

// refuse answers as the hub does: its X-Error-Code says more than the status.
func refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", text)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text}) // who left does not read it
}

// open finds a repository as it may be seen; nil = it was refused.
func (h *Hub) open(w http.ResponseWriter, req *http.Request, name, revision string) *Repo {
	repo := h.repos[name]
	if repo == nil || repo.Private && !h.trusts(req) {
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
		return nil
	}
	branch := repo.Branch
	if branch == "" {
		branch = "main"
	}
	if revision != branch && revision != repo.Commit {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
		return nil
	}
	w.Header().Set("X-Repo-Commit", repo.Commit)
	return repo
}

func (h *Hub) trusts(req *http.Request) bool {
	return h.Token != "" && req.Header.Get("Authorization") == "Bearer "+h.Token
}

func (h *Hub) describe(w http.ResponseWriter, req *http.Request, name, revision string) {
	repo := h.open(w, req, name, revision)
	if repo == nil {
		return
	}
	type lfs struct {
		SHA256      string `json:"sha256"`
		Size        int    `json:"size"`
		PointerSize int    `json:"pointerSize"`
	}
	type sibling struct {
		Name string `json:"rfilename"`
		Size *int   `json:"size,omitempty"`
		Blob string `json:"blobId,omitempty"`
		LFS  *lfs   `json:"lfs,omitempty"`
	}
	var siblings []sibling
	for n, f := range repo.files {
		s := sibling{Name: n}
		if req.URL.Query().Get("blobs") == "true" {
			size := len(f.content)
			s.Size, s.Blob = &size, blobID(f.content)
			if f.lfs {
				s.LFS = &lfs{Sum(f.content), size, 134}
			}
		}
		siblings = append(siblings, s)
	}
	slices.SortFunc(siblings, func(a, b sibling) int { return strings.Compare(a.Name, b.Name) })
	answer := map[string]any{
		"id": name, "modelId": name, "sha": repo.Commit, "private": repo.Private, "gated": false,
		"cardData": map[string]any{"license": repo.Licence}, "siblings": siblings,
	}
	if repo.Gated {
		answer["gated"] = "manual"
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer) // who left does not read it
}

// blobID is git's name of a file.
func blobID(b []byte) string {
	s := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(b), b)) //nolint:gosec // git's sum
	return hex.EncodeToString(s[:])
}

func (h *Hub) resolve(w http.ResponseWriter, req *http.Request, name, revision, path string) {
	repo := h.open(w, req, name, revision)
	if repo == nil {
		return
	}
	if repo.Gated && !h.trusts(req) {
		status := http.StatusUnauthorized
		if req.Header.Get("Authorization") != "" {
			status = http.StatusForbidden
		}
		refuse(w, status, "GatedRepo", "Access to model "+name+" is restricted.")
		return
	}
	f, ok := repo.files[path]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	if !f.lfs {
		w.Header().Set("ETag", `"`+blobID(f.content)+`"`)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(f.content))
		return
	}
	sha := Sum(f.content)
	w.Header().Set("X-Linked-Etag", `"`+sha+`"`)
	w.Header().Set("X-Linked-Size", fmt.Sprint(len(f.content)))
	w.Header().Set("Accept-Ranges", "bytes")
	http.Redirect(w, req, h.CDN.Sign(sha), http.StatusFound)
}
