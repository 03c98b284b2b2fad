package dialect

import (
	"bytes"
	"net/http"
	"strconv"

	"assistant/internal/openai"
)

// maxWhole bounds an answer that is not streamed, in bytes. The longest contexts fill about 4 MiB of text; vectors are larger.
const maxWhole = 64 << 20

// Writer is the client of another API, to whoever answers it as one of OpenAI's. Errors take that API's form whatever wrote them,
// also before the request is understood.
type Writer struct {
	w     http.ResponseWriter
	error ErrorBody
	call  Call // nil before the request is understood

	status int // of the answer, 0 before it is known
	stream Stream
	ended  bool   // the stream has had its end
	held   []byte // of an answer that is given when it is whole; of a stream, what is not an event yet
	data   []byte // of the event that is being read
	out    []byte // for the client, kept for its memory
}

// NewWriter returns a writer to w.
func NewWriter(w http.ResponseWriter, errors ErrorBody) *Writer { return &Writer{w: w, error: errors} }

// Answers makes what is written from now on the answer to a call.
func (t *Writer) Answers(call Call) { t.call = call }

// Header implements [http.ResponseWriter].
func (t *Writer) Header() http.Header { return t.w.Header() }

// WriteHeader implements [http.ResponseWriter]. Only a stream's goes out at once.
func (t *Writer) WriteHeader(status int) {
	if status < http.StatusOK { // 1xx
		t.w.WriteHeader(status)
		return
	}
	if t.status != 0 {
		return
	}
	t.status = status
	if t.call == nil || status != http.StatusOK {
		return
	}
	if t.stream = t.call.Stream(); t.stream == nil {
		return
	}
	h := t.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", t.stream.ContentType())
	h.Set("Cache-Control", "no-cache")
	t.w.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (t *Writer) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.stream == nil {
		if len(t.held)+len(p) > maxWhole {
			return 0, openai.ErrEventTooLarge
		}
		t.held = append(t.held, p...)
		return len(p), nil
	}
	t.out = t.out[:0]
	t.read(p)
	if len(t.out) > 0 {
		if _, err := t.w.Write(t.out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// read takes in a piece of the endpoint's stream. Lines are read as RFC-less servers send them: ended by LF or CRLF.
func (t *Writer) read(p []byte) {
	for len(p) > 0 && !t.ended {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		if !whole || len(t.held) > 0 {
			t.held = append(t.held, line...)
			line = t.held
		}
		if len(line)+len(t.data) > openai.MaxEvent {
			t.fail(&openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeEngineFailed, Message: openai.ErrEventTooLarge.Error()})
			return
		}
		if !whole {
			return
		}
		t.line(bytes.TrimSuffix(line, []byte("\r")))
		t.held = t.held[:0]
		p = rest
	}
}

func (t *Writer) line(line []byte) {
	switch {
	case len(line) == 0:
		if len(t.data) > 0 {
			t.event(t.data)
		}
		t.data = t.data[:0]
	case line[0] == ':':
		if len(t.data) == 0 {
			t.out = t.stream.Wait(t.out)
		}
	default:
		value, isData := bytes.CutPrefix(line, []byte("data:"))
		if !isData {
			return
		}
		if len(t.data) > 0 {
			t.data = append(t.data, '\n')
		}
		t.data = append(t.data, bytes.TrimPrefix(value, []byte(" "))...)
	}
}

func (t *Writer) event(data []byte) {
	switch string(data) {
	case "null": // llama.cpp b11669 starts some streams so
		return
	case "[DONE]":
		t.ended = true
		t.out = t.stream.End(t.out)
		return
	}
	c, err := ReadChunk(data)
	if err != nil {
		t.fail(asError(err))
		return
	}
	t.out = t.stream.Chunk(t.out, c)
}

func (t *Writer) fail(e *openai.Error) {
	if !t.ended {
		t.ended = true
		t.out = t.stream.Error(t.out, e)
	}
}

// asError makes an API error of what is wrong with an engine's answer.
func asError(err error) *openai.Error {
	if e, ok := err.(*openai.Error); ok { //nolint:errorlint // nobody wraps it
		return e
	}
	return &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeEngineFailed, Message: err.Error()}
}

// FlushError sends what the client can have: of an answer that is not whole yet, nothing.
func (t *Writer) FlushError() error {
	if t.stream == nil {
		return nil
	}
	return http.NewResponseController(t.w).Flush()
}

// Unwrap is for [http.ResponseController].
func (t *Writer) Unwrap() http.ResponseWriter { return t.w }

// Fail ends an answer that broke off: a stream by its error, one that was held by an error in its place.
func (t *Writer) Fail(e *openai.Error) {
	if t.stream == nil {
		t.status, t.held = e.Status, append(t.held[:0], e.JSON()...)
		return
	}
	t.out = t.out[:0]
	t.fail(e)
	_, _ = t.w.Write(t.out)
	_ = http.NewResponseController(t.w).Flush()
}

// Close gives the answer, if it was held until now, and ends a stream that was cut with an error. It is to be called when nothing more
// will be written, unless the answer was given up.
func (t *Writer) Close() {
	switch {
	case t.status == 0:
	case t.stream != nil:
		t.Fail(&openai.Error{
			Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeEngineCrashed,
			Message: "the engine ended in the middle of the answer",
		})
	case t.status != http.StatusOK:
		t.whole(t.status, t.error(openai.ReadError(t.status, t.held)))
	case t.call == nil:
		t.whole(t.status, t.held)
	default:
		body, err := t.call.Whole(t.held)
		if err != nil {
			e := asError(err)
			t.whole(e.Status, t.error(e))
			return
		}
		t.whole(http.StatusOK, body)
	}
}

func (t *Writer) whole(status int, body []byte) {
	h := t.Header()
	h.Del("Content-Encoding")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	t.w.WriteHeader(status)
	_, _ = t.w.Write(body)
}
