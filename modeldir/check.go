package modeldir

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxPort       = 65535
	maxInt32      = math.MaxInt32 // engines keep counts of tokens in 32 bits
	maxThreads    = 512           // ggml's own bound (GGML_MAX_N_THREADS)
	maxDevices    = 16            // accelerators of one machine; ggml's own bound
	maxNameLength = 256           // bytes; OpenAI's ids are far shorter, paths used as names are not
)

// Valid words; the first is what an empty value means.
var (
	kinds      = []string{string(Chat), string(Embedding), string(Rerank), string(Speech), string(Transcription), string(Image), string(Moderation)}
	engines    = []string{EngineAuto, EngineLlamaServer, EngineWasmEdge, EngineCommand}
	identities = []string{"", IdentityNone}
	tokens     = []string{"", TokensModel}
	dialects   = []string{"", DialectLlamaAPIServer}
	splitModes = []string{"", "none", "layer", "row"}
)

// placeholders are what commands and environments may name, in double braces.
var placeholders = []string{"port", "model_path", "name", "ctx_size", "batch_size", "instance"}

// placeholder matches what looks like one of ours, right or wrong. Other braces, such as
// {{.Names}} for docker, are the program's own.
var placeholder = regexp.MustCompile(`\{\{\s*\w+\s*\}\}`)

// checker judges the values of a document and keeps the first complaint. Its
// methods return the value in the form that a [Model] has it.
type checker struct {
	doc *document
	err error
}

func (c *checker) failf(field, format string, args ...any) {
	if c.err == nil {
		c.err = c.doc.errorf(field, format, args...)
	}
}

// oneOf returns the member of valid that v is, so that catalogs share its memory.
func (c *checker) oneOf(field, v string, valid []string) string {
	if v == "" {
		return valid[0]
	}
	i := slices.Index(valid, v)
	if i < 0 {
		c.failf(field, "%q is none of %s", v, quoted(valid))
		return valid[0]
	}
	return valid[i]
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}

func (c *checker) between(field string, v, least, most int) int {
	if v < least || v > most {
		c.failf(field, "%d is not in %d to %d", v, least, most)
	}
	return v
}

// shares checks the parts that devices get of a model. They need not add up to anything.
func (c *checker) shares(field string, list []float64) []float64 {
	sum := 0.0
	for _, v := range list {
		if !(v >= 0 && v <= math.MaxInt32) {
			c.failf(field, "%v is no share: give numbers, 0 or more, such as [3, 1]", v)
		}
		sum += v
	}
	switch {
	case len(list) == 0:
		return nil
	case len(list) > maxDevices:
		c.failf(field, "has %d shares, more than the %d devices there can be", len(list), maxDevices)
	case sum == 0:
		c.failf(field, "gives no device a share: give one of them more than 0")
	}
	return list
}

// CheckName tells what is wrong with a name for a model.
func CheckName(name string) error {
	c := &checker{doc: &document{}}
	c.name("name", name)
	if bad := (*FieldError)(nil); errors.As(c.err, &bad) {
		return fmt.Errorf("name: %s", bad.Reason)
	}
	return nil
}

func (c *checker) name(field, s string) string {
	switch {
	case s == "":
		c.failf(field, "must not be empty")
	case len(s) > maxNameLength:
		c.failf(field, "is %d bytes long, more than %d: shorten it", len(s), maxNameLength)
	case !utf8.ValidString(s):
		c.failf(field, "%q is not UTF-8: set another name", s)
	case strings.ContainsFunc(s, unicode.IsControl):
		c.failf(field, "%q has control characters in it: remove them", s)
	case strings.TrimSpace(s) != s:
		c.failf(field, "%q begins or ends with a space: remove it", s)
	}
	return s
}

// text refuses what no argument, path or variable can hold.
func (c *checker) text(field, s string) string {
	if strings.Contains(s, "\x00") {
		c.failf(field, "%q has a zero byte in it: remove it", s)
	}
	return s
}

func (c *checker) texts(field string, list []string) []string {
	for _, s := range list {
		c.text(field, s)
	}
	return none(list)
}

// none makes an empty list nil, so that equal models are equal.
func none(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// path makes a path absolute; relative ones start at the document's directory.
func (c *checker) path(field, p string) string {
	c.text(field, p)
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(c.doc.file), p)
}

// argv checks a command and makes its program's path absolute. A plain name
// stays: it is looked up in PATH when the command runs.
func (c *checker) argv(field string, argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if argv[0] == "" {
		c.failf(field, "its first element, the program, is empty")
	}
	for _, arg := range argv {
		c.text(field, arg)
		c.placeholders(field, arg)
	}
	if strings.ContainsAny(argv[0], "/"+string(filepath.Separator)) && !strings.HasPrefix(argv[0], "{{") {
		argv[0] = c.path(field, argv[0])
	}
	return argv
}

