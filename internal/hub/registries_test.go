package hub

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"assistant/internal/hub/hubtest"
	"assistant/internal/hub/source"
	"assistant/internal/openai"
)

// proxy stands between us and a server, as bad networks do: it cuts connections after some bytes, or at once, and once it changes a byte.
type proxy struct {
	net.Listener
	to      string
	cutting bool
	corrupt atomic.Bool // the next long answer has a byte changed in it
	sent    atomic.Int64
	open    sync.Map // connections of clients, which may keep them
}

func badProxy(tb testing.TB, to string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{Listener: l, to: to, cutting: true}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.carry(conn) })
		}
	})
	tb.Cleanup(func() {
		l.Close()
		p.open.Range(func(conn, _ any) bool {
			conn.(net.Conn).Close() //nolint:errcheck,forcetypeassert // nothing else is in there
			return true
		})
		all.Wait()
	})
	return p
}

func (p *proxy) carry(client net.Conn) {
	defer client.Close()
	p.open.Store(client, nil)
	defer p.open.Delete(client)
	if p.cutting && rand.N(4) == 0 {
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	left := int64(1 << 40)
	if p.cutting && rand.N(2) == 0 {
		left = rand.N(int64(3 << 20))
	}
	buf, passed := make([]byte, 32<<10), 0
	for left > 0 {
		n, err := server.Read(buf[:min(int64(len(buf)), left)])
		if passed > 1<<20 && n > 0 && p.corrupt.CompareAndSwap(true, false) {
			buf[n/2] ^= 1
		}
		passed += n
		left -= int64(n)
		p.sent.Add(int64(n))
		if _, bad := client.Write(buf[:n]); bad != nil || err != nil {
			return
		}
	}
}

// pushOCI publishes weights in a registry, as Docker's tools do.
func pushOCI(tb testing.TB, host, repo, tag string, weights []byte) {
	tb.Helper()
	to, err := remote.NewRepository(host + "/" + repo)
	if err != nil {
		tb.Fatal(err)
	}
	to.PlainHTTP = true
	push := func(kind string, b []byte) ocispec.Descriptor {
		d := content.NewDescriptorFromBytes(kind, b)
		if err := to.Push(tb.Context(), d, bytes.NewReader(b)); err != nil {
			tb.Fatal(err)
		}
		return d
	}
	config := push("application/vnd.docker.ai.model.config.v0.1+json", []byte(`{"config":{"format":"gguf","quantization":"Q8_0"}}`))
	layer := push("application/vnd.docker.ai.gguf.v3", weights)
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
	b := openai.Marshal(manifest)
	if err := to.PushReference(tb.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))}, bytes.NewReader(b), tag); err != nil {
		tb.Fatal(err)
	}
}

// TestBadNetworks brings models from servers that speak the hub's, Ollama's and a registry's protocols, the last a real one, through connections that are cut,
// answers that fail, addresses that expire, and a byte that is changed on the way: what comes is right, and not much comes twice.
func TestBadNetworks(t *testing.T) {
	const size = 9 << 20
	seed := byte(0)
	weights := func() []byte {
		seed++
		r := rand.NewChaCha8([32]byte{seed})
		b := make([]byte, size)
		_, _ = r.Read(b)
		return append(hubtest.GGUF("w", 0), b...)
	}
	flaky := func(cdn *hubtest.CDN) {
		var n atomic.Int32
		cdn.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
			switch i := n.Add(1); {
			case i%9 == 0:
				go cdn.Expire()
				return false
			case i%2 == 0:
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return false
		})
	}
	hub, ollama := hubtest.NewHub(t), hubtest.NewOllama(t)
	registry := hubtest.NewRegistry(t, hubtest.RegistryOptions{})
	through := badProxy(t, registry.Host)
	w1, w2, w3 := weights(), weights(), weights()
	hub.Add("a/b-GGUF", "b-Q8_0.gguf", w1)
	ollama.Add("tiny:1b", `{"model_format":"gguf"}`, hubtest.Layer{Type: "model", Content: w2})
	pushOCI(t, registry.Host, "ai/tiny", "1b", w3)
	flaky(hub.CDN)
	flaky(ollama.CDN)
	through.corrupt.Store(true)
	m := open(t, t.TempDir(), func(s *Settings) {
		s.Resolver = func() *source.Resolver { return &source.Resolver{HuggingFace: hub.URL} }
	})
	for src, want := range map[string][]byte{
		"hf:a/b-GGUF:Q8_0":                               w1,
		"ollama:" + ollama.URL + "/library/tiny:1b":      w2,
		"oci:" + through.Addr().String() + "/ai/tiny:1b": w3,
	} {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*bound)
		s, err := m.Wait(ctx, start(t, m, src).ID)
		cancel()
		t.Logf("%s in %v", src, time.Since(begun).Round(time.Millisecond))
		model, ok := m.Installed(src)
		got, readErr := os.ReadFile(model.Path())
		if err = errors.Join(err, readErr); s.State != Completed || !ok || err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %+v, %v, %d bytes of %d", src, s, err, len(got), len(want))
		}
		if strings.Contains(s.Error, "Signature=") {
			t.Errorf("a signed address is told: %s", s.Error)
		}
	}
	if through.corrupt.Load() {
		t.Error("nothing was changed on the way")
	}
	if sent := through.sent.Load(); sent > 3*size { // all of it once more, as a byte was wrong
		t.Errorf("%d bytes came through the proxy", sent)
	}
}
