package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"assistant/internal/hub/transfer"
)

// Ollama's registry speaks the protocol of OCI's (distribution specification) with media types of its own: one client does for both.

const (
	defaultOllama = "https://registry.ollama.ai"
	dockerHub     = "registry-1.docker.io" // where docker.io's API is

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// mediaRoles is what layers are for: Docker's (model-runner, pkg/distribution/types), Ollama's (server/images.go) and CNCF ModelPack's
// (model-spec, specs-go/v1), whose weights say by their file's name what they are.
var mediaRoles = map[string]Role{
	"application/vnd.docker.ai.gguf.v3":                Weights,
	"application/vnd.docker.ai.mmproj":                 Projector,
	"application/vnd.docker.ai.gguf.v3.mmproj":         Projector,
	"application/vnd.docker.ai.chat.template.jinja":    Template,
	"application/vnd.docker.ai.license":                Licence,
	"application/vnd.ollama.image.model":               Weights,
	"application/vnd.ollama.image.projector":           Projector,
	"application/vnd.ollama.image.adapter":             Adapter,
	"application/vnd.ollama.image.template":            Template,
	"application/vnd.ollama.image.prompt":              Template,
	"application/vnd.ollama.image.system":              System,
	"application/vnd.ollama.image.params":              Params,
	"application/vnd.ollama.image.messages":            Messages,
	"application/vnd.ollama.image.license":             Licence,
	"application/vnd.cncf.model.weight.v1.gguf":        Weights,
	"application/vnd.cncf.model.weight.gguf":           Weights,
	"application/vnd.cncf.model.weight.v1.raw":         Weights,
	"application/vnd.cnai.model.weight.v1.raw":         Weights, // before the specification's version 0.0.7
	"application/vnd.cncf.model.weight.v1.tar":         packed,
	"application/vnd.cncf.model.weight.v1.tar+gzip":    packed,
	"application/vnd.cncf.model.weight.v1.tar+zstd":    packed,
	"application/vnd.cnai.model.weight.v1.tar":         packed,
	"application/vnd.cnai.model.weight.v1.tar+gzip":    packed,
	"application/vnd.cnai.model.weight.v1.tar+zstd":    packed,
	"application/vnd.cncf.model.weight.v1.safetensors": foreign,
	"application/vnd.docker.ai.safetensors":            foreign,
	"application/vnd.ollama.image.tensor":              foreign,
	"application/vnd.cncf.model.doc.v1.raw":            document,
	"application/vnd.cnai.model.doc.v1.raw":            document,
	"application/vnd.cncf.model.weight.config.v1.raw":  document,
}

// Roles that are never in a Plan.
const (
	packed   Role = "packed"   // weights in an archive
	foreign  Role = "foreign"  // weights in a format that is not GGUF
	document Role = "document" // of no use to an engine, unless its name says more
)

// fileAnnotations is where layers carry the names of their files.
var fileAnnotations = []string{"org.cncf.model.filepath", "org.cnai.model.filepath", ocispec.AnnotationTitle}

// registryOf is a repository in a registry.
type registryOf struct {
	base   string // https://HOST
	repo   string
	client *auth.Client // fetches tokens, and stays at its origin
}

func (r *Resolver) registryOf(ref Ref) (*registryOf, error) {
	base := ref.Host
	switch {
	case ref.Kind == Ollama && base == "":
		base = cmp.Or(strings.TrimRight(r.OllamaRegistry, "/"), defaultOllama)
	case base == "docker.io":
		base = "https://" + dockerHub
	case !strings.HasPrefix(base, "http://"):
		base = "https://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the registry %q is no address: write https://HOST", base)
	}
	if ref.Host != "" && isLoopback(u.Hostname()) {
		u.Scheme = "http" // as Docker and Podman have it: nobody gives certificates to this machine
	}
	credential := r.Credential
	if credential == nil {
		credential = dockerCredential
	}
	return &registryOf{
		base: u.Scheme + "://" + u.Host, repo: ref.Repo,
		client: &auth.Client{Client: r.staying(), Credential: credential, Cache: auth.NewCache()},
	}, nil
}

