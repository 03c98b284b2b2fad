package hubtest

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"assistant/internal/realtest"
)

// Registry is the reference registry of OCI artefacts, as its own program. Who logs in is User with Password.
type Registry struct {
	Host    string // with its port
	Storage string // the URL of the other origin that blobs are sent on to; "" = it serves them itself

	mu       sync.Mutex
	requests []Request // to the storage
}

// What a registry with a login takes.
const (
	User     = "ada"
	Password = "lovelace"
	// htpasswd is User and Password as the registry stores them, by bcrypt with cost 4.
	htpasswd = User + ":$2a$04$mHfpom0ppBnv/keoi7KSrezzhDDd3vOr1XKvnEKVXFsXaDC2q8sBK\n"
)

// RegistryOptions is what a Registry may do beyond serving.
type RegistryOptions struct {
	Login    bool // by User and Password
	Redirect bool // blobs are sent on to another origin, as registries with their store in a cloud do
}

// NewRegistry starts the registry that make test builds. It ends with the test.
func NewRegistry(t testing.TB, o RegistryOptions) *Registry {
	t.Helper()
	program := realtest.Need(t, "ASSISTANT_TEST_REGISTRY")
	dir := t.TempDir()
	r := &Registry{}
	store := filepath.Join(dir, "store")
	config := map[string]any{
		"version": 0.1,
		"log":     map[string]any{"level": "info", "formatter": "json", "accesslog": map[string]bool{"disabled": true}},
		"http":    map[string]any{"addr": "127.0.0.1:0", "secret": "of a test"},
		"storage": map[string]any{"filesystem": map[string]string{"rootdirectory": store}},
	}
	if o.Login {
		file := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(file, []byte(htpasswd), 0o600); err != nil {
			t.Fatal(err)
		}
		config["auth"] = map[string]any{"htpasswd": map[string]string{"realm": "a test", "path": file}}
	}
	if o.Redirect {
		r.Storage = r.serveStorage(t, store)
		redirect := map[string]any{"name": "redirect", "options": map[string]string{"baseurl": r.Storage}}
		config["middleware"] = map[string]any{"storage": []any{redirect}}
	}
	r.start(t, program, dir, config)
	return r
}

// serveStorage serves the registry's files as a cloud's store does, which takes no Authorization.
func (r *Registry) serveStorage(t testing.TB, dir string) string {
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, Request{req.Method, req.URL.Path, req.Header.Get("Range"), req.Header.Get("Authorization")})
		r.mu.Unlock()
		if req.Header.Get("Authorization") != "" {
			http.Error(w, "only one auth mechanism allowed", http.StatusBadRequest)
			return
		}
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// StorageRequests lists what the storage was asked for so far.
func (r *Registry) StorageRequests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// start runs the program and waits until it tells where it listens.
func (r *Registry) start(t testing.TB, program, dir string, config map[string]any) {
	t.Helper()
	b, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", file) //nolint:gosec // what make test built
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the registry: %v", err)
	}
	read := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-read
		_ = cmd.Wait() // killed, as it says
	})
	listening := make(chan string, 1)
	go func() {
		defer close(read)
		defer close(listening)
		var log strings.Builder
		found := false
		for lines := bufio.NewScanner(said); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			var line struct {
				Message string `json:"msg"`
			}
			if json.Unmarshal(lines.Bytes(), &line) != nil || found {
				continue
			}
			if address, ok := strings.CutPrefix(line.Message, "listening on "); ok {
				found = true
				listening <- address
			}
		}
		if !found {
			t.Logf("the registry said:\n%s", log.String())
		}
	}()
	address, ok := <-listening
	if _, _, err := net.SplitHostPort(address); !ok || err != nil {
		t.Fatalf("the registry does not listen: %q", address)
	}
	r.Host = address
}
