package dialect

import "assistant/internal/openai"

// Call is one request of another API, and how its answer is given.
type Call interface {
	// Path is the OpenAI endpoint that answers it, such as "/v1/chat/completions".
	Path() string

	// Body is the request to that endpoint. It asks for a stream, and for the token counts in it, if and only if Stream is not nil.
	Body() []byte

	// Stream is what makes the client's stream of the endpoint's; nil if the client asked for a whole answer.
	Stream() Stream

	// Whole makes the client's answer of the endpoint's, whose status was 200.
	Whole(answer []byte) ([]byte, error)
}

// Stream makes a stream of one API of another's. Each method appends what the client is sent to dst. After End or Error
// nothing more is asked of it.
type Stream interface {
	// ContentType is that of the stream.
	ContentType() string

	// Chunk is one event of the endpoint's stream.
	Chunk(dst []byte, c *Chunk) []byte

	// Wait says that the model is not ready yet, in a way that clients survive; nothing if there is none.
	Wait(dst []byte) []byte

	// End is the proper end.
	End(dst []byte) []byte

	// Error ends a stream that can't go on. It may be the first that is asked for.
	Error(dst []byte, e *openai.Error) []byte
}

// ErrorBody makes the body of an error response as an API has it. The status stays.
type ErrorBody func(*openai.Error) []byte
