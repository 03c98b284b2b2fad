package guest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ServeHTTP hands a request to the guest and its answer to the client. An answer that breaks off, because the guest ended,
// breaks off for the client as well. When the client leaves, the guest is told.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-h.ready:
	default:
		http.Error(w, "the guest is not ready", http.StatusServiceUnavailable)
		return
	}
	if r.Method != http.MethodPost {
		h.serveStatus(w, r)
		return
	}
	body := bytes.NewBufferString(r.URL.Path + "\n")
	if _, err := io.Copy(body, r.Body); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	id, s := h.open()
	if err := h.send(Frame{Request, id, body.Bytes()}); err != nil {
		panic(http.ErrAbortHandler)
	}
	if !h.answer(w, r, s) {
		s.leave()
		if r.Context().Err() != nil {
			_ = h.send(Frame{Kind: Cancel, Stream: id})
		}
		panic(http.ErrAbortHandler)
	}
}

// serveStatus answers for the guest, which is asked by frames only for what a model answers.
func (h *Host) serveStatus(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Path != "/health" {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, `{"status":"ok"}`)
}

// answer writes the frames of a stream as they come, to the last. It reports false if that never came.
func (h *Host) answer(w http.ResponseWriter, r *http.Request, s *stream) bool {
	flush := func() bool { return true } // an answer that comes whole is sent whole
	for gone := false; ; {
		for _, f := range s.take() {
			switch f.Kind {
			case Head:
				if !writeHead(w, string(f.Payload)) {
					return false
				}
				if strings.HasSuffix(string(f.Payload), " text/event-stream") {
					flush = func() bool { return http.NewResponseController(w).Flush() == nil }
				}
			case Data:
				if _, err := w.Write(f.Payload); err != nil {
					return false
				}
			case End:
				return true
			}
		}
		if gone || !flush() {
			return false
		}
		select {
		case <-s.more:
		case <-r.Context().Done():
			return false
		case <-h.done:
			gone = true // what it sent before its end is told
		}
	}
}

// writeHead reads "200 text/event-stream".
func writeHead(w http.ResponseWriter, line string) bool {
	var status int
	code, kind, _ := strings.Cut(line, " ")
	if _, err := fmt.Sscanf(code, "%d", &status); err != nil || status < 200 || status > 599 {
		return false
	}
	w.Header()["Content-Type"] = []string{kind}
	w.WriteHeader(status)
	return true
}
