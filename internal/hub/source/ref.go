package source

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"

	"oras.land/oras-go/v2/registry"
)

// Kind is how a model is published.
type Kind string

// The kinds of sources, as a model_source begins.
const (
	HuggingFace Kind = "hf"     // hf:OWNER/REPO[:QUANTISATION or file][@REVISION]
	Ollama      Kind = "ollama" // ollama:[[http://]HOST/][NAMESPACE/]NAME[:TAG]
	OCI         Kind = "oci"    // oci:[HOST/]REPO[:TAG or @DIGEST]; without a host: Docker Hub
	Web         Kind = "https"  // https://HOST/PATH[?QUERY][#sha256=HEX[,HEX…]]: of a split model, the first part and each part's sum
	Local       Kind = "file"   // file:PATH of a file, or of a directory that holds one model
)

// Forms is what a model_source may look like, for errors and help texts.
const Forms = "hf:OWNER/REPO[:QUANTISATION], ollama:NAME[:TAG], oci:HOST/REPO[:TAG], https://HOST/FILE.gguf[#sha256=…] or file:PATH"

// Ref is a source that was understood. What it does not use is "".
type Ref struct {
	Kind     Kind
	Host     string   // of a registry, with its port; "http://…" for one that is to be asked without TLS; "" = the kind's own
	Repo     string   // OWNER/REPO, NAMESPACE/NAME
	Pick     string   // hf: a quantisation or a file; ollama and oci: a tag, or a digest
	Revision string   // hf: a branch, tag or commit; "" = main
	URL      string   // https
	Path     string   // file
	SHA256   []string // what the file's sums must be, lower-case hexadecimal; of a split model one for each part
}

// maxSource bounds what is looked at: longer than any signed URL, shorter than a mischief.
const maxSource = 8 << 10

// Parse reads a model_source. What people paste is understood as well: the address of a file or repository on huggingface.co, and
// OWNER/REPO[:QUANTISATION] as llama.cpp's -hf takes it.
func Parse(s string) (Ref, error) {
	ref, err := parse(strings.TrimSpace(s))
	if err != nil {
		if len(s) > 200 {
			s = s[:200] + "…"
		}
		return Ref{}, fmt.Errorf("source %q: %w", s, err)
	}
	return ref, nil
}

func parse(s string) (Ref, error) {
	switch {
	case s == "":
		return Ref{}, errors.New("is empty: write " + Forms)
	case len(s) > maxSource:
		return Ref{}, fmt.Errorf("is longer than %d bytes", maxSource)
	case strings.ContainsFunc(s, isControl):
		return Ref{}, errors.New("holds a control character")
	}
	scheme, rest, found := strings.Cut(s, ":")
	if found {
		switch strings.ToLower(scheme) {
		case "hf":
			return parseHub(rest)
		case "ollama":
			return parseOllama(rest)
		case "oci":
			return parseOCI(rest)
		case "https", "http":
			return parseWeb(s)
		case "file":
			return parseLocal(rest)
		}
	}
	for _, host := range []string{"huggingface.co/", "hf.co/"} { // as it is copied from a browser's address bar
		if repo, ok := strings.CutPrefix(s, host); ok {
			return parseHubPath(repo)
		}
	}
	repo, _, _ := strings.Cut(s, ":")
	if isGGUF(repo) || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") || strings.Contains(s, `\`) {
		return Ref{}, errors.New("looks like a path: write file: before it")
	}
	if !strings.Contains(repo, "/") {
		return Ref{}, fmt.Errorf("begins with none of the known kinds: write %s (or ollama:%s, if it is Ollama's name)", Forms, s)
	}
	return parseHub(s)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// hubName is what owners, and repositories, are called at Hugging Face (huggingface_hub, validate_repo_id).
