package transfer

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkFetch brings a file of 1 GB over loopback, hash and all, beside curl, each a process of its own, in turn:
//
//	go test ./internal/hub/transfer -run '^$' -bench Fetch -benchtime 5x
//
// It tells the ratio of their throughputs (1 = as fast as curl), the same against curl and then sha256sum, which together do what ours does but for
// having it on the disk, and the most memory that ours took.
func BenchmarkFetch(b *testing.B) {
	const size = 1 << 30
	dir := b.TempDir()
	served := filepath.Join(dir, "served")
	sum := func() string {
		data := content(30, size)
		if err := os.WriteFile(served, data, 0o600); err != nil {
			b.Fatal(err)
		}
		return sumOf(data)
	}()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, served) }))
	defer server.Close()
	run := func(cmd *exec.Cmd, path string) (time.Duration, int64) {
		begun := time.Now()
		out, err := cmd.Output()
		took := time.Since(begun)
		if err = errors.Join(err, os.Remove(path)); err != nil {
			b.Fatal(err)
		}
		peak, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64) // KiB; what wait tells of a child is its parent's, as it was at the fork
		return took, peak << 10
	}
	var ours, theirs, sums time.Duration
	var most int64
	for b.Loop() {
		path := filepath.Join(dir, "curl")
		begun := time.Now()
		if err := exec.Command("sha256sum", served).Run(); err != nil {
			b.Fatal(err)
		}
		sums += time.Since(begun)
		took, _ := run(exec.Command("curl", "-sf", "-o", path, server.URL), path)
		theirs += took
		path = filepath.Join(dir, "ours")
		took, rss := run(fetcher(server.URL, sum, path, 0), path)
		ours, most = ours+took, max(most, rss)
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-curl")
	b.ReportMetric((theirs+sums).Seconds()/ours.Seconds(), "of-curl-and-sha256sum")
	b.ReportMetric(float64(most)/(1<<20), "MiB-RSS")
	b.ReportMetric(size*float64(b.N)/1e6/ours.Seconds(), "MB/s")
	b.ReportMetric(0, "ns/op")
}
