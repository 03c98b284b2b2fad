package rpc

import (
	"context"

	pb "assistant/internal/rpc/assistantv1"
)

// models is the ModelService.
type models struct{ Models }

func (s models) ListModels(ctx context.Context, _ *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return &pb.ListModelsResponse{Models: s.List(callerOf(ctx))}, nil
}

func (s models) GetModel(ctx context.Context, r *pb.GetModelRequest) (*pb.GetModelResponse, error) {
	if err := required("name", r.Name); err != nil {
		return nil, err
	}
	m, err := s.Get(callerOf(ctx), r.Name)
	return &pb.GetModelResponse{Model: m}, err
}

func (s models) CreateModel(ctx context.Context, r *pb.CreateModelRequest) (*pb.CreateModelResponse, error) {
	if r.Definition == nil {
		return nil, Invalid("definition", "say what the model is: give fields, such as {\"model_path\": \"/data/model.gguf\"}, or toml")
	}
	m, err := s.Create(ctx, callerOf(ctx), r)
	return &pb.CreateModelResponse{Model: m}, err
}

func (s models) UpdateModel(ctx context.Context, r *pb.UpdateModelRequest) (*pb.UpdateModelResponse, error) {
	if err := required("name", r.Name); err != nil {
		return nil, err
	}
	if r.Change == nil {
		return nil, Invalid("change", "say what is to change: give fields, such as {\"ctx_size\": 8192}, or toml")
	}
	m, err := s.Update(ctx, callerOf(ctx), r)
	return &pb.UpdateModelResponse{Model: m}, err
}

func (s models) DeleteModel(ctx context.Context, r *pb.DeleteModelRequest) (*pb.DeleteModelResponse, error) {
	if err := required("name", r.Name); err != nil {
		return nil, err
	}
	return &pb.DeleteModelResponse{}, s.Delete(ctx, callerOf(ctx), r)
}

// required refuses a field that is missing.
func required(field, value string) error {
	if value == "" {
		return Invalid(field, "must not be empty")
	}
	return nil
}