func (c *checker) placeholders(field, s string) {
	for _, p := range placeholder.FindAllString(s, -1) {
		if !slices.Contains(placeholders, p[2:len(p)-2]) {
			c.failf(field, "unknown placeholder %s; there are {{%s}}", p, strings.Join(placeholders, "}} {{"))
		}
	}
}

func (c *checker) env(env map[string]string) map[string]string {
	for _, key := range slices.Sorted(maps.Keys(env)) {
		field := "env." + key
		if key == "" || strings.ContainsAny(key, "=\x00") {
			c.failf(field, "%q cannot be the name of an environment variable", key)
		}
		c.text(field, env[key])
		c.placeholders(field, env[key])
	}
	if len(env) == 0 {
		return nil
	}
	return env
}

func (c *checker) readyPath(field, p string) string {
	if p != "" && p[0] != '/' {
		c.failf(field, `%q must begin with "/", as "/health" does`, p)
	}
	if strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == unicode.MaxRune || unicode.IsControl(r) }) {
		c.failf(field, "%q has spaces or control characters in it: write them as %%20 and so on", p)
	}
	return p
}

// upstream reduces where an engine listens to host:port or unix//path.
func (c *checker) upstream(field, s string) string {
	const forms = `write "host:port" or "unix//path/of/socket"`
	if s == "" {
		return ""
	}
	c.text(field, s)
	if path, ok := strings.CutPrefix(s, "unix/"); ok {
		if !strings.HasPrefix(path, "/") || len(path) == 1 {
			c.failf(field, "%q has no absolute path: %s", s, forms)
		}
		return s
	}
	at, isURL := strings.CutPrefix(s, "http://")
	if isURL {
		at = strings.TrimSuffix(at, "/")
	}
	switch {
	case strings.HasPrefix(s, "https://"):
		c.failf(field, "%q asks for TLS, which is not spoken to local engines: %s", s, forms)
	case strings.ContainsAny(at, "/?#@"):
		c.failf(field, "%q has more than a host and a port (engines are asked under /v1): %s", s, forms)
	default:
		if host, err := hostPort(at, 1); err != nil || host == "" {
			c.failf(field, "%q has no host and port: %s", s, forms)
		}
	}
	return at
}

// hostPort returns the host of an address whose port is a number from least on.
func hostPort(addr string, least int) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || int(n) < least {
		return "", fmt.Errorf("port %q is not in %d to %d", port, least, maxPort)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || unicode.IsControl(r) }) {
		return "", fmt.Errorf("host %q has spaces or control characters in it", host)
	}
	return host, nil
}

// maxSeconds is the most whole seconds that a [time.Duration] holds.
const maxSeconds = int64(math.MaxInt64 / time.Second)

// duration reads a string such as "30s", or an integer of seconds.
func (c *checker) duration(field string, v any) time.Duration {
	const forms = `write a string such as "90s", "5m" or "1h30m"`
	switch v := v.(type) {
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			c.failf(field, "%q is no duration: %s", v, forms)
		} else if d < 0 {
			c.failf(field, "%q is negative: %s", v, forms)
		}
		return d
	case int64:
		if v < 0 || v > maxSeconds {
			c.failf(field, "%d seconds are not in 0 to %d: %s", v, maxSeconds, forms)
			return 0
		}
		return time.Duration(v) * time.Second
	default:
		c.failf(field, "is no duration: %s, or a whole number of seconds", forms)
		return 0
	}
}

// units of memory, in bytes.
var units = map[string]float64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// bytes reads a string such as "4GiB", or an integer of bytes.
func (c *checker) bytes(field string, v any) int64 {
	const forms = `write a string such as "4GiB" or "600MB" (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB), or a whole number of bytes`
	switch v := v.(type) {
	case nil:
		return 0
	case int64:
		if v < 0 {
			c.failf(field, "%d is negative: %s", v, forms)
		}
		return v
	case string:
		digits := strings.TrimRight(v, "BKMGTibkmgt ")
		unit, known := units[strings.ToLower(strings.TrimSpace(v[len(digits):]))]
		n, err := strconv.ParseFloat(digits, 64)
		// The range check also sorts out infinities and what is not a number.
		if n *= unit; err != nil || !known || !(n >= 0 && n < math.MaxInt64) {
			c.failf(field, "%q is no size: %s", v, forms)
			return 0
		}
		return int64(n)
	default:
		c.failf(field, "is no size: %s", forms)
		return 0
	}
}
