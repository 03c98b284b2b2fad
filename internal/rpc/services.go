package rpc

import (
	"context"
	"iter"
	"net/http"

	"assistant/internal/hub"
	"assistant/internal/keys"
	pb "assistant/internal/rpc/assistantv1"
)

// Services is who does what the calls ask for. All of it must be given.
//
// Errors of its methods are those of [Errorf] and [Invalid], *openai.Error, those of package hub that callers tell apart, or the context's.
// Clients are told the text of any other as well, with the code INTERNAL.
type Services struct {
	Access    Access
	Models    Models
	Instances Instances
	Downloads Downloads
	Chat      http.Handler // answers POST /v1/chat/completions

	// Ready is closed when calls can be served. Serving ends when no more are to be taken: streams without an end of their own end with it.
	Ready   <-chan struct{}
	Serving context.Context

	MaxMessage int // bytes that a call's message may have
}

// Caller is who calls.
type Caller struct {
	Key     *keys.Key // nil = none is needed
	Admin   bool      // it may change things, and see how the machine is set up
	Request *http.Request
}

// Access knows who may do what.
type Access interface {
	// Identify returns who sends a request. Errors are *openai.Error.
	Identify(r *http.Request) (*Caller, error)
	// Audit notes a call that changes something, or was not allowed to, and what it ended with. caller is never nil.
	Audit(caller *Caller, action, subject string, err error)
}

// Models are those of the server, as far as a caller may see them.
type Models interface {
	List(c *Caller) []*pb.Model
	Get(c *Caller, name string) (*pb.Model, error)
	Create(ctx context.Context, c *Caller, r *pb.CreateModelRequest) (*pb.Model, error)
	Update(ctx context.Context, c *Caller, r *pb.UpdateModelRequest) (*pb.Model, error)
	Delete(ctx context.Context, c *Caller, r *pb.DeleteModelRequest) error
}

// Instances are those of the server. Models that a caller may not use do not exist for it. An error of tell ends what tells.
type Instances interface {
	List(c *Caller, model string) ([]*pb.Instance, error)
	Load(ctx context.Context, c *Caller, model string, tell func(*pb.LoadModelResponse) error) error
	Unload(c *Caller, model string, force bool) error
	Watch(ctx context.Context, c *Caller, model string, tell func(*pb.WatchEventsResponse) error) error
	Logs(ctx context.Context, c *Caller, model string, follow bool, tell func(*pb.TailLogsResponse) error) error
}

// Downloads brings models: *hub.Manager does.
type Downloads interface {
	Start(source string, o hub.StartOptions) (hub.Status, error)
	List() []hub.Status
	Get(id string) (hub.Status, bool)
	Watch(ctx context.Context, id string) iter.Seq[hub.Status]
	Pause(id string) (hub.Status, error)
	Resume(id string) (hub.Status, error)
	Cancel(id string) (hub.Status, error)
}
