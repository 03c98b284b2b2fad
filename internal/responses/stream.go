package responses

import (
	"encoding/json"

	"assistant/internal/dialect"
	"assistant/internal/openai"
)

// stream implements [dialect.Stream].
type stream struct {
	call  *Call
	build *builder
	begun bool
}

// ContentType implements [dialect.Stream].
func (s *stream) ContentType() string { return "text/event-stream" }

// Chunk implements [dialect.Stream].
func (s *stream) Chunk(dst []byte, c *dialect.Chunk) []byte {
	s.begin(dst)
	s.build.add(c)
	return s.taken()
}

// Wait implements [dialect.Stream]. The first one begins the response: clients can show that there is one, and its id.
func (s *stream) Wait(dst []byte) []byte {
	if s.begun {
		return append(dst, ": waiting for the model\n"...)
	}
	s.begin(dst)
	return s.taken()
}

// End implements [dialect.Stream].
func (s *stream) End(dst []byte) []byte {
	s.begin(dst)
	r := s.call.keep(s.build.end())
	s.build.tell(event{Type: "response." + r.Status, Response: r})
	return s.taken()
}

// Error implements [dialect.Stream]. A response that has begun fails.
func (s *stream) Error(dst []byte, e *openai.Error) []byte {
	s.build.dst = dst
	if s.begun {
		r := s.call.keep(s.build.fail(e))
		s.build.tell(event{Type: "response." + r.Status, Response: r})
		return s.taken()
	}
	s.build.write("error", openai.Marshal(newErrorEvent(renamed(e))))
	return s.taken()
}

// errorEvent is how a stream ends that never began a response. The fields are those that the API's reference has; what OpenAI sends
// has them within Error, and that is what makes its Python and Node SDKs raise it.
type errorEvent struct {
	Type     string          `json:"type"`
	Code     *string         `json:"code"`
	Message  string          `json:"message"`
	Param    *string         `json:"param"`
	Sequence int             `json:"sequence_number"` // 0: it is the only event
	Error    json.RawMessage `json:"error"`
}

func newErrorEvent(e *openai.Error) *errorEvent {
	var of struct {
		Error json.RawMessage `json:"error"`
	}
	_ = json.Unmarshal(e.JSON(), &of) // it is ours
	is := &errorEvent{Error: of.Error}
	_ = json.Unmarshal(of.Error, is)
	is.Type = "error"
	return is
}

// begin makes what is told go to dst, and begins the response if that is still to be done.
func (s *stream) begin(dst []byte) {
	s.build.dst = dst
	if !s.begun {
		s.begun = true
		s.build.begin()
	}
}

// taken is what was told.
func (s *stream) taken() []byte {
	dst := s.build.dst
	s.build.dst = nil
	return dst
}
