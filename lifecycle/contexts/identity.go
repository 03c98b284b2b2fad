package contexts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// Identity tells which engines understand each other's files: those of equal identity. Its parts are hashes.
type Identity struct {
	Model string `json:"model"` // of the model's file
	Args  string `json:"args"`  // of the arguments and the environment that change the numbers
	Build string `json:"build"` // of what the engine's program says about itself
}

// Launch is how an engine is started.
type Launch struct {
	Argv      []string
	Env       []string // "K=V", added to our own
	ModelPath string
}

// identities makes identities. What it reads of a program or a model it remembers until the file changes.
type identities struct {
	mu     sync.Mutex
	builds map[fileStamp]string
	models map[fileStamp]string
}

// fileStamp is a file as it was.
type fileStamp struct {
	path     string
	size     int64
	modified time.Time
}

func stamp(path string) (fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	if !info.Mode().IsRegular() {
		return fileStamp{}, fmt.Errorf("%s is not a file", path)
	}
	return fileStamp{path, info.Size(), info.ModTime()}, nil
}

func (f fileStamp) String() string { return fmt.Sprintf("%d %d", f.size, f.modified.UnixNano()) }

// of makes the identity of engines that are started so. The first time it runs the program (--version, 40 ms) and
// reads 2 MiB of the model.
func (i *identities) of(ctx context.Context, l Launch) (Identity, error) {
	if len(l.Argv) == 0 {
		return Identity{}, errors.New("identity of an engine without a program")
	}
	program, err := exec.LookPath(l.Argv[0])
	if err != nil {
		return Identity{}, err
	}
	build, err := i.remember(&i.builds, program, func(fileStamp) (string, error) { return version(ctx, program, l.Env) })
	if err != nil {
		return Identity{}, fmt.Errorf("build of %s: %w", program, err)
	}
	model, err := i.remember(&i.models, l.ModelPath, sample)
	if err != nil {
		return Identity{}, fmt.Errorf("identity of the model: %w", err)
	}
	return Identity{Model: model, Args: arguments(l), Build: build}, nil
}

// remember returns what make said of the file as it is now.
func (i *identities) remember(known *map[fileStamp]string, path string, read func(fileStamp) (string, error)) (string, error) {
	at, err := stamp(path)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	said, ok := (*known)[at]
	i.mu.Unlock()
	if ok {
		return said, nil
	}
	if said, err = read(at); err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if *known == nil {
		*known = map[fileStamp]string{}
	}
	(*known)[at] = said
	return said, nil
}

// versionTimeout bounds how long a program may take to tell its version, which llama-server does in 40 ms.
const versionTimeout = 10 * time.Second

func version(ctx context.Context, program string, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(out)
	return short(sum[:]), nil
}

// What of a model's file is read: both ends, where the header and the last tensors are, and blocks in between. The
// whole of a large model would take many seconds of each first start; another model, or another training of the same
// one, differs all over. Size and time of change are taken as well.
const (
	sampleEnd    = 1 << 20
	sampleBlock  = 4 << 10
	sampleBlocks = 64
)

func sample(at fileStamp) (string, error) {
	f, err := os.Open(at.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	note(h, at.String())
	parts := []struct{ from, n int64 }{{0, sampleEnd}, {max(0, at.size-sampleEnd), sampleEnd}}
	for i := range int64(sampleBlocks) {
		parts = append(parts, struct{ from, n int64 }{at.size / sampleBlocks * i, sampleBlock})
	}
	for _, p := range parts {
		if _, err := io.Copy(h, io.NewSectionReader(f, p.from, p.n)); err != nil {
			return "", err
		}
	}
	return short(h.Sum(nil)), nil
}

// unrelated are the arguments, with a value each, that do not change what an engine computes, or are taken otherwise.
var unrelated = []string{
	"-m", "--model", "-a", "--alias", "--host", "--port", "-t", "--threads", "-tb", "--threads-batch", "-to", "--timeout",
	"--slot-save-path", "--api-key", "--api-key-file", "--log-file", "--threads-http",
}

// unrelatedEnv are those of the environment.
var unrelatedEnv = []string{
	"LLAMA_SERVER", "LLAMA_ARG_MODEL", "LLAMA_ARG_ALIAS", "LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_THREADS",
	"LLAMA_ARG_THREADS_BATCH", "LLAMA_ARG_TIMEOUT", "LLAMA_ARG_THREADS_HTTP", "LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE",
}

// arguments hashes every argument but the unrelated, in their order, the files that they name (adapters), and the
// environment: the model's own, and what the engine takes of ours.
func arguments(l Launch) string {
	h := sha256.New()
	for i := 1; i < len(l.Argv); i++ {
		arg := l.Argv[i]
		name, _, together := strings.Cut(arg, "=")
		if slices.Contains(unrelated, name) {
			if !together {
				i++
			}
			continue
		}
		note(h, arg)
		if at, err := stamp(arg); err == nil {
			note(h, at.String())
		}
	}
	env := map[string]string{}
	for _, kv := range slices.Concat(os.Environ(), l.Env) { // the last one counts
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "LLAMA_") || strings.HasPrefix(name, "GGML_") || slices.Contains(l.Env, kv) {
			env[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !slices.Contains(unrelatedEnv, name) {
			note(h, name, env[name])
		}
	}
	return short(h.Sum(nil))
}

// note adds words so that other words, or the same otherwise divided, give another hash.
func note(h hash.Hash, words ...string) {
	for _, w := range words {
		fmt.Fprintf(h, "%d %s\n", len(w), w)
	}
}

// short is enough of a hash that nothing equals it by accident.
func short(sum []byte) string { return hex.EncodeToString(sum[:16]) }
