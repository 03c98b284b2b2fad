package source_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"assistant/internal/hub/hubtest"
	"assistant/internal/hub/source"
)

func login(context.Context, string) (auth.Credential, error) {
	return auth.Credential{Username: hubtest.User, Password: hubtest.Password}, nil
}

// publisher pushes artefacts with oras, as publishers do.
type publisher struct {
	t    *testing.T
	repo *remote.Repository
}

func publish(t *testing.T, reg *hubtest.Registry, name string) publisher {
	t.Helper()
	repo, err := remote.NewRepository(reg.Host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Credential: login}
	return publisher{t, repo}
}

func (p publisher) push(media string, content []byte, file string) ocispec.Descriptor {
	p.t.Helper()
	d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := p.repo.Push(p.t.Context(), d, bytes.NewReader(content)); err != nil {
		p.t.Fatalf("push a %s: %v", media, err)
	}
	if file != "" {
		d.Annotations = map[string]string{"org.cncf.model.filepath": file}
	}
	return d
}

func (p publisher) json(media, tag string, v any) ocispec.Descriptor {
	p.t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := p.repo.PushReference(p.t.Context(), d, bytes.NewReader(content), tag); err != nil {
		p.t.Fatalf("push %s: %v", tag, err)
	}
	return d
}

