package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"assistant/lifecycle/launcher"
)

// record is what is noted of a running instance, for a router that comes after this one died.
type record struct {
	Router        string   `json:"router"`
	RouterPID     int      `json:"router_pid"`
	RouterStarted string   `json:"router_started"` // clock ticks since boot
	Model         string   `json:"model"`
	Instance      string   `json:"instance"`
	Mark          string   `json:"mark"`
	PID           int      `json:"pid"`
	Started       string   `json:"started"` // clock ticks since boot
	Stop          []string `json:"stop_command,omitempty"`
	Cleanup       []string `json:"cleanup_command,omitempty"`
	Sockets       string   `json:"sockets,omitempty"` // the router's socket directory
}

// records is the directory the records lie in, one file each.
type records struct{ dir string }

func (r records) path(mark string) string {
	return filepath.Join(r.dir, strings.Map(fitForName, mark)+".json")
}

// write notes a record. That it could not be written hinders nobody: the guardian is there first.
func (r records) write(rec record) {
	b, err := json.Marshal(rec)
	if err != nil {
		return
	}
	if os.MkdirAll(r.dir, 0o700) != nil {
		return
	}
	temp := r.path(rec.Mark) + ".new"
	if os.WriteFile(temp, b, 0o600) == nil {
		_ = os.Rename(temp, r.path(rec.Mark))
	}
}

func (r records) remove(mark string) { _ = os.Remove(r.path(mark)) }

// Reaped is an instance of a dead router that was cleaned up.
type Reaped struct {
	Model     string `json:"model"`
	Instance  string `json:"instance"`
	PID       int    `json:"pid"`
	Processes int    `json:"processes"` // found alive and stopped
}

// Reap stops what a router that is no more left behind in stateDir, and runs its stop and cleanup
// commands. Instances of routers that live are not touched.
func Reap(ctx context.Context, stateDir string) ([]Reaped, error) {
	dir := filepath.Join(stateDir, "instances")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what ran: %w", err)
	}
	var reaped []Reaped
	var errs []error
	for _, file := range files {
		if filepath.Ext(file.Name()) != ".json" {
			continue
		}
		path := filepath.Join(dir, file.Name())
		got, err := reap(ctx, path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		if got != nil {
			reaped = append(reaped, *got)
		}
	}
	return reaped, errors.Join(errs...)
}

func reap(ctx context.Context, path string) (*Reaped, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil || rec.Mark == "" {
		return nil, os.Remove(path) // cut off by a crash: the guardian has done the work
	}
	if launcher.Alive(rec.RouterPID, rec.RouterStarted) {
		return nil, nil //nolint:nilnil // its router lives: nothing to reap and nothing wrong
	}
	for _, argv := range [][]string{rec.Stop, rec.Cleanup} {
		runBounded(ctx, argv)
	}
	found := launcher.Sweep(rec.Mark)
	if launcher.Alive(rec.PID, rec.Started) { // it took its mark off
		launcher.SweepGroup(rec.PID)
		found++
	}
	if rec.Sockets != "" && strings.Contains(filepath.Base(rec.Sockets), "assistant-") {
		os.RemoveAll(rec.Sockets)
	}
	return &Reaped{Model: rec.Model, Instance: rec.Instance, PID: rec.PID, Processes: found}, os.Remove(path)
}

func runBounded(ctx context.Context, argv []string) {
	if len(argv) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // noted by our own router
	cmd.WaitDelay = time.Second
	_ = cmd.Run() // what is not there cannot be removed
}
