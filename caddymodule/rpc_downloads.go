package caddymodule

import (
	"context"
	"errors"
	"iter"

	"assistant/internal/hub"
	"assistant/internal/rpc"
)

// rpcDownloads brings models for calls. They come when a configuration is in force, and with it a manager.
type rpcDownloads struct{ rt *runtime }

func (d rpcDownloads) Start(src string, o hub.StartOptions) (hub.Status, error) {
	if o.As == "" {
		return d.rt.hub.Load().Start(src, o)
	}
	s, err := d.rt.pull(src, o.As)
	if wrong := (nameError{}); errors.As(err, &wrong) {
		return s, rpc.Invalid("name", "%v", wrong)
	}
	return s, err
}

func (d rpcDownloads) List() []hub.Status                   { return d.rt.hub.Load().List() }
func (d rpcDownloads) Get(id string) (hub.Status, bool)     { return d.rt.hub.Load().Get(id) }
func (d rpcDownloads) Pause(id string) (hub.Status, error)  { return d.rt.hub.Load().Pause(id) }
func (d rpcDownloads) Resume(id string) (hub.Status, error) { return d.rt.hub.Load().Resume(id) }
func (d rpcDownloads) Cancel(id string) (hub.Status, error) { return d.rt.hub.Load().Cancel(id) }
func (d rpcDownloads) Watch(ctx context.Context, id string) iter.Seq[hub.Status] {
	return d.rt.hub.Load().Watch(ctx, id)
}