var hubName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$`)

func parseHub(s string) (Ref, error) {
	s, revision, revised := strings.Cut(s, "@")
	repo, pick, picked := strings.Cut(s, ":")
	ref := Ref{Kind: HuggingFace, Repo: repo, Pick: pick, Revision: revision}
	if picked && pick == "" || revised && revision == "" {
		return Ref{}, errors.New("has nothing after its last sign: write hf:OWNER/REPO[:QUANTISATION][@REVISION]")
	}
	if strings.Contains(revision, ":") {
		return Ref{}, errors.New("has the quantisation after the revision: write hf:OWNER/REPO:QUANTISATION@REVISION")
	}
	return ref, ref.checkHub()
}

func (r Ref) checkHub() error {
	owner, name, ok := strings.Cut(r.Repo, "/")
	if !ok || strings.Contains(name, "/") {
		return errors.New("is not OWNER/REPO: write hf:OWNER/REPO[:QUANTISATION or file]")
	}
	for _, part := range []string{owner, name} {
		if !hubName.MatchString(part) || strings.Contains(part, "..") {
			return fmt.Errorf("%q is no name of an owner or a repository", part)
		}
	}
	if r.Pick != "" {
		if err := checkPath(r.Pick); err != nil {
			return err
		}
	}
	if r.Revision != "" && checkPath(r.Revision) != nil {
		return fmt.Errorf("%q is no revision: name a branch, a tag or a commit", r.Revision)
	}
	return nil
}

// parseHubPath reads what follows huggingface.co/ in an address: OWNER/REPO[:QUANTISATION], or OWNER/REPO/resolve/REVISION/FILE and
// its kin. Revisions that hold a slash are escaped there.
func parseHubPath(s string) (Ref, error) {
	s, _, _ = strings.Cut(s, "?")
	parts := strings.Split(strings.TrimSuffix(s, "/"), "/")
	if len(parts) < 2 {
		return Ref{}, errors.New("names no repository: write hf:OWNER/REPO[:QUANTISATION]")
	}
	if len(parts) == 2 {
		return parseHub(parts[0] + "/" + parts[1])
	}
	ref := Ref{Kind: HuggingFace, Repo: parts[0] + "/" + parts[1]}
	switch {
	case len(parts) < 4 || parts[2] != "resolve" && parts[2] != "blob" && parts[2] != "raw" && parts[2] != "tree":
		return Ref{}, errors.New("is not the address of a model or of a file: write hf:OWNER/REPO[:QUANTISATION or file]")
	case parts[2] == "tree" && len(parts) > 4:
		return Ref{}, errors.New("is the address of a directory: write hf:OWNER/REPO:FILE")
	}
	var err error
	if ref.Revision, err = url.PathUnescape(parts[3]); err == nil {
		ref.Pick, err = url.PathUnescape(strings.Join(parts[4:], "/"))
	}
	if err != nil {
		return Ref{}, fmt.Errorf("is badly escaped: %w", err)
	}
	if ref.Revision == "main" {
		ref.Revision = ""
	}
	if strings.ContainsFunc(ref.Pick+ref.Revision, isControl) {
		return Ref{}, errors.New("holds a control character")
	}
	return ref, ref.checkHub()
}

// ollamaName is what hosts, namespaces, names and tags are made of at Ollama.
var ollamaName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$`)

func parseOllama(s string) (Ref, error) {
	ref := Ref{Kind: Ollama, Pick: "latest"}
	scheme := ""
	if bare, ok := strings.CutPrefix(s, "http://"); ok {
		scheme, s = "http://", bare
	} else {
		s = strings.TrimPrefix(s, "https://")
	}
	parts := strings.Split(s, "/")
	if len(parts) == 3 || len(parts) == 2 && (scheme != "" || isHost(parts[0])) {
		ref.Host, parts = scheme+parts[0], parts[1:]
		if err := checkHost(ref.Host); err != nil {
			return Ref{}, err
		}
	} else if scheme != "" {
		return Ref{}, errors.New("names no model: write ollama:http://HOST/NAME[:TAG]")
	}
	last := &parts[len(parts)-1]
	if name, tag, ok := strings.Cut(*last, ":"); ok {
		*last, ref.Pick = name, tag
	}
	if len(parts) == 1 {
		parts = []string{"library", parts[0]}
	}
	if len(parts) != 2 {
		return Ref{}, errors.New("has too many slashes: write ollama:[HOST/][NAMESPACE/]NAME[:TAG]")
	}
	for _, part := range append(parts, ref.Pick) {
		if !ollamaName.MatchString(part) || strings.Contains(part, "..") {
			return Ref{}, fmt.Errorf("%q is no name or tag of Ollama's: write ollama:NAME[:TAG], such as ollama:qwen2.5:0.5b", part)
		}
	}
	ref.Repo = strings.Join(parts, "/")
	return ref, nil
}

// isHost tells a host from a namespace, as Docker does.
func isHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }

func checkHost(host string) error {
	u, err := url.Parse("https://" + strings.TrimPrefix(host, "http://"))
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no host", host)
	}
	return nil
}

