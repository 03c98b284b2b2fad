package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"assistant/internal/glob"
)

// rawFile is the file as written.
type rawFile struct {
	Keys []Entry `toml:"keys"`
}

// Entry is a key as the file has it. What is left out is not bounded.
type Entry struct {
	Name              string    `toml:"name"`
	SHA256            string    `toml:"sha256,omitempty"`
	Key               string    `toml:"key,omitempty"`      // the key itself, by {env.NAME} or {file./path}
	Identity          string    `toml:"identity,omitempty"` // who holds it without a secret, with * and ?
	Owner             string    `toml:"owner,omitempty"`
	Team              string    `toml:"team,omitempty"`
	Admin             bool      `toml:"admin,omitempty"`  // may manage
	Models            []string  `toml:"models,omitempty"` // names or aliases, with * and ?
	RequestsPerMinute int       `toml:"requests_per_minute,omitempty"`
	TokensPerMinute   int       `toml:"tokens_per_minute,omitempty"`
	TokensPerMonth    int64     `toml:"tokens_per_month,omitempty"` // of the calendar, UTC
	Concurrent        int       `toml:"concurrent_requests,omitempty"`
	Expires           time.Time `toml:"expires,omitzero"`
	Progress          string    `toml:"progress,omitempty"` // comments or reasoning
}

// digest is the SHA-256 of a key.
type digest [32]byte

// set is the keys of a file, by how they are found.
type set struct {
	secrets    map[digest]*Key
	identities map[string]*Key // the plain ones
	globs      []holder        // the others, in the file's order
}

// holder is who holds a key without its secret.
type holder struct {
	identity *regexp.Regexp
	key      *Key
}

// parse reads the file strictly. Errors name the file, and the place or the key.
func parse(file string, data []byte, uses *Uses) (*set, error) {
	var raw rawFile
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&raw); err != nil {
		return nil, placed(file, err)
	}
	all := &set{secrets: map[digest]*Key{}, identities: map[string]*Key{}}
	names := map[string]bool{}
	for i, r := range raw.Keys {
		k, err := r.key(uses)
		switch {
		case err != nil:
		case names[k.Name]:
			err = fmt.Errorf("name: %q is another key's already: choose another", k.Name)
		default:
			err = all.add(r, k)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: keys[%d]: %w", file, i, err)
		}
		names[k.Name] = true
	}
	return all, nil
}

// add makes a key known by its secret and by its identity. It must have one of them.
func (s *set) add(r Entry, k *Key) error {
	if r.SHA256 != "" || r.Key != "" || r.Identity == "" {
		sum, err := r.digest()
		if err != nil {
			return err
		}
		if other := s.secrets[sum]; other != nil {
			return fmt.Errorf("it is the same as %q: remove one", other.Name)
		}
		s.secrets[sum] = k
	}
	switch other := s.identities[r.Identity]; {
	case r.Identity == "":
	case other != nil:
		return fmt.Errorf("identity: %q holds %q already: remove one", r.Identity, other.Name)
	case strings.ContainsAny(r.Identity, "*?"):
		s.globs = append(s.globs, holder{glob.Compile(r.Identity), k})
	default:
		s.identities[r.Identity] = k
	}
	return nil
}

// placed puts file, line and column before an error of the decoder's.
func placed(file string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		line, column := e.Position()
		return fmt.Errorf("%s:%d:%d: %s: unknown key", file, line, column, strings.Join(e.Key(), "."))
	}
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Errorf("%s:%d:%d: %w", file, line, column, err)
	}
	return fmt.Errorf("%s: %w", file, err)
}

func (r Entry) key(uses *Uses) (*Key, error) {
	if r.Name == "" {
		return nil, errors.New("name: is missing: it is how logs call the key")
	}
	for name, bound := range map[string]int64{
		"requests_per_minute": int64(r.RequestsPerMinute), "concurrent_requests": int64(r.Concurrent),
		"tokens_per_minute": int64(r.TokensPerMinute), "tokens_per_month": r.TokensPerMonth,
	} {
		if bound < 0 {
			return nil, fmt.Errorf("%s: must not be negative: leave it out for no bound", name)
		}
	}
	if !slices.Contains([]string{"", ProgressComments, ProgressReasoning}, r.Progress) {
		return nil, fmt.Errorf("progress: %q is neither %q nor %q: leave it out for none", r.Progress, ProgressComments, ProgressReasoning)
	}
	k := &Key{
		Name: r.Name, Owner: r.Owner, Team: r.Team, Admin: r.Admin, Expires: r.Expires, Progress: r.Progress,
		RequestsPerMinute: r.RequestsPerMinute, TokensPerMinute: r.TokensPerMinute, TokensPerMonth: r.TokensPerMonth,
		Concurrent: r.Concurrent, use: uses.of(r.Name),
	}
	for _, m := range r.Models {
		k.models = append(k.models, glob.Compile(m))
	}
	if r.Models != nil && k.models == nil {
		return nil, errors.New("models: is empty, so the key could use nothing: leave it out for all models")
	}
	return k, nil
}

// digest is that of sha256, or of the key itself, which stands elsewhere.
func (r Entry) digest() (sum digest, err error) {
	switch {
	case r.SHA256 != "" && r.Key != "":
		return sum, errors.New("has both sha256 and key: remove one")
	case r.Key != "":
		secret, err := elsewhere(r.Key)
		if err != nil {
			return sum, fmt.Errorf("key: %w", err)
		}
		_, _ = hex.Decode(sum[:], []byte(hexSum(secret)))
		return sum, nil
	}
	b, err := hex.DecodeString(r.SHA256)
	if err != nil || len(b) != len(sum) {
		return sum, errors.New("sha256: is not the SHA-256 of a key, 64 hexadecimal digits: make one by caddy assistant key new")
	}
	return digest(b), nil
}

// elsewhere reads a secret from where {env.NAME} or {file./path} says. One that is written out is refused: whoever reads the file
// would have it.
func elsewhere(s string) (string, error) {
	name, isEnv := cutBraces(s, "env.")
	path, isFile := cutBraces(s, "file.")
	var secret string
	switch {
	case isEnv:
		secret = os.Getenv(name)
	case isFile:
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		secret = strings.TrimSpace(string(b))
	default:
		return "", errors.New("give {env.NAME} or {file./path}, or the key's sha256: a key that is written out is no secret")
	}
	if len(secret) < 16 {
		return "", fmt.Errorf("%s holds no key of at least 16 characters", s)
	}
	return secret, nil
}

func cutBraces(s, kind string) (string, bool) {
	rest, ok := strings.CutPrefix(s, "{"+kind)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "}")
}
