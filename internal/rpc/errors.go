package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"assistant/internal/hub"
	"assistant/internal/openai"
)

// domain is whose reasons are in the details of errors (google.rpc.ErrorInfo).
const domain = "assistant"

// Errorf makes an error with a reason for programs, such as model_not_found.
func Errorf(code connect.Code, reason, format string, args ...any) error {
	return detailed(connect.Errorf(code, format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: domain})
}

// Invalid makes an error that blames a field of the request, named as the .proto names it.
func Invalid(field, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	return detailed(connect.NewError(connect.CodeInvalidArgument, field+": "+message),
		&errdetails.ErrorInfo{Reason: "invalid_argument", Domain: domain}, violation(field, message))
}

func violation(field, message string) *errdetails.BadRequest {
	return &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: message}}}
}

func detailed(e *connect.Error, details ...proto.Message) *connect.Error {
	for _, d := range details {
		if detail, err := connectproto.NewErrorDetail(d); err == nil { // such messages can always be encoded
			e = e.WithDetail(detail)
		}
	}
	return e
}

// toWire makes all errors ones that clients are told.
func toWire(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		return wireError(next(ctx, spec, stream))
	}
}

func wireError(err error) error {
	var known *connect.Error
	var api *openai.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &api):
		return fromAPI(api)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the call's deadline has passed")
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "the client has left")
	case errors.Is(err, hub.ErrNotFound):
		return Errorf(connect.CodeNotFound, "download_not_found", "%v", err)
	case errors.Is(err, hub.ErrEnded):
		return Errorf(connect.CodeFailedPrecondition, "download_ended", "%v", err)
	case errors.Is(err, hub.ErrClosed):
		return Errorf(connect.CodeUnavailable, openai.CodeShuttingDown, "%v", err)
	}
	return Errorf(connect.CodeInternal, "internal", "%v", err)
}

// fromAPI makes gRPC's error of one that HTTP clients are told.
func fromAPI(e *openai.Error) *connect.Error {
	reason := e.Code
	if reason == "" {
		reason = e.Type
	}
	out := detailed(connect.NewError(codeOf(e), e.Message), &errdetails.ErrorInfo{Reason: reason, Domain: domain})
	if e.Param != "" {
		out = detailed(out, violation(e.Param, e.Message))
	}
	if e.RetryAfter > 0 {
		out = detailed(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter.Round(time.Millisecond))})
	}
	return out
}

// codeOf is gRPC's code for a status. What is not to be tried again must not be UNAVAILABLE: libraries try that again by themselves.
func codeOf(e *openai.Error) connect.Code {
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusConflict:
		return connect.CodeAborted
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return connect.CodeDeadlineExceeded
	case http.StatusBadGateway:
		if e.ShouldRetry == nil || *e.ShouldRetry {
			return connect.CodeUnavailable
		}
	}
	return connect.CodeInternal
}
