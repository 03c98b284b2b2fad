package enginetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Names of events.
const (
	EventStart  = "start"  // the process runs
	EventChild  = "child"  // it left a child behind; Child is its pid
	EventReady  = "ready"  // it serves requests from now on
	EventBegin  = "begin"  // a request has arrived
	EventEnd    = "end"    // it was answered in full
	EventCancel = "cancel" // its client left and it was given up
	EventTerm   = "term"   // a SIGTERM or SIGINT has arrived
	EventStop   = "stop"   // the process is about to exit by itself
	EventNoRoom = "noroom" // a device has not the memory it needs: it ends
	EventSlow   = "slow"   // it fitted itself to less than all its layers
)

// Event is one line of the file named by --events. Engines that share a file
// append to it in one write each.
type Event struct {
	Name    string `json:"event"`
	Time    int64  `json:"time"` // nanoseconds since the Unix epoch, taken when it happened
	Pid     int    `json:"pid"`
	Alias   string `json:"alias"`
	Request int64  `json:"request,omitempty"` // counts the requests of one process from 1
	Path    string `json:"path,omitempty"`
	Model   string `json:"model,omitempty"`  // as asked
	Tokens  int    `json:"tokens,omitempty"` // generated when the request ended or was cancelled
	Child   int    `json:"child,omitempty"`

	Args    []string `json:"args,omitempty"`    // of a start
	Visible string   `json:"visible,omitempty"` // of a start: CUDA_VISIBLE_DEVICES
}

// ReadEvents returns what engines have written to file so far. A file that
// does not exist yet has none.
func ReadEvents(file string) ([]Event, error) {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var events []Event
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return events, s.Err()
		}
		var e Event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return events, fmt.Errorf("%s: line %d: %w", file, len(events)+1, err)
		}
		events = append(events, e)
	}
}

// eventLog appends events to a file; a nil one drops them.
type eventLog struct {
	file  *os.File
	alias string
}

func openEvents(path, alias string) (*eventLog, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &eventLog{f, alias}, nil
}

// add writes e with the time now, unless it has one.
func (l *eventLog) add(e Event) {
	if l == nil {
		return
	}
	if e.Time == 0 {
		e.Time = time.Now().UnixNano()
	}
	e.Pid, e.Alias = os.Getpid(), l.alias
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "events:", err)
	}
}
