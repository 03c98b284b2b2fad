package caddymodule

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"assistant/activator"
	"assistant/internal/openai"
	"assistant/internal/rpc"
	pb "assistant/internal/rpc/assistantv1"
	"assistant/lifecycle"
	"assistant/modeldir"
)

// rpcInstances implements rpc.Instances.
type rpcInstances struct{ rt *runtime }

// named finds a model that the caller may use.
func (s rpcInstances) named(c *rpc.Caller, name string) (*modeldir.Model, error) {
	m, ok := named(s.rt.catalog.Load(), c.Key, name, modeldir.Chat)
	if !ok {
		return nil, openai.ModelNotFound(name)
	}
	return m, nil
}

// chosen finds out of which model, by its key, something is asked; "" = of all.
func (s rpcInstances) chosen(c *rpc.Caller, name string) (key string, err error) {
	if name == "" {
		return "", nil
	}
	m, err := s.named(c, name)
	if err != nil {
		return "", err
	}
	return m.Key, nil
}

var instanceStates = map[string]pb.InstanceState{
	string(activator.EventStarting): pb.InstanceState_INSTANCE_STATE_STARTING,
	string(activator.EventReady):    pb.InstanceState_INSTANCE_STATE_READY,
	string(activator.EventDraining): pb.InstanceState_INSTANCE_STATE_DRAINING,
	string(activator.EventStopping): pb.InstanceState_INSTANCE_STATE_STOPPING,
	string(activator.EventFailed):   pb.InstanceState_INSTANCE_STATE_FAILED,
	string(activator.EventStopped):  pb.InstanceState_INSTANCE_STATE_STOPPED,
}

// List tells what lives.
func (s rpcInstances) List(c *rpc.Caller, model string) ([]*pb.Instance, error) {
	key, err := s.chosen(c, model)
	if err != nil {
		return nil, err
	}
	var all []*pb.Instance
	for _, in := range s.rt.act.Instances() {
		if key != "" && in.Key != key || c.Key != nil && !s.rt.mayByKey(c.Key, in.Key, in.Model) {
			continue
		}
		out := &pb.Instance{
			Id: instanceID(in), Model: in.Model, State: instanceStates[in.State], Reason: in.Reason, Engine: in.Engine,
			Slots: int32(in.Slots), Active: int32(in.Leases), Served: int64(in.Served), //nolint:gosec // thousands at most
			StartTime: timestamppb.New(in.Started), MemoryBytes: in.Memory, DeviceMemoryBytes: in.Devices,
		}
		if in.IdleMS > 0 {
			out.Idle = milliseconds(in.IdleMS)
		}
		if c.Admin {
			out.Pid = int32(in.PID) //nolint:gosec // a pid has 22 bits
		}
		all = append(all, out)
	}
	return all, nil
}

// instanceID is the instance's name in logs and events.
func instanceID(in activator.InstanceStatus) string {
	return fmt.Sprintf("%s#%d", in.Key, in.Generation)
}

func milliseconds(ms float64) *durationpb.Duration {
	return durationpb.New(time.Duration(ms * float64(time.Millisecond)))
}

// Load starts a model and tells how far it is.
func (s rpcInstances) Load(ctx context.Context, c *rpc.Caller, name string, tell func(*pb.LoadModelResponse) error) error {
	m, err := s.named(c, name)
	if err != nil {
		return err
	}
	began := time.Now()
	sub := s.rt.act.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.rt.load(ctx, m) }()

	now := &pb.LoadModelResponse{Model: m.Name}
	if usual := s.rt.act.StartTakes(m.Key); usual > 0 {
		now.Usual = durationpb.New(usual)
	}
	told := pb.LoadPhase_LOAD_PHASE_UNSPECIFIED
	report := func() error {
		if now.Phase == told {
			return nil
		}
		told, now.Elapsed = now.Phase, durationpb.New(time.Since(began))
		return tell(now)
	}
	for {
		select {
		case <-sub.News():
			noteLoad(now, m.Key, sub.Take())
			if now.Phase == pb.LoadPhase_LOAD_PHASE_READY { // when the model's lease says so
				continue
			}
			if err := report(); err != nil {
				return err
			}
		case err := <-done:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return (&exchange{req: openai.Request{Model: m.Name}}).apiError(err)
			}
			noteLoad(now, m.Key, sub.Take())
			now.Phase = pb.LoadPhase_LOAD_PHASE_READY
			for _, in := range s.rt.act.Instances() {
				if in.Key == m.Key && in.State == lifecycle.Ready.String() && now.Instance == "" {
					now.Instance = instanceID(in)
				}
			}
			return report()
		}
	}
}

