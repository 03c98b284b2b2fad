package rpc

import (
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"

	"assistant/internal/rpc/assistantv1/assistantv1connect"
)

// Handler serves the services. It implements [http.Handler].
type Handler struct{ mux *http.ServeMux }

// New returns a handler of the services.
func New(s Services) *Handler {
	server := connect.NewServer(toWire, s.authenticate, s.endWithServer)
	assistantv1connect.RegisterModelServiceHandler(server, models{s.Models})
	assistantv1connect.RegisterInstanceServiceHandler(server, instances{s.Instances})
	assistantv1connect.RegisterDownloadServiceHandler(server, downloads{s.Downloads})
	assistantv1connect.RegisterChatServiceHandler(server, chat{s.Chat})
	registerHealth(server, s)
	grpcreflect.Register(server)
	h := &Handler{http.NewServeMux()}
	connecthttp.Mount(h.mux, server, connecthttp.WithReadMaxBytes(s.MaxMessage))
	return h
}

// Serves reports whether a request is for one of the services.
func (h *Handler) Serves(r *http.Request) bool {
	_, pattern := h.mux.Handler(r)
	return pattern != ""
}

// ServeHTTP answers a call.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mux.ServeHTTP(flusher{w}, r.WithContext(withRequest(r)))
}

// flusher makes an http.Flusher, which connect asks for, of writers that are flushed by a controller only, as Caddy's are.
type flusher struct{ http.ResponseWriter }

// Flush implements http.Flusher.
func (f flusher) Flush() { _ = http.NewResponseController(f.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (f flusher) Unwrap() http.ResponseWriter { return f.ResponseWriter }
