package transfer

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kills is how often a download is killed: go test ./internal/hub/transfer -run Killed -kills 100.
var kills = flag.Int("kills", 10, "how often TestKilledDownload kills its download")

// envKilled tells a copy of this test's program what to fetch, before it is killed: "URL SHA256 PATH".
const envKilled = "ASSISTANT_TEST_TRANSFER"

// envPart is the size of its parts.
const envPart = "ASSISTANT_TEST_TRANSFER_PART"

// The download that is killed: parts and rate are such that it takes about two seconds.
const (
	killedSize = 32 << 20
	killedPart = 256 << 10
)

func fetchToBeKilled() {
	var url, sum, path string
	if _, err := fmt.Sscan(os.Getenv(envKilled), &url, &sum, &path); err != nil {
		panic(err)
	}
	f := File{Size: -1, SHA256: sum, Locate: func(context.Context) ([]Location, error) { return []Location{{URL: url}}, nil }}
	size, _ := strconv.ParseInt(os.Getenv(envPart), 10, 64) // 0 = the default
	if _, err := Fetch(context.Background(), path, f, Options{PartSize: size, Stall: 5 * time.Second}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status, _ := os.ReadFile("/proc/self/status")
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println(strings.Fields(peak + " 0")[0]) // KiB
}

// TestKilledDownload kills the process that downloads at random moments, through a server that cuts connections: what comes in the end is right, and
// each kill costs at most a part a connection.
func TestKilledDownload(t *testing.T) {
	data := content(20, killedSize)
	s := serve(t, data)
	var killed, ended int
	path := filepath.Join(t.TempDir(), "f")
	for killed < *kills {
		cmd := fetcher(s.URL, sumOf(data), path, killedPart)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(150*time.Millisecond), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err == nil { // it was faster: begin again
			ended++
			check(t, path, data)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		killed++
	}
	brings(t, path, file(data, s), Options{PartSize: killedPart, Client: small(t).Client}, data)
	most := int64(ended+1)*killedSize*105/100 + int64(killed)*defaultConnections*killedPart
	t.Logf("%d kills, %d downloads came whole meanwhile; %d bytes were sent, of at most %d", killed, ended, s.sent.Load(), most)
	if sent := s.sent.Load(); sent > most {
		t.Errorf("%d bytes were sent, more than %d", sent, most)
	}
}

// fetcher is a copy of this program that fetches.
func fetcher(url, sum, path string, partSize int) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envKilled+"="+fmt.Sprint(url, " ", sum, " ", path), envPart+"="+strconv.Itoa(partSize))
	cmd.Stderr = os.Stderr
	return cmd
}

func check(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || sumOf(got) != sumOf(want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}
