package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"assistant/internal/hub"
	pb "assistant/internal/rpc/assistantv1"
	"assistant/internal/rpc/assistantv1/assistantv1connect"
)

// downloads is the DownloadService.
type downloads struct{ Downloads }

func (s downloads) StartDownload(ctx context.Context, r *pb.StartDownloadRequest) (*pb.StartDownloadResponse, error) {
	if err := required("source", r.Source); err != nil {
		return nil, err
	}
	if key := callerOf(ctx).Key; key != nil && r.Name != "" && !key.May(r.Name) {
		return nil, Errorf(connect.CodePermissionDenied, "model_not_allowed", "the key %q may not use a model with the name %q", key.Name, r.Name)
	}
	d, err := s.Start(r.Source, hub.StartOptions{As: r.Name})
	var told *connect.Error
	switch {
	case errors.Is(err, hub.ErrClosed), errors.As(err, &told):
		return nil, err
	case err != nil: // it is no source
		return nil, Invalid("source", "%v", err)
	}
	return &pb.StartDownloadResponse{Download: download(d)}, nil
}

func (s downloads) WatchDownload(ctx context.Context, r *pb.WatchDownloadRequest, to assistantv1connect.DownloadServiceWatchDownloadServerStream) error {
	if err := required("id", r.Id); err != nil {
		return err
	}
	if _, ok := s.Get(r.Id); !ok {
		return fmt.Errorf("download %q: %w", r.Id, hub.ErrNotFound)
	}
	for d := range s.Watch(ctx, r.Id) {
		if err := to.Send(&pb.WatchDownloadResponse{Download: download(d)}); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (s downloads) ListDownloads(context.Context, *pb.ListDownloadsRequest) (*pb.ListDownloadsResponse, error) {
	res := &pb.ListDownloadsResponse{}
	for _, d := range s.List() {
		res.Downloads = append(res.Downloads, download(d))
	}
	return res, nil
}

func (s downloads) PauseDownload(_ context.Context, r *pb.PauseDownloadRequest) (*pb.PauseDownloadResponse, error) {
	d, err := one(s.Pause, r.Id)
	return &pb.PauseDownloadResponse{Download: d}, err
}

func (s downloads) ResumeDownload(_ context.Context, r *pb.ResumeDownloadRequest) (*pb.ResumeDownloadResponse, error) {
	d, err := one(s.Resume, r.Id)
	return &pb.ResumeDownloadResponse{Download: d}, err
}

func (s downloads) CancelDownload(_ context.Context, r *pb.CancelDownloadRequest) (*pb.CancelDownloadResponse, error) {
	d, err := one(s.Cancel, r.Id)
	return &pb.CancelDownloadResponse{Download: d}, err
}

// one does something to a download.
func one(do func(id string) (hub.Status, error), id string) (*pb.Download, error) {
	if err := required("id", id); err != nil {
		return nil, err
	}
	d, err := do(id)
	if err != nil {
		return nil, err
	}
	return download(d), nil
}

var downloadStates = map[hub.State]pb.DownloadState{
	hub.Resolving:   pb.DownloadState_DOWNLOAD_STATE_RESOLVING,
	hub.Downloading: pb.DownloadState_DOWNLOAD_STATE_DOWNLOADING,
	hub.Verifying:   pb.DownloadState_DOWNLOAD_STATE_VERIFYING,
	hub.Paused:      pb.DownloadState_DOWNLOAD_STATE_PAUSED,
	hub.Completed:   pb.DownloadState_DOWNLOAD_STATE_COMPLETED,
	hub.Failed:      pb.DownloadState_DOWNLOAD_STATE_FAILED,
	hub.Cancelled:   pb.DownloadState_DOWNLOAD_STATE_CANCELLED,
}

func download(s hub.Status) *pb.Download {
	d := &pb.Download{
		Id: s.ID, Source: s.Source, Resolved: s.Resolved, Name: s.Name, State: downloadStates[s.State],
		DoneBytes: s.Done, TotalBytes: known(s.Total), BytesPerSecond: s.BytesPerSec,
		ModelNames: s.As, Quantization: s.Quantization, Licence: s.Licence, Error: s.Error, StartTime: moment(s.Started), EndTime: moment(s.Ended),
	}
	if s.State == hub.Downloading && s.BytesPerSec > 0 && s.Total >= s.Done {
		d.Remaining = durationpb.New(time.Duration(float64(s.Total-s.Done) / s.BytesPerSec * float64(time.Second)).Round(time.Millisecond))
	}
	for _, f := range s.Files {
		d.Files = append(d.Files, &pb.DownloadFile{
			Name: f.Name, Role: f.Role, Sha256: f.SHA256, Path: f.Path, DoneBytes: f.Done, TotalBytes: known(f.Total),
		})
	}
	return d
}

// known is a number of bytes, absent if it is not known.
func known(bytes int64) *int64 {
	if bytes < 0 {
		return nil
	}
	return &bytes
}

// moment is a time, absent if there is none.
func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