// dockerCredential reads what docker login left. It is only asked when a registry wants a login.
func dockerCredential(ctx context.Context, host string) (auth.Credential, error) {
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("read Docker's credentials: %w", err)
	}
	return credentials.Credential(store)(ctx, host)
}

func (g *registryOf) blobURL(digest string) string {
	return g.base + "/v2/" + g.repo + "/blobs/" + digest
}

// following makes small things readable that the registry keeps elsewhere.
func (g *registryOf) following(r *Resolver) *auth.Client {
	c := *g.client
	c.Client = r.following()
	return &c
}

// manifest is an image's manifest or an index of such.
type manifest struct {
	MediaType   string               `json:"mediaType"`
	Config      ocispec.Descriptor   `json:"config"`
	Layers      []ocispec.Descriptor `json:"layers"`
	Manifests   []ocispec.Descriptor `json:"manifests"`
	Annotations map[string]string    `json:"annotations"`
	digest      string
}

// manifest reads the manifest of a tag or digest; a digest is checked.
func (g *registryOf) manifest(ctx context.Context, r *Resolver, reference string) (*manifest, error) {
	kinds := []string{ocispec.MediaTypeImageManifest, dockerManifest, ocispec.MediaTypeImageIndex, dockerIndex}
	accept := http.Header{"Accept": {strings.Join(kinds, ", ")}}
	body, err := get(ctx, g.following(r), g.base+"/v2/"+g.repo+"/manifests/"+reference, accept, maxManifest)
	if err != nil {
		return nil, err
	}
	m := manifest{digest: digestOf(body)}
	if strings.Contains(reference, ":") && reference != m.digest {
		return nil, fmt.Errorf("%s gives a manifest with the digest %s for %s", g.base, m.digest, reference)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("%s answers with what is no manifest: %w", g.base, err)
	}
	for _, l := range append(slices.Clone(m.Layers), m.Config) {
		if l.Digest == "" && l.Size == 0 {
			continue
		}
		if sha, ok := strings.CutPrefix(string(l.Digest), "sha256:"); !ok || !sum.MatchString(sha) {
			return nil, fmt.Errorf("%s gives a layer the digest %q, which is no sha256", g.base, l.Digest)
		}
		if err := checkSize("a layer", l.Size); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

func digestOf(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// small reads a blob that is to be looked at.
func (g *registryOf) small(ctx context.Context, r *Resolver, d ocispec.Descriptor) ([]byte, error) {
	b, err := get(ctx, g.following(r), g.blobURL(string(d.Digest)), nil, maxManifest)
	if err != nil {
		return nil, err
	}
	if digestOf(b) != string(d.Digest) {
		return nil, fmt.Errorf("%s gives other bytes for %s", g.base, d.Digest)
	}
	return b, nil
}

func (r *Resolver) resolveRegistry(ctx context.Context, ref Ref) (*Plan, error) {
	g, err := r.registryOf(ref)
	if err != nil {
		return nil, err
	}
	m, err := g.manifest(ctx, r, ref.Pick)
	if err != nil {
		return nil, g.explain(ctx, r, ref, err)
	}
	revision := m.digest
	if len(m.Manifests) > 0 {
		if m, err = g.ofIndex(ctx, r, m); err != nil {
			return nil, err
		}
	}
	layers, err := g.layers(ctx, r, m)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Source: ref.String(), Name: ref.name(), Revision: revision}
	if err := g.describe(ctx, r, m, plan); err != nil {
		return nil, err
	}
	for _, l := range layers {
		plan.Files = append(plan.Files, g.file(l))
	}
	if err := nameFiles(plan); err != nil {
		return nil, err
	}
	if plan.Quantization == "" {
		plan.Quantization = readName(plan.Files[0].Name).label
	}
	if plan.Quantization == "" {
		plan.Quantization, _ = quantOf(ref.Pick)
	}
	if plan.Licence == "" {
		plan.Licence, err = g.licence(ctx, r, layers)
	}
	return plan, err
}

// name is what a model of a registry may be called: qwen2.5-0.5b of qwen2.5:0.5b.
func (r Ref) name() string {
	base := path.Base(r.Repo)
	if r.Pick == "latest" || strings.Contains(r.Pick, ":") {
		return firstName(base)
	}
	return firstName(base + "-" + r.Pick)
}

// explain adds the remedy to what a registry refuses.
func (g *registryOf) explain(ctx context.Context, r *Resolver, ref Ref, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		if tags, e := g.tags(ctx, r); e == nil && len(tags) > 0 {
			return fmt.Errorf("%s has no %s; there are %s: %w", g.repo, ref.Pick, shorten(tags), err)
		}
		return fmt.Errorf("%s has no model %s:%s: check its name and tag: %w", g.base, g.repo, ref.Pick, err)
	case errors.Is(err, ErrDenied):
		host := strings.TrimPrefix(strings.TrimPrefix(g.base, "https://"), "http://")
		return fmt.Errorf("%s does not give it to everybody, or it is not there: check the name, or log in by docker login %s: %w",
			g.base, host, err)
	}
	return err
}

// tags lists a repository's tags (GET /v2/REPO/tags/list).
func (g *registryOf) tags(ctx context.Context, r *Resolver) ([]string, error) {
	body, err := get(ctx, g.following(r), g.base+"/v2/"+g.repo+"/tags/list", nil, maxManifest)
	if err != nil {
		return nil, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%s answers with what is no list of tags: %w", g.base, err)
	}
	tags := slices.DeleteFunc(list.Tags, func(t string) bool { return !ollamaName.MatchString(t) })
	slices.Sort(tags)
	return tags, nil
}

func (r *Resolver) tags(ctx context.Context, ref Ref) ([]Choice, error) {
	g, err := r.registryOf(ref)
	if err != nil {
		return nil, err
	}
	tags, err := g.tags(ctx, r)
	if err != nil {
		if ref.Kind == Ollama && ref.Host == "" {
			return nil, fmt.Errorf("the registry does not list them: see https://ollama.com/%s/tags: %w", ref.Repo, err)
		}
		return nil, g.explain(ctx, r, ref, err)
	}
	var list []Choice
	for _, t := range tags {
		label, _ := quantOf(t)
		list = append(list, Choice{Name: t, Quantization: label, Parts: 1, Size: -1, Fits: true, Default: t == "latest"})
	}
	return list, nil
}

// ofIndex takes the model of an index: the first that holds one, those for this machine or for any before the others.
func (g *registryOf) ofIndex(ctx context.Context, r *Resolver, index *manifest) (*manifest, error) {
	const most = 16
	foreign := func(d ocispec.Descriptor) int {
		if p := d.Platform; p != nil && p.Architecture != "" && (p.Architecture != runtime.GOARCH || p.OS != "" && p.OS != runtime.GOOS) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(index.Manifests, func(a, b ocispec.Descriptor) int { return cmp.Compare(foreign(a), foreign(b)) })
	for i, d := range index.Manifests {
		if i == most {
			break
		}
		if sha, ok := strings.CutPrefix(string(d.Digest), "sha256:"); !ok || !sum.MatchString(sha) {
			continue
		}
		m, err := g.manifest(ctx, r, string(d.Digest))
		if err != nil {
			return nil, err
		}
		for _, l := range m.Layers {
			if roleOf(l) == Weights {
				return m, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: its index leads to no model in GGUF", ErrNotFound)
}

// layer is a layer that is wanted.
type layer struct {
	ocispec.Descriptor
	role Role
	name string // of its file; "" = not told
}

func fileOf(d ocispec.Descriptor) string {
	for _, a := range fileAnnotations {
		if name := d.Annotations[a]; name != "" {
			return path.Base(strings.ReplaceAll(name, `\`, "/"))
		}
	}
	return ""
}

// roleOf tells what a layer is for, by its media type and, where that says nothing, by its file's name.
func roleOf(d ocispec.Descriptor) Role {
	media, _, _ := strings.Cut(d.MediaType, ";")
	name := strings.ToLower(fileOf(d))
	role, known := mediaRoles[strings.TrimSpace(media)]
	switch {
	case role == Weights && strings.Contains(name, "mmproj"):
		return Projector
	case role == Weights && name != "" && strings.Contains(media, ".raw") && !isWeights(name):
		return foreign
	case (role == document || !known) && (strings.HasPrefix(name, "license") || strings.HasPrefix(name, "licence")):
		return Licence
	case role == document && strings.HasSuffix(name, ".jinja"):
		return Template
	}
	return role
}

// order is that of a Plan's files, and of the roles that are wanted.
var order = []Role{Weights, Projector, Adapter, Template, System, Params, Messages, Licence}

// layers picks what is wanted of a manifest. Where no media type says which layer is the model, it is the largest that begins as GGUF does.
func (g *registryOf) layers(ctx context.Context, r *Resolver, m *manifest) ([]layer, error) {
	var list []layer
	held := map[Role]bool{}
	for _, d := range m.Layers {
		role := roleOf(d)
		held[role] = true
		if slices.Contains(order, role) {
			list = append(list, layer{d, role, fileOf(d)})
		}
	}
	if !held[Weights] {
		d, err := g.largest(ctx, r, m)
		switch {
		case err != nil:
			return nil, err
		case d != nil:
			list = append(list, layer{*d, Weights, fileOf(*d)})
		case held[packed]:
			return nil, fmt.Errorf("%w: its weights are in a tar archive, which is not unpacked here: publish them raw (modctl build --raw)",
				ErrNotFound)
		case held[foreign]:
			return nil, fmt.Errorf("%w: its weights are no GGUF: look for a model that is published as GGUF", ErrNotFound)
		default:
			return nil, fmt.Errorf("%w: it holds no layer that is a model in GGUF; is it an image of a container?", ErrNotFound)
		}
	}
	slices.SortStableFunc(list, func(a, b layer) int { return cmp.Compare(slices.Index(order, a.role), slices.Index(order, b.role)) })
	return list, nil
}

// largest looks at the beginnings of the largest layers of unknown types.
func (g *registryOf) largest(ctx context.Context, r *Resolver, m *manifest) (*ocispec.Descriptor, error) {
	const most = 4
	unknown := slices.DeleteFunc(slices.Clone(m.Layers), func(d ocispec.Descriptor) bool { return roleOf(d) != "" })
	slices.SortStableFunc(unknown, func(a, b ocispec.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	for i, d := range unknown {
		if i == most {
			break
		}
		magic, _, err := r.beginning(ctx, g.following(r), g.blobURL(string(d.Digest)))
		if err != nil {
			return nil, err
		}
		if magic == ggufMagic {
			return &d, nil
		}
	}
	return nil, nil //nolint:nilnil // there is none, and that is no failure
}

func (g *registryOf) file(l layer) File {
	address := g.blobURL(string(l.Digest))
	return File{
		File: transfer.File{
			Size: l.Size, SHA256: strings.TrimPrefix(string(l.Digest), "sha256:"),
			Locate: locator(func(ctx context.Context) (transfer.Location, error) {
				at, _, err := locate(ctx, g.client, address, nil)
				return at, err
			}),
		},
		Name: l.name, Role: l.role,
	}
}

// describe reads the model's config: Docker's and ModelPack's say the quantisation in the same place, Ollama's as file_type.
func (g *registryOf) describe(ctx context.Context, r *Resolver, m *manifest, plan *Plan) error {
	plan.Licence = m.Annotations[ocispec.AnnotationLicenses]
	if m.Config.Size == 0 || m.Config.Size > maxManifest || !strings.Contains(m.Config.MediaType, "json") {
		return nil
	}
	body, err := g.small(ctx, r, m.Config)
	if err != nil {
		return fmt.Errorf("read the config of the model: %w", err)
	}
	var config struct {
		FileType   string `json:"file_type"`
		Descriptor struct {
			Licenses []string `json:"licenses"`
		} `json:"descriptor"`
		Config struct {
			Quantization string `json:"quantization"`
		} `json:"config"`
	}
	if json.Unmarshal(body, &config) != nil {
		return nil //nolint:nilerr // of another kind: the config only says more
	}
	plan.Quantization = cmp.Or(config.Config.Quantization, config.FileType)
	if label, _ := quantOf(path.Base(plan.Quantization)); label != "" { // Docker's may say "IQ2_XXS/Q4_K_M"
		plan.Quantization = label
	}
	plan.Licence = cmp.Or(plan.Licence, strings.Join(config.Descriptor.Licenses, ", "))
	return nil
}

// licence reads the first line of a licence's text, to be shown before anything is brought.
func (g *registryOf) licence(ctx context.Context, r *Resolver, layers []layer) (string, error) {
	for _, l := range layers {
		if l.role != Licence || l.Size > maxManifest {
			continue
		}
		body, err := g.small(ctx, r, l.Descriptor)
		if err != nil {
			return "", fmt.Errorf("read the licence: %w", err)
		}
		for line := range strings.Lines(strings.ToValidUTF8(string(body), "?")) {
			line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || isControl(r) }), " ")
			if len(line) > maxName {
				line = strings.ToValidUTF8(line[:maxName], "") + "…"
			}
			if line != "" {
				return line, nil
			}
		}
	}
	return "", nil
}

// nameFiles gives names to the files of layers, which need not have any.
func nameFiles(plan *Plan) error {
	var weights []entry
	for _, f := range plan.Files {
		if f.Role == Weights {
			weights = append(weights, entry{path: f.Name, size: f.Size})
		}
	}
	n := len(weights)
	named := !slices.ContainsFunc(weights, func(e entry) bool { return checkName(e.path) != nil || !isWeights(e.path) })
	if n > 1 && named {
		list := variants(weights)
		if len(list) != 1 || list[0].missing > 0 || len(list[0].files) != list[0].parts {
			return fmt.Errorf("it holds several models, of which none can be named: %s", files(list))
		}
		slices.SortStableFunc(plan.Files[:n], func(a, b File) int { return cmp.Compare(readName(a.Name).part, readName(b.Name).part) })
	}
	count := map[Role]int{}
	for i := range plan.Files {
		f := &plan.Files[i]
		count[f.Role]++
		switch {
		case f.Role == Weights && named, f.Role == Projector && checkName(f.Name) == nil && isGGUF(f.Name):
		case f.Role == Weights && n > 1:
			f.Name = fmt.Sprintf("%s-%05d-of-%05d.gguf", plan.Name, i+1, n)
		case f.Role == Weights:
			f.Name = plan.Name + ".gguf"
		case f.Role == Projector, f.Role == Adapter:
			f.Name = fmt.Sprintf("%s-%s%s.gguf", map[Role]string{Projector: "mmproj", Adapter: "lora"}[f.Role], plan.Name, nth(count[f.Role]))
		default:
			f.Name = string(f.Role) + nth(count[f.Role]) + endings[f.Role]
		}
	}
	return nil
}

var endings = map[Role]string{Template: ".txt", System: ".txt", Params: ".json", Messages: ".json", Licence: ".txt"}

// nth keeps the names of several files of one role apart.
func nth(i int) string {
	if i == 1 {
		return ""
	}
	return fmt.Sprintf("-%d", i)
}
