package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"assistant/internal/dialect"
	"assistant/internal/openai"
	pb "assistant/internal/rpc/assistantv1"
	"assistant/internal/rpc/assistantv1/assistantv1connect"
)

// chatPath is what a chat is over HTTP.
const chatPath = "/v1/chat/completions"

// chat is the ChatService. A call is a request to the HTTP API, within the process: so all that bounds and serves those does so for these.
type chat struct{ http http.Handler }

func (s chat) Chat(ctx context.Context, r *pb.ChatRequest, to assistantv1connect.ChatServiceChatServerStream) error {
	body, err := chatBody(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	answer, end := s.ask(ctx, callerOf(ctx).Request, body)
	defer end() // when the handler has returned: it uses the request, which is ours no longer then
	defer cancel()
	if err := passOn(answer, r.Model, to.Send); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// ours are the parameters that are not extra.
var ours = []string{"model", "messages", "max_tokens", "temperature", "stop", "stream", "stream_options", "n"}

// chatBody is the request as the HTTP API has it.
func chatBody(r *pb.ChatRequest) ([]byte, error) {
	if len(r.Messages) == 0 {
		return nil, Invalid("messages", "give at least one, such as {\"role\": \"user\", \"content\": \"Hello!\"}")
	}
	body, err := object("extra", r.Extra, ours)
	if err != nil {
		return nil, err
	}
	messages := make([]map[string]any, len(r.Messages))
	for i, m := range r.Messages {
		at := fmt.Sprintf("messages[%d]", i)
		if err := required(at+".role", m.Role); err != nil {
			return nil, err
		}
		if messages[i], err = object(at+".extra", m.Extra, []string{"role"}); err != nil {
			return nil, err
		}
		messages[i]["role"] = m.Role
		if _, parts := messages[i]["content"]; !parts {
			messages[i]["content"] = m.Content
		} else if m.Content != "" {
			return nil, Invalid(at+".content", "is in extra as well: remove one of them")
		}
	}
	body["messages"], body["stream"], body["stream_options"] = messages, true, map[string]any{"include_usage": true}
	if r.Model != "" {
		body["model"] = r.Model
	}
	if r.MaxTokens != nil {
		body["max_tokens"] = *r.MaxTokens
	}
	if r.Temperature != nil {
		body["temperature"] = *r.Temperature
	}
	if len(r.Stop) > 0 {
		body["stop"] = r.Stop
	}
	text, err := json.Marshal(body)
	if err != nil { // a number may be infinite
		return nil, Invalid("extra", "%v", err)
	}
	return text, nil
}

// object is what is extra, less what has a field of its own.
func object(field string, extra *structpb.Struct, taken []string) (map[string]any, error) {
	fields := extra.AsMap()
	for name := range fields {
		if slices.Contains(taken, name) {
			return nil, Invalid(field+"."+name, "cannot be set here: %s", instead(name))
		}
	}
	return fields, nil
}

func instead(name string) string {
	switch name {
	case "stream", "stream_options":
		return "an answer is always a stream, and ends with its usage"
	case "n":
		return "there is one answer"
	}
	return "it has a field of its own"
}

// ask begins to ask the HTTP API as the caller. end waits until that has returned.
func (s chat) ask(ctx context.Context, as *http.Request, body []byte) (answer *answer, end func()) {
	r := as.Clone(ctx)
	r.Method, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI = http.MethodPost, chatPath, "", "", chatPath
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil, nil
	for name := range r.Header {
		if ofProtocol(name) {
			r.Header.Del(name)
		}
	}
	r.Header.Set("Content-Type", "application/json")
	read, write := io.Pipe()
	answer = newAnswer(read, write)
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		defer func() {
			if recover() != nil { // http.ErrAbortHandler: what was told so far is not all
				answer.close(io.ErrUnexpectedEOF)
			}
		}()
		s.http.ServeHTTP(answer, r)
		answer.close(nil)
	}()
	return answer, func() {
		_ = read.Close()
		<-returned
	}
}

// ofProtocol reports whether a header is of the call rather than of its caller.
func ofProtocol(name string) bool {
	switch name {
	case "Accept", "Accept-Encoding", "Content-Encoding", "Content-Length", "Te":
		return true
	}
	return strings.HasPrefix(name, "Grpc-") || strings.HasPrefix(name, "Connect-")
}

// answer is an HTTP answer on its way from a handler in this process. It implements [http.ResponseWriter].
type answer struct {
	header http.Header
	status int
	known  chan struct{} // closed when the head is
	body   *io.PipeReader
	write  *io.PipeWriter
}

func newAnswer(body *io.PipeReader, write *io.PipeWriter) *answer {
	return &answer{header: http.Header{}, known: make(chan struct{}), body: body, write: write}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
		close(a.known)
	}
}

// Write implements http.ResponseWriter. It returns when what is written was read.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.write.Write(p)
}

// Flush implements http.Flusher.
func (a *answer) Flush() {}

func (a *answer) close(err error) {
	a.WriteHeader(http.StatusBadGateway) // unless there was one
	_ = a.write.CloseWithError(err)
}

// passOn tells a stream of OpenAI's API, piece by piece. model is what the caller calls it.
func passOn(a *answer, model string, tell func(*pb.ChatResponse) error) error {
	<-a.known
	if !openai.IsStream(a.status, a.header) {
		return a.refusal()
	}
	events := openai.NewEventReader(a.body)
	for {
		event, err := events.Next()
		switch {
		case err == nil && string(event) == "[DONE]", errors.Is(err, io.EOF):
			_, err = io.Copy(io.Discard, a.body) // the handler is to come to its end
			return err
		case err != nil:
			return openai.EngineCrashed(model)
		}
		chunk, err := dialect.ReadChunk(event)
		if err != nil {
			return err
		}
		if err := tell(piece(chunk)); err != nil {
			return err
		}
	}
}

// refusal is the error that an answer tells of.
func (a *answer) refusal() error {
	const longest = 64 << 10
	said, err := io.ReadAll(io.LimitReader(a.body, longest))
	if err != nil {
		return err
	}
	e := openai.ReadError(a.status, said)
	if ms, err := strconv.ParseInt(a.header.Get("Retry-After-Ms"), 10, 64); err == nil {
		e.RetryAfter = time.Duration(ms) * time.Millisecond
	}
	if retry, err := strconv.ParseBool(a.header.Get("X-Should-Retry")); err == nil {
		e.ShouldRetry = &retry
	}
	return e
}

func piece(c *dialect.Chunk) *pb.ChatResponse {
	p := &pb.ChatResponse{
		Id: c.ID, Model: c.Model, Content: c.Text, Reasoning: c.Reasoning, Refusal: c.Refusal, FinishReason: c.Finish,
	}
	for _, call := range c.ToolCalls {
		p.ToolCalls = append(p.ToolCalls, &pb.ToolCall{Index: int32(call.Index), Id: call.ID, Name: call.Name, Arguments: call.Arguments}) //nolint:gosec // a few
	}
	if u := c.Usage; u != nil {
		p.Usage = &pb.ChatUsage{
			PromptTokens: int64(u.Prompt), CompletionTokens: int64(u.Completion), CachedTokens: int64(u.Cached), ReasoningTokens: int64(u.Reasoning),
		}
	}
	return p
}
