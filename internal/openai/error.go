package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Values of Error.Type, as the OpenAI API spells them.
const (
	TypeInvalidRequest = "invalid_request_error"
	TypeRateLimit      = "rate_limit_error"
	TypeQuota          = "insufficient_quota"
	TypeServer         = "server_error"
)

// Values of Error.Code that clients and metrics may rely on.
const (
	CodeModelNotFound = "model_not_found"
	CodeModelLoading  = "model_loading"
	CodeEngineFailed  = "engine_failed"
	CodeEngineCrashed = "engine_crashed"
	CodeShuttingDown  = "shutting_down"
	CodeRateLimit     = "rate_limit_exceeded"
	CodeQuota         = "insufficient_quota"
	CodeTooLarge      = "request_too_large"
	CodeUnserved      = "unsupported_model"
	CodeTimeout       = "timeout"

	CodeDownloading    = "model_downloading"
	CodeDownloadFailed = "download_failed"
)

// maxRetryAfter is the longest wait we ask for: the official SDKs give up on a Retry-After beyond 120 s, and a
// client that comes back each minute keeps its place in nobody's way.
const maxRetryAfter = time.Minute

// Error is an API error as a client sees it. Param and Code are null on the wire when empty.
type Error struct {
	Status  int    // HTTP status
	Message string // one sentence for a human
	Type    string // one of the Type constants
	Param   string // the request field at fault, if one is
	Code    string // for programs

	Allow       string        // the Allow header of a 405
	RetryAfter  time.Duration // 0 = say nothing about when to come back
	ShouldRetry *bool         // the x-should-retry header, which official SDKs obey; nil = leave it to them
}

func (e *Error) Error() string { return e.Message }

// wireError is the error object: the API's schema requires all four fields.
type wireError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

// JSON returns the error object, without a newline at its end.
func (e *Error) JSON() []byte {
	var wire wireError
	wire.Error.Message = strings.ToValidUTF8(e.Message, "\uFFFD")
	wire.Error.Type = e.Type
	if e.Param != "" {
		wire.Error.Param = &e.Param
	}
	if e.Code != "" {
		wire.Error.Code = &e.Code
	}
	return Marshal(wire)
}

// WriteTo answers a request with e. Nothing may have been written to w before. Errors of the connection are
// ignored: there is nobody left to tell.
func (e *Error) WriteTo(w http.ResponseWriter) {
	h := w.Header()
	h.Del("Content-Length") // of the answer that was meant to be
	h.Del("Content-Encoding")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	if e.Allow != "" {
		h.Set("Allow", e.Allow)
	}
	if e.RetryAfter > 0 {
		wait := min(e.RetryAfter, maxRetryAfter)
		h.Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
		h.Set("Retry-After-Ms", strconv.FormatInt(int64((wait+time.Millisecond-1)/time.Millisecond), 10))
	}
	if e.ShouldRetry != nil {
		h.Set("X-Should-Retry", strconv.FormatBool(*e.ShouldRetry))
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(e.JSON(), '\n'))
}

// StreamError is the event that ends a stream whose status line has gone out already. The stream must then be
// closed without [DONE]: official SDKs raise the error when they read it.
func StreamError(err *Error) []byte {
	return fmt.Appendf(nil, "data: %s\n\n", err.JSON())
}

// InvalidRequest blames the request. param may be empty.
func InvalidRequest(param, message string) *Error {
	return &Error{Status: http.StatusBadRequest, Type: TypeInvalidRequest, Param: param, Message: message}
}

// BadJSON says that the body could not be read as a JSON object.
func BadJSON(detail string) *Error {
	return InvalidRequest("", "could not read the request body as a JSON object: "+detail)
}

// ModelRequired says that the request names no model.
func ModelRequired() *Error {
	return InvalidRequest("model", `you must name a model in "model"`)
}

// ModelNotFound says that the catalog has no such model.
func ModelNotFound(name string) *Error {
	return &Error{
		Status: http.StatusNotFound, Type: TypeInvalidRequest, Param: "model", Code: CodeModelNotFound,
		Message: fmt.Sprintf("the model %q does not exist", name),
	}
}

// NotFound says that what a field names is not here.
func NotFound(field, what string) *Error {
	return &Error{Status: http.StatusNotFound, Type: TypeInvalidRequest, Param: field, Code: "not_found", Message: what}
}

// PathNotFound says that nothing is served at a path, in the words of OpenAI's own server.
func PathNotFound(method, path string) *Error {
	return &Error{
		Status: http.StatusNotFound, Type: TypeInvalidRequest, Code: "unknown_url",
		Message: fmt.Sprintf("Unknown request URL: %s %s", method, path),
	}
}

// MethodNotAllowed names the methods that are allowed, such as "GET, HEAD".
func MethodNotAllowed(allow string) *Error {
	return &Error{
		Status: http.StatusMethodNotAllowed, Type: TypeInvalidRequest, Code: "method_not_allowed", Allow: allow,
		Message: "this address only answers " + allow,
	}
}

// Unreadable says that the model can't read what a message holds: "image" or "audio".
func Unreadable(what string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Type: TypeInvalidRequest, Param: "messages", Code: "unsupported_input",
		Message: what + " input is not supported by this model: its file names no projector (args = [\"--mmproj\", \"FILE\"])",
	}
}

// NotLoaded says that the model is not loaded, to a client that does not want it to be for its request.
func NotLoaded(name string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Type: TypeInvalidRequest, Param: "model", Code: "model_not_loaded",
		Message: fmt.Sprintf("the model %q is not loaded, and autoload=false asks that no request loads it", name),
	}
}

