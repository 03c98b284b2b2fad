package caddymodule

import (
	"context"
	"log/slog"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/exp/zapslog"
)

// lateHandler logs to whatever Caddy's default logger is at the time: the runtime outlives the logs of the configuration
// that it was made under.
type lateHandler struct {
	with []func(slog.Handler) slog.Handler
}

func caddyLog() slog.Handler {
	const never = slog.Level(127)
	return zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("assistant"), zapslog.AddStacktraceAt(never))
}

// Enabled implements slog.Handler.
func (h lateHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return caddyLog().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h lateHandler) Handle(ctx context.Context, r slog.Record) error {
	next := caddyLog()
	for _, with := range h.with {
		next = with(next)
	}
	return next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h lateHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h lateHandler) WithGroup(name string) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h lateHandler) then(with func(slog.Handler) slog.Handler) slog.Handler {
	return lateHandler{with: append(slices.Clip(h.with), with)}
}
