package rpc

import (
	"context"

	pb "assistant/internal/rpc/assistantv1"
	"assistant/internal/rpc/assistantv1/assistantv1connect"
)

// instances is the InstanceService.
type instances struct{ Instances }

func (s instances) ListInstances(ctx context.Context, r *pb.ListInstancesRequest) (*pb.ListInstancesResponse, error) {
	all, err := s.List(callerOf(ctx), r.Model)
	return &pb.ListInstancesResponse{Instances: all}, err
}

func (s instances) LoadModel(ctx context.Context, r *pb.LoadModelRequest, to assistantv1connect.InstanceServiceLoadModelServerStream) error {
	if err := required("model", r.Model); err != nil {
		return err
	}
	return s.Load(ctx, callerOf(ctx), r.Model, to.Send)
}

func (s instances) UnloadModel(ctx context.Context, r *pb.UnloadModelRequest) (*pb.UnloadModelResponse, error) {
	if err := required("model", r.Model); err != nil {
		return nil, err
	}
	return &pb.UnloadModelResponse{}, s.Unload(callerOf(ctx), r.Model, r.Force)
}

func (s instances) WatchEvents(ctx context.Context, r *pb.WatchEventsRequest, to assistantv1connect.InstanceServiceWatchEventsServerStream) error {
	return s.Watch(ctx, callerOf(ctx), r.Model, to.Send)
}

func (s instances) TailLogs(ctx context.Context, r *pb.TailLogsRequest, to assistantv1connect.InstanceServiceTailLogsServerStream) error {
	if err := required("model", r.Model); err != nil {
		return err
	}
	return s.Logs(ctx, callerOf(ctx), r.Model, r.Follow, to.Send)
}