func parseOCI(s string) (Ref, error) {
	s = strings.TrimPrefix(s, "//")
	host, repo, ok := strings.Cut(s, "/")
	if !ok {
		return Ref{}, errors.New("names no repository: write oci:HOST/REPO[:TAG]")
	}
	if !isHost(host) {
		host, repo = "docker.io", s
	}
	parsed, err := registry.ParseReference(host + "/" + repo)
	if err != nil {
		return Ref{}, fmt.Errorf("is no reference to an OCI artefact: %w", err)
	}
	if strings.Contains(repo, "@") && !strings.HasPrefix(parsed.Reference, "sha256:") {
		return Ref{}, fmt.Errorf("has a digest that is not of sha256: %s", parsed.Reference)
	}
	return Ref{Kind: OCI, Host: parsed.Registry, Repo: parsed.Repository, Pick: parsed.ReferenceOrDefault()}, nil
}

var sum = regexp.MustCompile(`^[0-9a-f]{64}$`)

func parseWeb(s string) (Ref, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return Ref{}, errors.New("is no address: write https://HOST/FILE.gguf[#sha256=HEX]")
	}
	sums, err := parseSums(u.Fragment)
	if err != nil {
		return Ref{}, err
	}
	if host := strings.ToLower(u.Host); host == "huggingface.co" || host == "www.huggingface.co" || host == "hf.co" {
		ref, err := parseHubPath(strings.TrimPrefix(u.EscapedPath(), "/"))
		if err != nil {
			return Ref{}, err
		}
		ref.SHA256 = sums
		if sums != nil && ref.Pick == "" {
			return Ref{}, errors.New("has a sha256, but names no file that could have it")
		}
		return ref, nil
	}
	switch {
	case u.User != nil:
		return Ref{}, errors.New("holds a password, which would be shown with it: use an address that is signed, or one that needs none")
	case u.Scheme == "http" && sums == nil && !isLoopback(u.Hostname()):
		return Ref{}, errors.New("is not encrypted, so that anybody on the way could change it: write https://, or add #sha256=HEX")
	case strings.HasSuffix(u.Path, "/") || u.Path == "":
		return Ref{}, errors.New("names no file: write https://HOST/FILE.gguf")
	}
	if err := checkName(path.Base(u.Path)); err != nil {
		return Ref{}, err
	}
	u.Fragment, u.RawFragment = "", ""
	return Ref{Kind: Web, URL: u.String(), SHA256: sums}, nil
}

func parseSums(fragment string) ([]string, error) {
	if fragment == "" {
		return nil, nil
	}
	list, ok := strings.CutPrefix(fragment, "sha256=")
	if !ok {
		return nil, fmt.Errorf("has #%s after it, where only #sha256=HEX may stand", fragment)
	}
	sums := strings.Split(strings.ToLower(list), ",")
	for _, s := range sums {
		if !sum.MatchString(s) {
			return nil, fmt.Errorf("has a sha256 that is not 64 hexadecimal digits: %q", s)
		}
	}
	return sums, nil
}

// isLoopback tells whether a host can only be this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func parseLocal(s string) (Ref, error) {
	if bare, ok := strings.CutPrefix(s, "//"); ok { // file:///models/x.gguf, an address
		u, err := url.Parse("file://" + bare)
		if err != nil || u.Host != "" && u.Host != "localhost" {
			return Ref{}, errors.New("names another machine: write file:PATH")
		}
		s = u.Path
	}
	if s == "" {
		return Ref{}, errors.New("names no file: write file:PATH")
	}
	return Ref{Kind: Local, Path: s}, nil
}

// String writes the source as Parse reads it: equal for sources that are written differently and mean the same.
func (r Ref) String() string {
	switch r.Kind {
	case HuggingFace:
		s := "hf:" + r.Repo
		if len(r.SHA256) > 0 || strings.Contains(r.Pick, "@") { // only an address can say it
			u := url.URL{Scheme: "https", Host: "huggingface.co", Path: "/" + r.Repo + "/resolve/"}
			return u.String() + url.PathEscape(r.revision()) + "/" + escapePath(r.Pick) + r.sums()
		}
		if r.Pick != "" {
			s += ":" + r.Pick
		}
		if r.Revision != "" {
			s += "@" + r.Revision
		}
		return s
	case Ollama:
		repo := strings.TrimPrefix(r.Repo, "library/")
		if r.Host != "" {
			repo = r.Host + "/" + r.Repo
		}
		return "ollama:" + repo + ":" + r.Pick
	case OCI:
		if strings.Contains(r.Pick, ":") {
			return "oci:" + r.Host + "/" + r.Repo + "@" + r.Pick
		}
		return "oci:" + r.Host + "/" + r.Repo + ":" + r.Pick
	case Web:
		return r.URL + r.sums()
	default:
		return "file:" + r.Path
	}
}

func (r Ref) revision() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

func (r Ref) sums() string {
	if len(r.SHA256) == 0 {
		return ""
	}
	return "#sha256=" + strings.Join(r.SHA256, ",")
}