// noteLoad notes what events tell of a model's start.
func noteLoad(now *pb.LoadModelResponse, key string, events []activator.Event) {
	for _, e := range events {
		if e.Kind == activator.EventSnapshot {
			for _, m := range e.InUse {
				for _, in := range m.Instances {
					if m.Key == key && in.State == activator.EventStarting {
						now.Phase, now.Instance = pb.LoadPhase_LOAD_PHASE_STARTING, in.Instance
					}
				}
			}
		}
		if e.Key != key {
			continue
		}
		switch e.Kind {
		case activator.EventWaiting:
			if e.Queued > 0 && now.Phase == pb.LoadPhase_LOAD_PHASE_UNSPECIFIED {
				now.Phase = pb.LoadPhase_LOAD_PHASE_WAITING
			}
		case activator.EventStarting:
			now.Phase, now.Instance = pb.LoadPhase_LOAD_PHASE_STARTING, e.Instance
		case activator.EventReady:
			now.Phase, now.Instance = pb.LoadPhase_LOAD_PHASE_READY, e.Instance
			if e.ReadyMS > 0 {
				now.Spawn, now.Ready = milliseconds(e.SpawnMS), milliseconds(e.ReadyMS)
			}
		default:
		}
	}
}

// Unload lets a model's instances go.
func (s rpcInstances) Unload(c *rpc.Caller, name string, force bool) error {
	m, err := s.named(c, name)
	if err != nil {
		return err
	}
	s.rt.act.Unload(m.Key, force)
	return nil
}

// Watch tells what happens, as GET /assistant/events does.
func (s rpcInstances) Watch(ctx context.Context, c *rpc.Caller, name string, tell func(*pb.WatchEventsResponse) error) error {
	only, err := s.chosen(c, name)
	if err != nil {
		return err
	}
	sub := s.rt.act.Subscribe()
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sub.News():
		}
		for _, e := range sub.Take() {
			e, ok := s.rt.shown(c.Key, e)
			if !ok || only != "" && !about(e, only) {
				continue
			}
			if err := tell(eventMessage(e, only)); err != nil {
				return err
			}
		}
	}
}

// about reports whether an event is about a model, by its key, or about all of them.
func about(e activator.Event, key string) bool {
	if e.Kind == activator.EventFault { // of a file, which has no key
		return e.Model == key
	}
	return e.Key == "" || e.Key == key
}

var eventKinds = map[activator.EventKind]pb.EventKind{
	activator.EventSnapshot: pb.EventKind_EVENT_KIND_SNAPSHOT,
	activator.EventWaiting:  pb.EventKind_EVENT_KIND_WAITING,
	activator.EventCatalog:  pb.EventKind_EVENT_KIND_CATALOG,
	activator.EventFault:    pb.EventKind_EVENT_KIND_FAULT,
	activator.EventLost:     pb.EventKind_EVENT_KIND_LOST,
}

// eventMessage is an event as clients are told it. only is the key of the one model that is asked of; "" = all are.
func eventMessage(e activator.Event, only string) *pb.WatchEventsResponse {
	out := &pb.WatchEventsResponse{
		Kind: eventKinds[e.Kind], Time: timestamppb.New(e.Time), Model: e.Model, Instance: e.Instance, Reason: e.Reason, Error: e.Error,
		Queued: int32(e.Queued), Lost: int32(e.Lost), //nolint:gosec // thousands at most
	}
	if state, ok := instanceStates[string(e.Kind)]; ok {
		out.Kind, out.InstanceState = pb.EventKind_EVENT_KIND_INSTANCE, state
	}
	if e.ReadyMS > 0 {
		out.Spawn, out.Ready = milliseconds(e.SpawnMS), milliseconds(e.ReadyMS)
	}
	for _, m := range e.InUse {
		if only != "" && m.Key != only {
			continue
		}
		standing := &pb.ModelStanding{Model: m.Model, Queued: int32(m.Queued), Error: m.Error} //nolint:gosec // thousands at most
		for _, in := range m.Instances {
			standing.Instances = append(standing.Instances, &pb.Instance{
				Id: in.Instance, Model: m.Model, State: instanceStates[string(in.State)], Reason: in.Reason, StartTime: timestamppb.New(in.Started),
			})
		}
		out.Models = append(out.Models, standing)
	}
	return out
}

// Logs tells what a model's engines have printed, and with follow what they go on to.
func (s rpcInstances) Logs(ctx context.Context, c *rpc.Caller, name string, follow bool, tell func(*pb.TailLogsResponse) error) error {
	m, err := s.named(c, name)
	if err != nil {
		return err
	}
	if !follow {
		for _, p := range s.rt.act.Outputs(m.Key) {
			if lines, _, _ := p.Output.Since(0); len(lines) > 0 {
				if err := tell(&pb.TailLogsResponse{Instance: p.Instance, Lines: lines}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sub := s.rt.act.Subscribe()
	defer sub.Close()
	pieces := make(chan *pb.TailLogsResponse)
	followed := map[string]bool{}
	look := func() {
		still := map[string]bool{}
		for _, p := range s.rt.act.Outputs(m.Key) {
			if still[p.Instance] = true; !followed[p.Instance] {
				go tail(ctx, p, pieces)
			}
		}
		followed = still
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p := <-pieces:
			if err := tell(p); err != nil {
				return err
			}
		case <-sub.News():
			_ = sub.Take()
			look()
		}
	}
}

// tail hands on what an instance prints, until that has ended or ctx is done.
func tail(ctx context.Context, p activator.Printed, to chan<- *pb.TailLogsResponse) {
	for next := 0; ; {
		lines, following, more := p.Output.Since(next)
		next = following
		if len(lines) > 0 {
			select {
			case to <- &pb.TailLogsResponse{Instance: p.Instance, Lines: lines}:
			case <-ctx.Done():
				return
			}
		}
		if more == nil {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
