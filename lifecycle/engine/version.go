package engine

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"time"
)

var versions sync.Map // path, size and time of a program → its version

// Version is the first line in which a program names its version, "" if it does not. A program is asked once, which takes
// up to a second (llama-server loads its back ends for that), and again when its file has changed.
func Version(program string) string {
	key, err := fileKey(program)
	if err != nil {
		return ""
	}
	if v, ok := versions.Load(key); ok {
		return v.(string) //nolint:errcheck,forcetypeassert // stored below
	}
	ctx, cancel := context.WithTimeout(context.Background(), helpTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "" // asked again next time
	}
	version := ""
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "version") {
			version = strings.TrimSpace(line)
			break
		}
	}
	versions.Store(key, version)
	return version
}