// TooLarge says that the body is longer than limit bytes.
func TooLarge(limit int64) *Error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge, Type: TypeInvalidRequest, Code: CodeTooLarge,
		Message: fmt.Sprintf("the request body is larger than %d bytes", limit),
	}
}

// UnsupportedMedia refuses a Content-Type.
func UnsupportedMedia(contentType string) *Error {
	return &Error{
		Status: http.StatusUnsupportedMediaType, Type: TypeInvalidRequest, Code: "unsupported_media_type",
		Message: fmt.Sprintf("the content type %q is not supported here", contentType),
	}
}

// InvalidKey says that the request's API key is not accepted.
func InvalidKey(why string) *Error {
	return &Error{
		Status: http.StatusUnauthorized, Type: TypeInvalidRequest, Code: "invalid_api_key",
		Message: why + ": send one that this server knows, as Authorization: Bearer KEY",
	}
}

// ForeignOrigin says that pages of an origin may not use this server.
func ForeignOrigin(origin string) *Error {
	return &Error{
		Status: http.StatusForbidden, Type: TypeInvalidRequest, Code: "origin_not_allowed",
		Message: fmt.Sprintf("pages of %s may not use this server: name it in cors_origins", origin),
	}
}

// KeyLimit says that an API key has used what it may; retryAfter is when it may go on, 0 if that depends on its other requests.
func KeyLimit(why string, retryAfter time.Duration) *Error {
	return &Error{
		Status: http.StatusTooManyRequests, Type: TypeRateLimit, Code: CodeRateLimit, RetryAfter: max(retryAfter, time.Second), Message: why,
	}
}

// KeyQuota says that an API key has used up what it may for so long that trying again is of no use.
func KeyQuota(why string) *Error {
	return &Error{
		Status: http.StatusTooManyRequests, Type: TypeQuota, Code: CodeQuota, Message: why, ShouldRetry: new(bool),
	}
}

// Unserved says that the model's engine serves no models of its kind. why tells what to do about it.
func Unserved(model, why string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Type: TypeInvalidRequest, Param: "model", Code: CodeUnserved,
		Message: fmt.Sprintf("the model %q cannot be served: %s", model, why),
	}
}

// QueueFull says that too many requests wait already; retryAfter is a guess at when there is room again.
func QueueFull(model string, retryAfter time.Duration) *Error {
	return &Error{
		Status: http.StatusTooManyRequests, Type: TypeRateLimit, Code: CodeRateLimit, RetryAfter: max(retryAfter, 1),
		Message: fmt.Sprintf("too many requests wait for the model %q", model),
	}
}

// Loading says that the model did not become ready in the time a request may wait; retryAfter is what is left, as
// far as past starts tell.
func Loading(model string, retryAfter time.Duration) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Type: TypeServer, Code: CodeModelLoading, RetryAfter: max(retryAfter, 1),
		Message: fmt.Sprintf("the model %q is still loading", model),
	}
}

// Downloading says that the model's files are being brought here. how tells how far that is; retryAfter is how long it will take.
func Downloading(model, how string, retryAfter time.Duration) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Type: TypeServer, Code: CodeDownloading, RetryAfter: max(retryAfter, time.Second),
		Message: fmt.Sprintf("the model %q is being downloaded: %s", model, how),
	}
}

// DownloadFailed says that the model's files can't be had; retryAfter is when a request makes it be tried again.
func DownloadFailed(model, why string, retryAfter time.Duration) *Error {
	return &Error{
		Status: http.StatusBadGateway, Type: TypeServer, Code: CodeDownloadFailed, RetryAfter: retryAfter, ShouldRetry: new(bool),
		Message: fmt.Sprintf("the model %q could not be downloaded: %s", model, why),
	}
}

// AdminOnly says that an API key, or who has none ("") and is elsewhere, may use models but not manage them.
func AdminOnly(key string) *Error {
	who := fmt.Sprintf("the API key %q", key)
	if key == "" {
		who = "who is not on the server's own machine"
	}
	return &Error{
		Status: http.StatusForbidden, Type: TypeInvalidRequest, Code: "permission_denied",
		Message: who + " may not manage models: use a key with the right admin",
	}
}

// EngineFailed says that the model's engine can't be had. detail is what is known of the reason, such as the last
// lines of its stderr. Clients are told not to try again at once: a failed start has a back-off longer than theirs.
func EngineFailed(model, detail string) *Error {
	message := fmt.Sprintf("the engine of the model %q failed", model)
	if detail = strings.TrimSpace(detail); detail != "" {
		message += ": " + detail
	}
	return &Error{
		Status: http.StatusBadGateway, Type: TypeServer, Code: CodeEngineFailed, Message: message,
		ShouldRetry: new(bool),
	}
}

// EngineCrashed says that the engine died while it answered. The next request may well succeed.
func EngineCrashed(model string) *Error {
	return &Error{
		Status: http.StatusBadGateway, Type: TypeServer, Code: CodeEngineCrashed,
		Message: fmt.Sprintf("the engine of the model %q ended in the middle of the answer", model),
	}
}

// TooSlow says that the model was given up because it took longer than its file allows: field is the one that does.
func TooSlow(model, what, field string, limit time.Duration) *Error {
	return &Error{
		Status: http.StatusGatewayTimeout, Type: TypeServer, Code: CodeTimeout,
		Message: fmt.Sprintf("the model %q had %s within %v, which is its %s", model, what, limit, field),
	}
}

// ShuttingDown says that this server is going away; another may take its place within a second.
func ShuttingDown() *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Type: TypeServer, Code: CodeShuttingDown, RetryAfter: time.Second,
		Message: "the server is shutting down",
	}
}

// Marshal is json.Marshal without HTML escaping, as engines write JSON. v must be a type that can't fail.
func Marshal(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