func (p publisher) manifest(tag string, config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	return p.json(ocispec.MediaTypeImageManifest, tag, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
}

const (
	dockerConfig = "application/vnd.docker.ai.model.config.v0.1+json"
	dockerGGUF   = "application/vnd.docker.ai.gguf.v3"
	cncfConfig   = "application/vnd.cncf.model.config.v1+json"
	cncfWeight   = "application/vnd.cncf.model.weight.v1."
)

func archive(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestOCI is against the reference registry, which wants a login and sends blobs on to a store of another origin.
func TestOCI(t *testing.T) {
	reg := hubtest.NewRegistry(t, hubtest.RegistryOptions{Login: true, Redirect: true})
	r := &source.Resolver{Credential: login}
	at := func(s string) string { return "oci:" + reg.Host + "/" + s }
	check := func(t *testing.T, ref, want string) *source.Plan {
		t.Helper()
		plan := resolve(t, r, at(ref))
		equal(t, shape(plan), strings.ReplaceAll(want, "HOST", reg.Host))
		for _, f := range plan.Files {
			if f.Size > 10 {
				bring(t, f)
			}
		}
		return plan
	}

	t.Run("Docker's", func(t *testing.T) {
		p := publish(t, reg, "ai/smolvlm")
		config := p.push(dockerConfig, []byte(`{"config":{"format":"gguf","quantization":"IQ2_XXS/Q8_0"}}`), "")
		p.manifest("500M", config,
			p.push("application/vnd.docker.ai.license", []byte("Apache License\nVersion 2.0"), ""),
			p.push("application/vnd.docker.ai.mmproj", hubtest.GGUF("p", 20), ""),
			p.push(dockerGGUF, hubtest.GGUF("w", 100), ""),
			p.push("application/vnd.docker.ai.chat.template.jinja", []byte("{{ messages }}"), ""),
		)
		plan := check(t, "ai/smolvlm:500M", `oci:HOST/ai/smolvlm:500M smolvlm-500m Q8_0 "Apache License" 208
weights smolvlm-500m.gguf 124
projector mmproj-smolvlm-500m.gguf 44
template template.txt 14
licence licence.txt 26
`)
		pinned := resolve(t, r, at("ai/smolvlm@"+plan.Revision))
		equal(t, pinned.Files[0].SHA256, plan.Files[0].SHA256)

		parts := publish(t, reg, "ai/split")
		parts.manifest("latest", parts.push(dockerConfig, []byte(`{"config":{"quantization":"Q8_0"}}`), ""),
			parts.push(dockerGGUF, hubtest.GGUF("1", 30), ""), parts.push(dockerGGUF, hubtest.GGUF("2", 20), ""))
		check(t, "ai/split", `oci:HOST/ai/split:latest split Q8_0 "" 98
weights split-00001-of-00002.gguf 54
weights split-00002-of-00002.gguf 44
`)
	})

	t.Run("CNCF's", func(t *testing.T) {
		p := publish(t, reg, "models/gemma")
		config := p.push(cncfConfig, []byte(`{"descriptor":{"licenses":["gemma"]},"config":{"format":"gguf","quantization":"Q4_0"}}`), "")
		raw, gguf := cncfWeight+"raw", cncfWeight+"gguf"
		p.manifest("raw", config,
			p.push(raw, hubtest.GGUF("2", 20), "gemma-Q4_0-00002-of-00002.gguf"),
			p.push(raw, hubtest.GGUF("1", 30), "gemma-Q4_0-00001-of-00002.gguf"),
			p.push(raw, hubtest.GGUF("p", 5), "mmproj-F16.gguf"), p.push("application/vnd.cncf.model.doc.v1.raw", []byte("# Gemma"), "README.md"),
		)
		check(t, "models/gemma:raw", `oci:HOST/models/gemma:raw gemma-raw Q4_0 "gemma" 127
weights gemma-Q4_0-00001-of-00002.gguf 54
weights gemma-Q4_0-00002-of-00002.gguf 44
projector mmproj-F16.gguf 29
`)
		p.manifest("gguf", config, p.push(gguf, hubtest.GGUF("g", 10), "../../etc/gemma-Q4_0.gguf"))
		check(t, "models/gemma:gguf", "oci:HOST/models/gemma:gguf gemma Q4_0 \"gemma\" 34\nweights gemma-Q4_0.gguf 34\n")
		p.manifest("tar", config, p.push(cncfWeight+"tar", archive(t, "gemma.gguf", hubtest.GGUF("g", 10)), "gemma.gguf"))
		refused(t, r, at("models/gemma:tar"), "tar archive", "raw")
		p.manifest("safetensors", config, p.push(raw, []byte("{}"), "model.safetensors"))
		refused(t, r, at("models/gemma:safetensors"), "no GGUF")
		p.manifest("two", config, p.push(raw, hubtest.GGUF("a", 20), "a-Q4_0.gguf"), p.push(raw, hubtest.GGUF("b", 30), "b-Q4_0.gguf"))
		refused(t, r, at("models/gemma:two"), "several models", "a-Q4_0.gguf, b-Q4_0.gguf")
	})

	t.Run("others", func(t *testing.T) {
		p := publish(t, reg, "other")
		empty := p.push(ocispec.MediaTypeEmptyJSON, []byte("{}"), "")
		ollama := p.manifest("ollama", empty, p.push("application/vnd.ollama.image.model", hubtest.GGUF("o", 10), ""))
		check(t, "other:ollama", "oci:HOST/other:ollama other-ollama  \"\" 34\nweights other-ollama.gguf 34\n")
		p.manifest("unknown", empty,
			p.push("application/x-notes", bytes.Repeat([]byte("n"), 900), ""),
			p.push("application/x-model", hubtest.GGUF("u", 60), ""), p.push("application/x-other", hubtest.GGUF("v", 8), ""))
		check(t, "other:unknown", "oci:HOST/other:unknown other-unknown  \"\" 84\nweights other-unknown.gguf 84\n")
		p.manifest("notes", empty, p.push("application/x-notes", []byte("nothing"), ""))
		refused(t, r, at("other:notes"), "GGUF", "container")

		notes, err := p.repo.Resolve(t.Context(), "notes")
		if err != nil {
			t.Fatal(err)
		}
		index := p.json(ocispec.MediaTypeImageIndex, "index", ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{notes, ollama},
		})
		plan := check(t, "other:index", "oci:HOST/other:index other-index  \"\" 34\nweights other-index.gguf 34\n")
		equal(t, plan.Revision, string(index.Digest))

		if err := refused(t, r, at("other:nope"), "there are index, notes, ollama, unknown"); !errors.Is(err, source.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		ref, _ := source.Parse(at("other"))
		if list, err := r.Choices(t.Context(), ref); err != nil || len(list) != 4 || list[0].Name != "index" {
			t.Errorf("got %v, %v", list, err)
		}
	})

	t.Run("without the login", func(t *testing.T) {
		for name, c := range map[string]auth.CredentialFunc{
			"none": func(context.Context, string) (auth.Credential, error) { return auth.EmptyCredential, nil },
			"wrong": func(context.Context, string) (auth.Credential, error) {
				return auth.Credential{Username: "x", Password: "y"}, nil
			},
		} {
			err := refused(t, &source.Resolver{Credential: c}, at("ai/smolvlm:500M"), "docker login "+reg.Host)
			if !errors.Is(err, source.ErrDenied) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})

	if len(reg.StorageRequests()) == 0 {
		t.Error("no blob came from the store")
	}
	for _, q := range reg.StorageRequests() {
		if q.Authorization != "" {
			t.Errorf("the store was told %s", q.Authorization)
		}
	}
}

// TestOCIFromTheRegistryItself: where blobs are not sent on, parts are asked for with the login.
func TestOCIFromTheRegistryItself(t *testing.T) {
	reg := hubtest.NewRegistry(t, hubtest.RegistryOptions{Login: true})
	p := publish(t, reg, "m")
	p.manifest("latest", p.push(ocispec.MediaTypeEmptyJSON, []byte("{}"), ""), p.push(dockerGGUF, hubtest.GGUF("m", 100), ""))
	f := resolve(t, &source.Resolver{Credential: login}, "oci:"+reg.Host+"/m").Files[0]
	at, err := f.Locate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(at[0].Header.Get("Authorization"), "Basic ") || !strings.HasPrefix(at[0].URL, "http://"+reg.Host) {
		t.Fatalf("got %v", at)
	}
	fetch(t, f, at[0].URL, at[0].Header)
}

// TestDockersCredentials: without a Credential of its own, the Resolver uses what docker login left.
func TestDockersCredentials(t *testing.T) {
	reg := hubtest.NewRegistry(t, hubtest.RegistryOptions{Login: true})
	p := publish(t, reg, "m")
	p.manifest("latest", p.push(ocispec.MediaTypeEmptyJSON, []byte("{}"), ""), p.push(dockerGGUF, hubtest.GGUF("m", 100), ""))
	dockerLogin(t, reg.Host)
	bring(t, resolve(t, &source.Resolver{}, "oci:"+reg.Host+"/m").Files[0])
}

func dockerLogin(t *testing.T, host string) {
	t.Helper()
	dir := t.TempDir()
	config := map[string]any{"auths": map[string]any{host: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(hubtest.User + ":" + hubtest.Password)),
	}}}
	b, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
}
