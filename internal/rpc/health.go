package rpc

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"assistant/internal/rpc/assistantv1/assistantv1connect"
)

// gRPC's health checks (https://grpc.io/docs/guides/health-checking).
const (
	healthService = "grpc.health.v1.Health"
	healthWatch   = "/" + healthService + "/Watch"
)

// health tells whether calls are served. All services are or none is.
type health struct{ Services }

func registerHealth(server *connect.Server, s Services) {
	h := health{s}
	service := grpc_health_v1.File_grpc_health_v1_health_proto.Services().ByName("Health")
	method := func(name protoreflect.Name, kind connect.StreamType, serve connect.ServerFunc) connect.Method {
		spec := connect.Spec{Procedure: "/" + healthService + "/" + string(name), StreamType: kind, Schema: service.Methods().ByName(name)}
		return connect.Method{Spec: spec, Handler: serve}
	}
	server.Register(
		method("Check", connect.StreamTypeUnary, h.check),
		method("List", connect.StreamTypeUnary, h.list),
		method("Watch", connect.StreamTypeServer, h.watch),
	)
}

// services are those that have a health, "" for the server as a whole.
var services = []string{
	"", assistantv1connect.ModelServiceName, assistantv1connect.InstanceServiceName, assistantv1connect.DownloadServiceName,
	assistantv1connect.ChatServiceName,
}

// status is the health of a service.
func (h health) status(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	known := false
	for _, s := range services {
		known = known || s == service
	}
	select {
	case <-h.Ready:
	default:
		if known {
			return grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
	}
	switch {
	case !known:
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	case h.Serving.Err() != nil:
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

func (h health) check(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var req grpc_health_v1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return err
	}
	status := h.status(req.Service)
	if status == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return Errorf(connect.CodeNotFound, "service_not_found", "there is no service %q", req.Service)
	}
	return stream.Send(&grpc_health_v1.HealthCheckResponse{Status: status})
}

func (h health) list(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
	if err := stream.Receive(new(grpc_health_v1.HealthListRequest)); err != nil {
		return err
	}
	res := &grpc_health_v1.HealthListResponse{Statuses: map[string]*grpc_health_v1.HealthCheckResponse{}}
	for _, s := range services {
		res.Statuses[s] = &grpc_health_v1.HealthCheckResponse{Status: h.status(s)}
	}
	return stream.Send(res)
}

// watch tells the health now, and when it changes: once, if the server was not ready yet.
func (h health) watch(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var req grpc_health_v1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return err
	}
	ready := h.Ready
	for {
		status := h.status(req.Service)
		if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: status}); err != nil {
			return err
		}
		if status == grpc_health_v1.HealthCheckResponse_SERVING {
			ready = nil
		}
		select {
		case <-ready:
			ready = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
