package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"assistant/internal/hub/transfer"
)

// defaultHub is where huggingface_hub asks if HF_ENDPOINT is not set.
const defaultHub = "https://huggingface.co"

// repository is what the hub tells of one (GET /api/models/OWNER/REPO/revision/REVISION?blobs=true). Unlike the tree of files, which
// comes in pages, this is one answer.
type repository struct {
	SHA      string          `json:"sha"`
	Gated    json.RawMessage `json:"gated"` // false, "auto" or "manual"
	Tags     []string        `json:"tags"`
	CardData struct {
		License     any    `json:"license"` // a text, or several
		LicenseName string `json:"license_name"`
	} `json:"cardData"`
	Siblings []struct {
		Name string `json:"rfilename"`
		Size int64  `json:"size"`
		LFS  *struct {
			SHA256 string `json:"sha256"`
			Size   int64  `json:"size"`
		} `json:"lfs"`
	} `json:"siblings"`
}

// endpoint is a place that speaks the hub's protocol.
type endpoint struct {
	base   string
	header http.Header // its Authorization
}

func (r *Resolver) endpoints() ([]endpoint, error) {
	var list []endpoint
	for s := range strings.SplitSeq(r.HuggingFace, ",") {
		s = strings.TrimRight(strings.TrimSpace(s), "/")
		if s == "" {
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("HF_ENDPOINT: %q is no address: write https://HOST, several separated by commas", s)
		}
		list = append(list, endpoint{base: s, header: r.hubHeader(u)})
	}
	if list == nil {
		list = []endpoint{{base: defaultHub, header: r.hubHeader(&url.URL{Scheme: "https"})}}
	}
	return list, nil
}

func (r *Resolver) hubHeader(u *url.URL) http.Header {
	if r.Token == "" || u.Scheme != "https" && !isLoopback(u.Hostname()) {
		return nil
	}
	return http.Header{"Authorization": {"Bearer " + r.Token}}
}

// repository asks for a repository, at one mirror after the other.
func (r *Resolver) repository(ctx context.Context, ref Ref) (*repository, []entry, error) {
	places, err := r.endpoints()
	if err != nil {
		return nil, nil, err
	}
	var failed []error
	for _, p := range places {
		repo, all, err := r.repositoryAt(ctx, p, ref)
		if err == nil {
			return repo, all, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, join(failed)
}

func (r *Resolver) repositoryAt(ctx context.Context, p endpoint, ref Ref) (*repository, []entry, error) {
	address := p.base + "/api/models/" + ref.Repo + "/revision/" + url.PathEscape(ref.revision()) + "?blobs=true"
	body, err := get(ctx, r.following(), address, p.header, maxList)
	if err != nil {
		return nil, nil, r.explain(ref, "", err)
	}
	var repo repository
	if err := json.Unmarshal(body, &repo); err != nil {
		return nil, nil, fmt.Errorf("%s answers with what is no description of a repository: %w", p.base, err)
	}
	if !hubName.MatchString(repo.SHA) {
		return nil, nil, fmt.Errorf("%s does not tell which commit it is", p.base)
	}
	all := make([]entry, 0, len(repo.Siblings))
	for _, s := range repo.Siblings {
		e := entry{path: s.Name, size: s.Size}
		if s.LFS != nil {
			e.sha256 = s.LFS.SHA256
			e.size = s.LFS.Size
			if !sum.MatchString(e.sha256) {
				return nil, nil, fmt.Errorf("%s gives %s a sha256 that is none: %q", p.base, s.Name, e.sha256)
			}
		}
		if checkPath(s.Name) != nil {
			continue // cannot be brought, and most are none of the model's
		}
		if err := checkSize(s.Name, e.size); err != nil {
			return nil, nil, err
		}
		all = append(all, e)
	}
	return &repo, all, nil
}

// explain adds the remedy to what the hub refuses (X-Error-Code, as huggingface_hub reads it).
func (r *Resolver) explain(ref Ref, file string, err error) error {
	e, ok := errors.AsType[*statusError](err)
	if !ok {
		return err
	}
	page := defaultHub + "/" + ref.Repo
	code := e.header.Get("X-Error-Code")
	switch {
	case code == "GatedRepo" || e.status == http.StatusForbidden:
		if r.Token == "" {
			return fmt.Errorf("accept its licence at %s, and set HF_TOKEN to a token of that account: %w", page, err)
		}
		return fmt.Errorf("the account of HF_TOKEN may not have it: accept its licence at %s, and wait until that is granted: %w", page, err)
	case code == "RepoNotFound" || e.status == http.StatusUnauthorized:
		remedy := "set HF_TOKEN"
		if r.Token != "" {
			remedy = "see whether HF_TOKEN still holds and may read it"
		}
		return fmt.Errorf("there is no such repository, or it is private: check the name, or %s: %w (%w)", remedy, ErrNotFound, err)
	case code == "RevisionNotFound":
		return fmt.Errorf("it has no revision %s: %w", ref.revision(), err)
	case code == "EntryNotFound" && file != "":
		return fmt.Errorf("it has no file %s: %w", file, err)
	case e.status == http.StatusTooManyRequests && r.Token == "":
		return fmt.Errorf("too many requests without a token: set HF_TOKEN, or wait: %w", err)
	}
	return err
}

func (repo *repository) licence() string {
	l := ""
	switch v := repo.CardData.License.(type) {
	case string:
		l = v
	case []any:
		var several []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				several = append(several, s)
			}
		}
		l = strings.Join(several, ", ")
	}
	if l == "other" && repo.CardData.LicenseName != "" {
		return repo.CardData.LicenseName
	}
	for _, tag := range repo.Tags {
		if name, ok := strings.CutPrefix(tag, "license:"); ok && l == "" {
			l = name
		}
	}
	return l
}

