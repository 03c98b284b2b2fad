package guest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Info is what a guest says of itself when it is ready.
type Info struct {
	Slots   int    `json:"slots"`        // requests it answers at a time
	Context int    `json:"context"`      // tokens of each
	Plugin  string `json:"plugin"`       // "assistant" for ours, else "other", with which it can do less
	Commit  string `json:"llama_commit"` // of llama.cpp
}

// Host speaks with one guest. It is an [http.Handler]: requests are handed to the guest as they are.
type Host struct {
	in    io.WriteCloser
	log   func(line string)
	ready chan struct{} // closed when the guest can serve
	done  chan struct{} // closed when it has ended, or is of no use any more
	info  Info          // once ready
	err   error         // once done

	write sync.Mutex // one frame at a time

	mu      sync.Mutex
	streams map[uint32]*stream
	last    uint32 // number of the newest stream
}

// Start configures a guest and begins to listen to it. Stdin is closed by [Host.Close], stdout is read to its end; lines of log
// in it go to log.
func Start(stdin io.WriteCloser, stdout io.Reader, configuration []byte, log func(line string)) *Host {
	h := &Host{
		in: stdin, log: log, streams: map[uint32]*stream{},
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	go func() { _ = h.send(Frame{Kind: Configure, Payload: configuration}) }() // a guest that is gone is noticed by its stdout
	go h.listen(stdout)
	return h
}

// Ready is closed when the guest says that it can serve.
func (h *Host) Ready() <-chan struct{} { return h.ready }

// Info is what the guest said of itself. It is known once ready.
func (h *Host) Info() Info { return h.info }

// Done is closed when the guest has ended, or what it sends is not understood.
func (h *Host) Done() <-chan struct{} { return h.done }

// Err tells why, once done: what the guest said, nil if it just ended.
func (h *Host) Err() error { return h.err }

// Close lets the guest end.
func (h *Host) Close() { _ = h.in.Close() }

func (h *Host) send(f Frame) error {
	h.write.Lock()
	defer h.write.Unlock()
	return Write(h.in, f)
}

func (h *Host) listen(stdout io.Reader) {
	r := bufio.NewReaderSize(stdout, 32<<10)
	var err error
	for err == nil {
		var f Frame
		if f, err = Read(r, h.log); err == nil {
			err = h.take(f)
		}
	}
	if !errors.Is(err, io.EOF) {
		h.err = err
	}
	close(h.done)
	_, _ = io.Copy(io.Discard, r) // it must not hang on a pipe that nobody reads
}

// take deals with a frame of the guest's. An error means that the guest is of no use.
func (h *Host) take(f Frame) error {
	switch f.Kind {
	case Ready:
		if err := json.Unmarshal(f.Payload, &h.info); err != nil || h.info.Slots < 1 {
			return fmt.Errorf("%w: ready with %q", errProtocol, f.Payload)
		}
		select {
		case <-h.ready:
			return fmt.Errorf("%w: ready twice", errProtocol)
		default:
			close(h.ready)
		}
		return nil
	case Failed:
		h.log(string(f.Payload)) // beside what else it printed
		return errors.New(string(f.Payload))
	case Head, Data, End:
		h.deliver(f)
		return nil
	default:
		return fmt.Errorf("%w: kind %q", errProtocol, f.Kind)
	}
}

// deliver gives a frame to who waits for it. It never blocks: one slow client must not hold up the others. What collects is
// bounded by what a context holds.
func (h *Host) deliver(f Frame) {
	h.mu.Lock()
	s := h.streams[f.Stream]
	if f.Kind == End {
		delete(h.streams, f.Stream)
	}
	h.mu.Unlock()
	if s != nil {
		s.put(f)
	}
}

// open makes a stream with a number of its own.
func (h *Host) open() (uint32, *stream) {
	s := &stream{more: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.last++; h.last != 0 && h.streams[h.last] == nil {
			break
		}
	}
	h.streams[h.last] = s
	return h.last, s
}

// stream holds the frames of one answer that were not read yet.
type stream struct {
	mu     sync.Mutex
	frames []Frame
	left   bool          // nobody reads them any more
	more   chan struct{} // holds something when there are frames
}

func (s *stream) put(f Frame) {
	s.mu.Lock()
	if !s.left {
		s.frames = append(s.frames, f)
	}
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// take returns what has come since.
func (s *stream) take() []Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames = nil
	return frames
}

// leave forgets what has come and will come.
func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames, s.left = nil, true
}
