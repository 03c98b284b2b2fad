package rpc

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	svc "assistant/internal/rpc/assistantv1/assistantv1connect"
)

// open are the services that ask for no key, as /health does.
var open = []string{healthService}

// reading are the calls of ours that any key may make. All others, those to come included, need the right admin.
var reading = []string{
	svc.ModelServiceListModelsProcedure, svc.ModelServiceGetModelProcedure,
	svc.InstanceServiceListInstancesProcedure, svc.InstanceServiceWatchEventsProcedure,
	svc.ChatServiceChatProcedure,
}

// acts are the calls that are noted in the audit log, by what they do.
var acts = map[string]string{
	svc.ModelServiceCreateModelProcedure:       "create",
	svc.ModelServiceUpdateModelProcedure:       "update",
	svc.ModelServiceDeleteModelProcedure:       "delete",
	svc.InstanceServiceLoadModelProcedure:      "load",
	svc.InstanceServiceUnloadModelProcedure:    "unload",
	svc.InstanceServiceTailLogsProcedure:       "logs",
	svc.DownloadServiceStartDownloadProcedure:  "download",
	svc.DownloadServicePauseDownloadProcedure:  "pause",
	svc.DownloadServiceResumeDownloadProcedure: "resume",
	svc.DownloadServiceCancelDownloadProcedure: "cancel",
}

// endless are the calls that go on as long as the client wants.
var endless = []string{
	svc.InstanceServiceWatchEventsProcedure, svc.InstanceServiceTailLogsProcedure, svc.DownloadServiceWatchDownloadProcedure, healthWatch,
}

type requestKey struct{}

// withRequest keeps the HTTP request for the interceptors.
func withRequest(r *http.Request) context.Context {
	return context.WithValue(r.Context(), requestKey{}, r)
}

type callerKey struct{}

// callerOf is who makes a call.
func callerOf(ctx context.Context) *Caller { return ctx.Value(callerKey{}).(*Caller) } //nolint:errcheck,forcetypeassert // authenticate put it there

// authenticate lets calls pass that may be made. It runs before a message is read.
func (s Services) authenticate(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		service, _, _ := strings.Cut(strings.TrimPrefix(spec.Procedure, "/"), "/")
		if slices.Contains(open, service) {
			return next(ctx, spec, stream)
		}
		caller, err := s.Access.Identify(ctx.Value(requestKey{}).(*http.Request)) //nolint:errcheck,forcetypeassert // ServeHTTP put it there
		if err != nil {
			return err
		}
		ctx = context.WithValue(ctx, callerKey{}, caller)
		ours := strings.HasPrefix(service, "assistant.")
		if ours && !caller.Admin && !slices.Contains(reading, spec.Procedure) {
			err := notAdmin(caller)
			if action := acts[spec.Procedure]; action != "" {
				s.Access.Audit(caller, action, "", err)
			}
			return err
		}
		action := acts[spec.Procedure]
		if action == "" {
			return next(ctx, spec, stream)
		}
		seen := &subject{ServerStream: stream}
		err = next(ctx, spec, seen)
		if seen.validates {
			action = "validate"
		}
		s.Access.Audit(caller, action, seen.name, err)
		return err
	}
}

// notAdmin tells who may not what to do about it.
func notAdmin(c *Caller) error {
	if c.Key == nil {
		return Errorf(connect.CodePermissionDenied, "admin_required", "from beyond the server's own machine this needs a key with admin = true: make one by caddy assistant key new NAME --admin")
	}
	return Errorf(connect.CodePermissionDenied, "admin_required",
		"the key %q has no right to manage: use one with admin = true, made by caddy assistant key new NAME --admin", c.Key.Name)
}

// subject notes what a call is about.
type subject struct {
	connect.ServerStream
	name      string
	validates bool // nothing is to be changed
}

// Receive implements connect.ServerStream.
func (s *subject) Receive(msg any) error {
	err := s.ServerStream.Receive(msg)
	if m, ok := msg.(interface{ GetValidateOnly() bool }); ok {
		s.validates = m.GetValidateOnly()
	}
	switch m := msg.(type) {
	case interface{ GetModel() string }:
		s.name = m.GetModel()
	case interface{ GetSource() string }:
		s.name = m.GetSource()
	case interface{ GetName() string }:
		s.name = m.GetName()
	case interface{ GetId() string }:
		s.name = m.GetId()
	}
	return err
}

// endWithServer ends endless calls when the server takes no more: a reload is not to wait for them.
func (s Services) endWithServer(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if !slices.Contains(endless, spec.Procedure) {
			return next(ctx, spec, stream)
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		over := Errorf(connect.CodeUnavailable, "reloading", "the server's configuration was loaded anew, or it shuts down: call again")
		defer context.AfterFunc(s.Serving, func() { cancel(over) })()
		err := next(ctx, spec, stream)
		if s.Serving.Err() != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}