func (repo *repository) gated() bool {
	s := strings.TrimSpace(string(repo.Gated))
	return s != "" && s != "false" && s != "null"
}

func (r *Resolver) hubChoices(ctx context.Context, ref Ref) ([]Choice, error) {
	_, all, err := r.repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	return choices(variants(all), r.Memory), nil
}

func (r *Resolver) resolveHub(ctx context.Context, ref Ref) (*Plan, error) {
	repo, all, err := r.repository(ctx, ref)
	if err != nil {
		return nil, err
	}
	list := variants(all)
	v, err := r.pickHub(all, list, ref)
	if err != nil {
		return nil, err
	}
	if len(ref.SHA256) > 0 {
		if err := v.promise(ref.SHA256); err != nil {
			return nil, err
		}
	}
	in := ref
	in.Pick = v.files[0].path
	if slices.ContainsFunc(list, func(o variant) bool { return o.files[0].path == in.Pick }) {
		in.Pick = v.name(labels(list))
	}
	plan := &Plan{
		Source: in.String(), Name: firstName(v.files[0].path, path.Base(ref.Repo)),
		Quantization: v.label, Licence: repo.licence(), Revision: repo.SHA,
	}
	if len(ref.SHA256) > 0 {
		plan.Source = ref.String()
	}
	for _, e := range v.files {
		plan.Files = append(plan.Files, r.hubFile(ref, repo.SHA, e, Weights))
	}
	if e, ok := projectorOf(all, v); ok && isWeights(v.files[0].path) {
		plan.Files = append(plan.Files, r.hubFile(ref, repo.SHA, e, Projector))
	}
	if repo.gated() { // what it is made of is told to everybody: ask now, not after the disk was made free
		if _, err := plan.Files[0].Locate(ctx); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// pickHub is pick, and takes any file that is named in full: engines of other kinds load other files.
func (r *Resolver) pickHub(all []entry, list []variant, ref Ref) (variant, error) {
	for _, e := range all {
		if e.path == ref.Pick && !isWeights(e.path) {
			return variant{nameParts: readName(e.path), files: []entry{e}, size: e.size}, nil
		}
	}
	if len(list) == 0 {
		hint := ""
		if !strings.HasSuffix(strings.ToLower(ref.Repo), "gguf") {
			hint = ": look for one whose name ends in -GGUF"
		}
		return variant{}, fmt.Errorf("%w: it holds no GGUF%s", ErrNotFound, hint)
	}
	return pick(list, ref.Pick, r.Memory)
}

// promise holds a variant to the sums that its source gives.
func (v *variant) promise(sums []string) error {
	if len(sums) != len(v.files) {
		return fmt.Errorf("gives %d sha256 for %d files: write one for each part, separated by commas", len(sums), len(v.files))
	}
	v.files = slices.Clone(v.files)
	for i := range v.files {
		f := &v.files[i]
		if f.sha256 != "" && f.sha256 != sums[i] {
			return fmt.Errorf("%s has the sha256 %s where it is published, not %s", f.path, f.sha256, sums[i])
		}
		f.sha256 = sums[i]
	}
	return nil
}

func (r *Resolver) hubFile(ref Ref, commit string, e entry, role Role) File {
	return File{
		File: transfer.File{
			Size: e.size, SHA256: e.sha256,
			Locate: func(ctx context.Context) ([]transfer.Location, error) { return r.locateHub(ctx, ref, commit, e) },
		},
		Name: path.Base(e.path), Role: role,
	}
}

// locateHub asks all mirrors at a time, and gives those that have the file in the order they were given.
func (r *Resolver) locateHub(ctx context.Context, ref Ref, commit string, e entry) ([]transfer.Location, error) {
	places, err := r.endpoints()
	if err != nil {
		return nil, err
	}
	found := make([]transfer.Location, len(places))
	failed := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() {
			address := p.base + "/" + ref.Repo + "/resolve/" + url.PathEscape(commit) + "/" + escapePath(e.path)
			at, header, err := locate(ctx, r.staying(), address, p.header)
			if err == nil {
				err = e.same(p.base, header)
			}
			if err == nil {
				found[i] = at
			}
			failed[i] = r.explain(ref, e.path, err)
		})
	}
	wg.Wait()
	found = slices.DeleteFunc(found, func(l transfer.Location) bool { return l.URL == "" })
	if len(found) == 0 {
		return nil, fmt.Errorf("locate %s: %w", e.path, join(failed))
	}
	return found, nil
}

// same checks that a place has the file that was described: mirrors lag behind. Of files in git alone the etag is another sum.
func (e entry) same(where string, header http.Header) error {
	if size := header.Get("X-Linked-Size"); size != "" && e.size >= 0 && size != fmt.Sprint(e.size) {
		return fmt.Errorf("%s has %s with %s bytes, not %d", where, e.path, size, e.size)
	}
	etag := strings.Trim(header.Get("X-Linked-Etag"), `"`)
	if sum.MatchString(etag) && e.sha256 != "" && etag != e.sha256 {
		return fmt.Errorf("%s has another %s, with the sha256 %s", where, e.path, etag)
	}
	return nil
}
