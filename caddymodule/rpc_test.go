package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"assistant/internal/keys"
	pb "assistant/internal/rpc/assistantv1"
	svc "assistant/internal/rpc/assistantv1/assistantv1connect"
)

// caller is grpc-go's client: another implementation than the server's.
type caller struct {
	t    *testing.T
	conn *grpc.ClientConn
	ctx  context.Context
}

// rpcSite makes a site that serves both APIs on its port. It does not run yet.
func rpcSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.server = map[string]any{"protocols": []string{"h1", "h2c"}}
	s.before = []any{map[string]any{"handler": "assistant_rpc"}}
	return s
}

// calls returns a client that sends a key; "" = none.
func (s *site) calls(t *testing.T, key string) *caller {
	t.Helper()
	conn, err := grpc.NewClient("127.0.0.1:"+s.port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(func() {
		cancel()
		conn.Close()
	})
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}
	return &caller{t, conn, ctx}
}

// call makes a call that must work.
func call[Res any, P interface {
	*Res
	proto.Message
}](c *caller, procedure string, req proto.Message) P {
	c.t.Helper()
	res := P(new(Res))
	if err := c.conn.Invoke(c.ctx, procedure, req, res); err != nil {
		c.t.Fatalf("%s: %v", procedure, err)
	}
	return res
}

// fails makes a call that must not, and returns how it ended.
func (c *caller) fails(procedure string, req proto.Message, code codes.Code, reason string) *status.Status {
	c.t.Helper()
	err := c.conn.Invoke(c.ctx, procedure, req, new(pb.GetModelResponse))
	st := status.Convert(err)
	if st.Code() != code || reasonOf(st) != reason {
		c.t.Errorf("%s: %v, %s (%s); want %v, %s", procedure, st.Code(), reasonOf(st), st.Message(), code, reason)
	}
	return st
}

func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "assistant" {
			return info.Reason
		}
	}
	return ""
}

func blamed(st *status.Status) string {
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			return bad.FieldViolations[0].Field
		}
	}
	return ""
}

// open begins a stream from the server.
func (c *caller) open(procedure string, req proto.Message) grpc.ClientStream {
	c.t.Helper()
	stream, err := c.conn.NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true}, procedure)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend()); err != nil {
		c.t.Fatal(err)
	}
	return stream
}

// rest reads a stream to its end.
func rest[Res any, P interface {
	*Res
	proto.Message
}](stream grpc.ClientStream) (all []P, err error) {
	for {
		m := P(new(Res))
		if err := stream.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, err
		}
		all = append(all, m)
	}
}

func fields(t *testing.T, values map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRPCIsReflectedAndHealthy(t *testing.T) {
	s := rpcSite(t).start()
	c := s.calls(t, "")
	stream, err := grpc_reflection_v1.NewServerReflectionClient(c.conn).ServerReflectionInfo(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	list := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range list.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
		res := ask(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service.Name},
		})
		if len(res.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s is not described: %v", service.Name, res)
		}
	}
	want := []string{
		svc.ChatServiceName, svc.DownloadServiceName, svc.InstanceServiceName, svc.ModelServiceName, "grpc.health.v1.Health",
		"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	}
	if !slices.Equal(names, want) {
		t.Errorf("services %q, want %q", names, want)
	}

	health := grpc_health_v1.NewHealthClient(c.conn)
	for _, service := range []string{"", svc.ChatServiceName} {
		res, err := health.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || res.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, res, err)
		}
	}
	if _, err := health.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	if all, err := health.List(c.ctx, &grpc_health_v1.HealthListRequest{}); err != nil || len(all.Statuses) != 5 {
		t.Errorf("%v, %v", all, err)
	}
	watch, err := health.Watch(c.ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := watch.Recv(); err != nil || res.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", res, err)
	}
	s.app["queue"] = 7 // another configuration
	s.load()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after a reload: %v", err)
	}
}

// TestRPCManagesModels: a model's whole life by gRPC, its file as others see it.
func TestRPCManagesModels(t *testing.T) {
	s := rpcSite(t)
	s.app["allow_remote_commands"] = true
	s.start()
	c := s.calls(t, "")
	command := []any{s.engine, "--port", "{{port}}", "--events", s.events, "--tokens", "3"}
	def := map[string]any{"command": command, "ready_path": "/health", "aliases": []any{"default"}}
	create := &pb.CreateModelRequest{Name: "team/m", Definition: &pb.CreateModelRequest_Fields{Fields: fields(t, def)}, ValidateOnly: true}
	if m := call[pb.CreateModelResponse](c, svc.ModelServiceCreateModelProcedure, create).Model; m.Name != "team/m" || !strings.Contains(m.Toml, "ready_path = '/health'") {
		t.Errorf("it would be %v", m)
	}
	c.fails(svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "team/m"}, codes.NotFound, "model_not_found")
	create.ValidateOnly = false
	made := call[pb.CreateModelResponse](c, svc.ModelServiceCreateModelProcedure, create).Model
	file := filepath.Join(s.models, "team-m.toml")
	if made.File != file || made.State != pb.ModelState_MODEL_STATE_COLD || !made.Editable || made.Engine != "command" || made.Kind != "chat" {
		t.Errorf("made %v", made)
	}
	c.fails(svc.ModelServiceCreateModelProcedure, create, codes.AlreadyExists, "model_exists")
	if got := s.chat("team/m"); got == 0 { // read your writes: no waiting
		t.Error("it does not answer")
	}
	got := call[pb.GetModelResponse](c, svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "default"}).Model
	if got.Name != "team/m" || got.State != pb.ModelState_MODEL_STATE_READY || got.Etag != made.Etag || got.Fields.Fields["ready_path"].GetStringValue() != "/health" {
		t.Errorf("got %v", got)
	}

	// Somebody writes a comment; what was decided before does not count any more.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	annotated := "# ours\n" + string(text) + "# the end\n"
	if err := errors.Join(os.WriteFile(file, []byte(annotated), 0o600), os.Chmod(file, 0o640)); err != nil {
		t.Fatal(err)
	}
	change := &pb.UpdateModelRequest{Name: "team/m", Etag: got.Etag, Change: &pb.UpdateModelRequest_Fields{Fields: fields(t, map[string]any{
		"aliases": nil, "idle_timeout": "7m", "concurrency": 2,
	})}}
	c.fails(svc.ModelServiceUpdateModelProcedure, change, codes.Aborted, "stale_etag")
	change.Etag = call[pb.GetModelResponse](c, svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "team/m"}).Model.Etag
	changed := call[pb.UpdateModelResponse](c, svc.ModelServiceUpdateModelProcedure, change).Model
	want := strings.Replace(annotated, "aliases = ['default']\n", "", 1)
	want = strings.Replace(want, "# the end\n", "concurrency = 2\nidle_timeout = '7m'\n# the end\n", 1)
	if text, err := os.ReadFile(file); err != nil || !sameLines(string(text), want) || !strings.HasPrefix(string(text), "# ours\n") || changed.Toml != string(text) {
		t.Errorf("%v: the file is\n%s\nwant\n%s", err, text, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c.fails(svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "default"}, codes.NotFound, "model_not_found")

	// What is no good changes nothing.
	for name, bad := range map[string]struct {
		change map[string]any
		field  string
	}{
		"unknown":    {map[string]any{"ctx_sice": 1}, "fields.ctx_sice"},
		"wrong type": {map[string]any{"port": "many"}, "fields.port"},
		"wrong":      {map[string]any{"port": 70000}, "fields.port"},
	} {
		before, _ := os.ReadFile(file)
		change := &pb.UpdateModelRequest{Name: "team/m", Change: &pb.UpdateModelRequest_Fields{Fields: fields(t, bad.change)}}
		if st := c.fails(svc.ModelServiceUpdateModelProcedure, change, codes.InvalidArgument, "invalid_argument"); blamed(st) != bad.field {
			t.Errorf("%s: %q is blamed: %s", name, blamed(st), st.Message())
		}
		if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
			t.Errorf("%s: the file is another", name)
		}
	}
	call[pb.DeleteModelResponse](c, svc.ModelServiceDeleteModelProcedure, &pb.DeleteModelRequest{Name: "team/m"})
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	if a := s.ask(http.MethodPost, chatPath, question("team/m")); a.status != http.StatusNotFound {
		t.Errorf("it still answers: %d", a.status)
	}
	c.fails(svc.ModelServiceDeleteModelProcedure, &pb.DeleteModelRequest{Name: "team/m"}, codes.NotFound, "model_not_found")
	if left, err := os.ReadDir(s.models); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// sameLines reports whether two texts have the same lines, in whatever order.
func sameLines(a, b string) bool {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func TestRPCRefusesModels(t *testing.T) {
	s := rpcSite(t)
	s.file("old", "model_path = \"/old.gguf\"\naliases = [\"o\"]\n[[variants]]\nname = \"older\"\n")
	s.file("broken", "model_path = \n")
	s.start()
	c := s.calls(t, "")
	toml := func(name, text string) *pb.CreateModelRequest {
		return &pb.CreateModelRequest{Name: name, Definition: &pb.CreateModelRequest_Toml{Toml: text}}
	}
	for name, bad := range map[string]struct {
		req           *pb.CreateModelRequest
		code          codes.Code
		reason, field string
	}{
		"nothing":       {&pb.CreateModelRequest{Name: "x"}, codes.InvalidArgument, "invalid_argument", "definition"},
		"no name":       {toml("", "model_path = '/x'"), codes.InvalidArgument, "invalid_argument", "name"},
		"two names":     {toml("x", "name = 'y'\nmodel_path = '/x'"), codes.InvalidArgument, "invalid_argument", "name"},
		"a way out":     {toml("../x", "model_path = '/x'"), codes.InvalidArgument, "invalid_argument", "name"},
		"another way":   {toml(`a\..\x`, "model_path = '/x'"), codes.InvalidArgument, "invalid_argument", "name"},
		"no TOML":       {toml("x", "model_path"), codes.InvalidArgument, "invalid_argument", "toml"},
		"empty":         {toml("x", ""), codes.InvalidArgument, "invalid_argument", "toml"},
		"no model":      {toml("x", "ctx_size = 1"), codes.InvalidArgument, "invalid_argument", "toml.model_path"},
		"a taken name":  {toml("older", "model_path = '/x'"), codes.AlreadyExists, "model_exists", ""},
		"a taken alias": {toml("x", "model_path = '/x'\naliases = ['o']"), codes.AlreadyExists, "model_exists", ""},
		"a taken file":  {toml("broken", "model_path = '/x'"), codes.AlreadyExists, "file_exists", ""},
		"a command":     {toml("x", "command = ['sh']"), codes.PermissionDenied, "remote_commands_not_allowed", ""},
		"arguments":     {toml("x", "model_path = '/x'\nargs = ['--log-file', '/etc/passwd']"), codes.PermissionDenied, "remote_commands_not_allowed", ""},
		"environment":   {toml("x", "model_path = '/x'\n[env]\nLD_PRELOAD = '/x.so'"), codes.PermissionDenied, "remote_commands_not_allowed", ""},
		"wasm":          {toml("x", "model_path = '/x'\nwasm = '/x.wasm'"), codes.PermissionDenied, "remote_commands_not_allowed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if st := c.fails(svc.ModelServiceCreateModelProcedure, bad.req, bad.code, bad.reason); blamed(st) != bad.field {
				t.Errorf("%q is blamed, want %q: %s", blamed(st), bad.field, st.Message())
			}
		})
	}
	update := func(name, text string) *pb.UpdateModelRequest {
		return &pb.UpdateModelRequest{Name: name, Change: &pb.UpdateModelRequest_Toml{Toml: text}}
	}
	for _, name := range []string{"o", "older"} {
		if st := c.fails(svc.ModelServiceUpdateModelProcedure, update(name, "model_path = '/x'"), codes.InvalidArgument, "invalid_argument"); blamed(st) != "name" {
			t.Errorf("%s: %s", name, st.Message())
		}
	}
	// A broken file is seen, and can be put right.
	broken := call[pb.GetModelResponse](c, svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "broken"}).Model
	if broken.State != pb.ModelState_MODEL_STATE_FAILED || !strings.Contains(broken.Error, "broken.toml:1:") || broken.Toml != "model_path = \n" {
		t.Errorf("broken: %v", broken)
	}
	right := call[pb.UpdateModelResponse](c, svc.ModelServiceUpdateModelProcedure, update("broken", "model_path = '/right.gguf'\n")).Model
	if right.Fields.Fields["model_path"].GetStringValue() != "/right.gguf" {
		t.Errorf("put right: %v", right)
	}
	list := call[pb.ListModelsResponse](c, svc.ModelServiceListModelsProcedure, &pb.ListModelsRequest{})
	var names []string
	for _, m := range list.Models {
		names = append(names, m.Name+" "+m.VariantOf)
	}
	if want := []string{"broken ", "old ", "older old"}; !slices.Equal(names, want) {
		t.Errorf("listed %q, want %q", names, want)
	}
}

// TestRPCLeavesCommandsAlone: what a file's owner has it run stays so, and the rest of the file can be changed.
func TestRPCLeavesCommandsAlone(t *testing.T) {
	s := rpcSite(t)
	s.model("m", "")
	s.file("l", "model_path = \"/l.gguf\"\nargs = [\"--jinja\"]\nenv = {A = \"1\"}\n")
	s.start()
	c := s.calls(t, "")
	for what, change := range map[string]struct {
		model   string
		fields  map[string]any
		allowed bool
	}{
		"an alias":               {"m", map[string]any{"aliases": []any{"n"}}, true},
		"another command":        {"m", map[string]any{"command": []any{"sh"}}, false},
		"a path for the command": {"m", map[string]any{"model_path": "/etc/passwd"}, false},
		"a name for the command": {"m", map[string]any{"name": "$(reboot)"}, false},
		"a size":                 {"l", map[string]any{"ctx_size": 100}, true},
		"fewer arguments":        {"l", map[string]any{"args": nil}, true},
		"more arguments":         {"l", map[string]any{"args": []any{"--jinja", "--log-file", "/x"}}, false},
		"other variables":        {"l", map[string]any{"env": map[string]any{"A": "2"}}, false},
	} {
		req := &pb.UpdateModelRequest{
			Name: change.model, Change: &pb.UpdateModelRequest_Fields{Fields: fields(t, change.fields)}, ValidateOnly: true,
		}
		t.Run(what, func(t *testing.T) {
			if change.allowed {
				call[pb.UpdateModelResponse](c, svc.ModelServiceUpdateModelProcedure, req)
			} else {
				c.fails(svc.ModelServiceUpdateModelProcedure, req, codes.PermissionDenied, "remote_commands_not_allowed")
			}
		})
	}
}

func TestRPCLeavesConfigTOMLAlone(t *testing.T) {
	s := rpcSite(t)
	config := filepath.Join(s.root, "config.toml")
	if err := os.WriteFile(config, []byte("[[llama_servers]]\nname = \"default\"\nchat_model_path = \"/x.gguf\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.app["config"] = config
	s.start()
	c := s.calls(t, "")
	if m := call[pb.GetModelResponse](c, svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "default"}).Model; m.Editable || m.Toml != "" {
		t.Errorf("got %v", m)
	}
	st := c.fails(svc.ModelServiceDeleteModelProcedure, &pb.DeleteModelRequest{Name: "default"}, codes.FailedPrecondition, "not_editable")
	if !strings.Contains(st.Message(), config) {
		t.Errorf("it does not say where: %s", st.Message())
	}
}

func TestRPCLoadsWatchesAndTails(t *testing.T) {
	s := rpcSite(t)
	s.server["read_idle_timeout"], s.server["write_idle_timeout"] = "300ms", "300ms" // quiet streams are not to end of them
	s.model("m", "", "--start-delay", "700ms", "--tokens", "3")
	s.start()
	c := s.calls(t, "")
	events := c.open(svc.InstanceServiceWatchEventsProcedure, &pb.WatchEventsRequest{Model: "m"})
	first := new(pb.WatchEventsResponse)
	if err := events.RecvMsg(first); err != nil || first.Kind != pb.EventKind_EVENT_KIND_SNAPSHOT || len(first.Models) != 0 {
		t.Fatalf("%v, %v", first, err)
	}
	logs := c.open(svc.InstanceServiceTailLogsProcedure, &pb.TailLogsRequest{Model: "m", Follow: true})

	steps, err := rest[pb.LoadModelResponse](c.open(svc.InstanceServiceLoadModelProcedure, &pb.LoadModelRequest{Model: "m"}))
	if err != nil {
		t.Fatal(err)
	}
	var phases []pb.LoadPhase
	for _, step := range steps {
		phases = append(phases, step.Phase)
	}
	last := steps[len(steps)-1]
	if want := []pb.LoadPhase{pb.LoadPhase_LOAD_PHASE_STARTING, pb.LoadPhase_LOAD_PHASE_READY}; !slices.Equal(phases[max(0, len(phases)-2):], want) {
		t.Errorf("phases %v", phases)
	}
	if last.Instance == "" || last.Ready.AsDuration() < 700*time.Millisecond || last.Elapsed.AsDuration() < last.Ready.AsDuration() {
		t.Errorf("ready: %v", last)
	}
	if early := steps[0].Elapsed.AsDuration(); early > last.Elapsed.AsDuration()/2 {
		t.Errorf("the first step came after %v of %v", early, last.Elapsed.AsDuration())
	}
	again, err := rest[pb.LoadModelResponse](c.open(svc.InstanceServiceLoadModelProcedure, &pb.LoadModelRequest{Model: "m"}))
	if err != nil || len(again) != 1 || again[0].Instance != last.Instance || again[0].Ready != nil {
		t.Errorf("a second time: %v, %v", again, err)
	}

	list := call[pb.ListInstancesResponse](c, svc.InstanceServiceListInstancesProcedure, &pb.ListInstancesRequest{Model: "m"})
	if len(list.Instances) != 1 || list.Instances[0].Id != last.Instance || list.Instances[0].Pid == 0 || list.Instances[0].State != pb.InstanceState_INSTANCE_STATE_READY {
		t.Errorf("instances %v", list)
	}
	printed := new(pb.TailLogsResponse)
	if err := logs.RecvMsg(printed); err != nil || printed.Instance != last.Instance || len(printed.Lines) == 0 {
		t.Errorf("logs %v, %v", printed, err)
	}
	call[pb.UnloadModelResponse](c, svc.InstanceServiceUnloadModelProcedure, &pb.UnloadModelRequest{Model: "m"})
	var states []pb.InstanceState
	for len(states) == 0 || states[len(states)-1] != pb.InstanceState_INSTANCE_STATE_STOPPED {
		e := new(pb.WatchEventsResponse)
		if err := events.RecvMsg(e); err != nil {
			t.Fatal(err)
		}
		if e.Kind == pb.EventKind_EVENT_KIND_INSTANCE {
			states = append(states, e.InstanceState)
		}
	}
	if states[0] != pb.InstanceState_INSTANCE_STATE_STARTING || states[1] != pb.InstanceState_INSTANCE_STATE_READY {
		t.Errorf("states %v", states)
	}
	// The next instance is followed too.
	s.chat("m")
	for next := new(pb.TailLogsResponse); next.Instance == "" || next.Instance == last.Instance; {
		if err := logs.RecvMsg(next); err != nil {
			t.Fatal(err)
		}
	}
	s.app["queue"] = 7
	s.load()
	for name, stream := range map[string]grpc.ClientStream{"events": events, "logs": logs} {
		if _, err := rest[pb.WatchEventsResponse](stream); status.Code(err) != codes.Unavailable {
			t.Errorf("%s end with %v", name, err)
		}
	}
}

// A model whose files are not here is brought before it is started, as by every other way to load one.
func TestRPCLoadBringsTheModel(t *testing.T) {
	p := newPublisher(t)
	src, release := p.publish("m")
	release()
	s := rpcSite(t)
	s.model("m", sourced(src, ""))
	s.start()
	steps, err := rest[pb.LoadModelResponse](s.calls(t, "").open(svc.InstanceServiceLoadModelProcedure, &pb.LoadModelRequest{Model: "m"}))
	if err != nil || len(steps) == 0 || steps[len(steps)-1].Phase != pb.LoadPhase_LOAD_PHASE_READY || p.served("m") == 0 {
		t.Errorf("%v, %v; %d parts were brought", steps, err, p.served("m"))
	}
}

func TestRPCTellsWhyAModelDoesNotStart(t *testing.T) {
	s := rpcSite(t)
	s.file("m", "command = [\"/nowhere/engine\", \"{{port}}\"]\n")
	s.start()
	c := s.calls(t, "")
	_, err := rest[pb.LoadModelResponse](c.open(svc.InstanceServiceLoadModelProcedure, &pb.LoadModelRequest{Model: "m"}))
	if st := status.Convert(err); st.Code() != codes.Internal || reasonOf(st) != "engine_failed" || !strings.Contains(st.Message(), "/nowhere/engine") {
		t.Errorf("%v, %s", err, reasonOf(st))
	}
}

func TestRPCChats(t *testing.T) {
	s := rpcSite(t)
	s.model("m", "", "--tokens", "4", "--token-delay", "150ms")
	s.model("echo", "", "--echo")
	s.start()
	c := s.calls(t, "")
	ask := &pb.ChatRequest{Model: "m", Messages: []*pb.ChatMessage{{Role: "user", Content: "Hi"}}}
	stream := c.open(svc.ChatServiceChatProcedure, ask)
	var text, finish string
	var usage *pb.ChatUsage
	var began, ended time.Time
	for {
		piece := new(pb.ChatResponse)
		err := stream.RecvMsg(piece)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if piece.Content != "" {
			if began.IsZero() {
				began = time.Now()
			}
			ended = time.Now()
		}
		text, finish = text+piece.Content, finish+piece.FinishReason
		if piece.Usage != nil {
			usage = piece.Usage
		}
	}
	if text != " 1 2 3 4" || finish == "" || usage.GetCompletionTokens() != 5 {
		t.Errorf("%q, %q, %v", text, finish, usage)
	}
	if took := ended.Sub(began); took < 300*time.Millisecond {
		t.Errorf("all pieces came within %v: they were held back", took)
	}

	for name, bad := range map[string]struct {
		req           *pb.ChatRequest
		code          codes.Code
		reason, field string
	}{
		"no messages": {&pb.ChatRequest{Model: "m"}, codes.InvalidArgument, "invalid_argument", "messages"},
		"no role":     {&pb.ChatRequest{Model: "m", Messages: []*pb.ChatMessage{{Content: "x"}}}, codes.InvalidArgument, "invalid_argument", "messages[0].role"},
		"no model":    {&pb.ChatRequest{Model: "none", Messages: ask.Messages}, codes.NotFound, "model_not_found", "model"},
		"n":           {&pb.ChatRequest{Model: "m", Messages: ask.Messages, Extra: fields(t, map[string]any{"n": 2})}, codes.InvalidArgument, "invalid_argument", "extra.n"},
	} {
		_, err := rest[pb.ChatResponse](c.open(svc.ChatServiceChatProcedure, bad.req))
		if st := status.Convert(err); st.Code() != bad.code || reasonOf(st) != bad.reason || blamed(st) != bad.field {
			t.Errorf("%s: %v, %s, %s", name, err, reasonOf(st), blamed(st))
		}
	}

	// A client that leaves frees the slot.
	ctx, cancel := context.WithCancel(c.ctx)
	long, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, svc.ChatServiceChatProcedure)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(long.SendMsg(ask), long.CloseSend(), long.RecvMsg(new(pb.ChatResponse))); err != nil {
		t.Fatal(err)
	}
	cancel()
	s.eventually("the request to end", func() bool {
		list := call[pb.ListInstancesResponse](c, svc.InstanceServiceListInstancesProcedure, &pb.ListInstancesRequest{Model: "m"})
		return len(list.Instances) == 1 && list.Instances[0].Active == 0
	})
}

// TestRPCIsForKeys: the rights of keys, and of nobody.
func TestRPCIsForKeys(t *testing.T) {
	s := rpcSite(t)
	s.model("mine", "", "--tokens", "3")
	s.model("other", "", "--tokens", "3")
	file := filepath.Join(s.root, "keys.toml")
	made := map[string]string{}
	for _, e := range []keys.Entry{
		{Name: "reader", Models: []string{"m*"}, RequestsPerMinute: 1}, {Name: "admin", Admin: true}, {Name: "some", Admin: true, Models: []string{"m*"}},
	} {
		key, err := keys.Create(file, e)
		if err != nil {
			t.Fatal(err)
		}
		made[e.Name] = key
	}
	s.app["keys"] = file
	s.start()
	nobody, reader, admin, some := s.calls(t, ""), s.calls(t, made["reader"]), s.calls(t, made["admin"]), s.calls(t, made["some"])
	list := func(c *caller) (names []string) {
		for _, m := range call[pb.ListModelsResponse](c, svc.ModelServiceListModelsProcedure, &pb.ListModelsRequest{}).Models {
			names = append(names, m.Name)
		}
		return names
	}
	for name, c := range map[string]*caller{"reader": reader, "some": some} {
		if got := list(c); !slices.Equal(got, []string{"mine"}) {
			t.Errorf("%s sees %q", name, got)
		}
		c.fails(svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "other"}, codes.NotFound, "model_not_found")
	}
	if got := list(admin); !slices.Equal(got, []string{"mine", "other"}) {
		t.Errorf("admin sees %q", got)
	}
	if m := call[pb.GetModelResponse](reader, svc.ModelServiceGetModelProcedure, &pb.GetModelRequest{Name: "mine"}).Model; m.File != "" || m.Toml != "" || m.Etag != "" {
		t.Errorf("a reader is told of the file: %v", m)
	}

	unload := &pb.UnloadModelRequest{Model: "mine"}
	nobody.fails(svc.ModelServiceListModelsProcedure, &pb.ListModelsRequest{}, codes.Unauthenticated, "invalid_api_key")
	nobody.fails(svc.InstanceServiceUnloadModelProcedure, unload, codes.Unauthenticated, "invalid_api_key")
	for procedure, req := range map[string]proto.Message{
		svc.InstanceServiceUnloadModelProcedure:    unload,
		svc.InstanceServiceLoadModelProcedure:      &pb.LoadModelRequest{Model: "mine"},
		svc.InstanceServiceTailLogsProcedure:       &pb.TailLogsRequest{Model: "mine"},
		svc.ModelServiceCreateModelProcedure:       &pb.CreateModelRequest{},
		svc.ModelServiceUpdateModelProcedure:       &pb.UpdateModelRequest{},
		svc.ModelServiceDeleteModelProcedure:       &pb.DeleteModelRequest{},
		svc.DownloadServiceStartDownloadProcedure:  &pb.StartDownloadRequest{},
		svc.DownloadServiceWatchDownloadProcedure:  &pb.WatchDownloadRequest{},
		svc.DownloadServiceListDownloadsProcedure:  &pb.ListDownloadsRequest{},
		svc.DownloadServicePauseDownloadProcedure:  &pb.PauseDownloadRequest{},
		svc.DownloadServiceResumeDownloadProcedure: &pb.ResumeDownloadRequest{},
		svc.DownloadServiceCancelDownloadProcedure: &pb.CancelDownloadRequest{},
	} {
		reader.fails(procedure, req, codes.PermissionDenied, "admin_required")
	}
	if _, err := grpc_health_v1.NewHealthClient(nobody.conn).Check(nobody.ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health wants a key: %v", err)
	}
	for name, c := range map[string]struct {
		by   *caller
		name string
		code codes.Code
	}{"some, theirs": {some, "more", codes.OK}, "some, another": {some, "another", codes.PermissionDenied}} {
		req := &pb.CreateModelRequest{Name: c.name, Definition: &pb.CreateModelRequest_Toml{Toml: "model_path = '/x'"}, ValidateOnly: true}
		if err := c.by.conn.Invoke(c.by.ctx, svc.ModelServiceCreateModelProcedure, req, new(pb.CreateModelResponse)); status.Code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A key's bounds are those of HTTP.
	chat := func() *status.Status {
		_, err := rest[pb.ChatResponse](reader.open(svc.ChatServiceChatProcedure, &pb.ChatRequest{Model: "mine", Messages: []*pb.ChatMessage{{Role: "user", Content: "x"}}}))
		return status.Convert(err)
	}
	if st := chat(); st.Code() != codes.OK {
		t.Errorf("the first chat: %v", st)
	}
	st := chat()
	var retry time.Duration
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			retry = info.RetryDelay.AsDuration()
		}
	}
	if st.Code() != codes.ResourceExhausted || reasonOf(st) != "rate_limit_exceeded" || retry <= 0 || retry > time.Minute {
		t.Errorf("the second: %v, %s, retry after %v", st, reasonOf(st), retry)
	}
	call[pb.UnloadModelResponse](admin, svc.InstanceServiceUnloadModelProcedure, unload)
	want := map[string]bool{"admin unload mine ok": true, "reader unload  no": true, "some validate another no": true, "reader logs  no": true}
	s.eventually("the audit log to have it", func() bool {
		for _, line := range s.audited() {
			outcome := "no"
			if line.Outcome == "ok" {
				outcome = "ok"
			}
			delete(want, fmt.Sprintf("%s %s %s %s", line.Key, line.Action, line.Model, outcome))
		}
		return len(want) == 0
	})
}

// TestRPCFromElsewhere: nobody beyond this machine manages without the right to, insecure or not.
func TestRPCFromElsewhere(t *testing.T) {
	s := rpcSite(t)
	s.model("m", "", "--tokens", "3")
	s.app["insecure"] = true
	s.start()
	post := func(procedure, body string, header ...string) answered {
		t.Helper()
		return s.ask(http.MethodPost, procedure, body, append([]string{"Content-Type", "application/json"}, header...)...)
	}
	for name, header := range map[string][]string{"a proxy's": {"X-Forwarded-For", "192.0.2.1"}, "a foreign page's": {"Origin", "https://evil.example"}} {
		if a := post(svc.ModelServiceListModelsProcedure, "{}", header...); a.status != http.StatusOK {
			t.Errorf("%s list: %d %s", name, a.status, a.body)
		}
		if a := post(svc.InstanceServiceUnloadModelProcedure, `{"model":"m"}`, header...); a.status != http.StatusForbidden || !strings.Contains(a.body, "permission_denied") {
			t.Errorf("%s unload: %d %s", name, a.status, a.body)
		}
	}
	for path, method := range map[string]string{"/models": http.MethodPost, "/models?model=m": http.MethodDelete, "/api/pull": http.MethodPost, "/api/v1/models/download": http.MethodPost} {
		a := s.ask(method, path, `{"model":"hf:x/y"}`, "X-Forwarded-For", "192.0.2.1")
		if a.status != http.StatusForbidden || !strings.Contains(a.body, "admin") {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	if a := post(svc.InstanceServiceUnloadModelProcedure, `{"model":"m"}`); a.status != http.StatusOK {
		t.Errorf("of this machine: %d %s", a.status, a.body)
	}
	delete(s.app, "insecure")
	s.load()
	if a := post(svc.ModelServiceListModelsProcedure, "{}", "Origin", "https://evil.example"); a.status != http.StatusUnauthorized {
		t.Errorf("a foreign page: %d %s", a.status, a.body)
	}
	a := s.dispatch("POST " + svc.ModelServiceListModelsProcedure + " HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	if a.status != http.StatusUnauthorized {
		t.Errorf("a name that leads here: %d %s", a.status, a.body)
	}
}

// TestRPCByPlainHTTP: Connect's JSON, also streamed, and gRPC-Web are served on HTTP/1.1; other paths by the handlers after.
func TestRPCByPlainHTTP(t *testing.T) {
	s := rpcSite(t)
	s.model("m", "", "--tokens", "3")
	s.start()
	a := s.ask(http.MethodPost, svc.ModelServiceGetModelProcedure, `{"name":"m"}`, "Content-Type", "application/json", "Origin", "http://localhost:3000")
	if a.status != http.StatusOK || !strings.Contains(a.body, `"MODEL_STATE_COLD"`) || a.header.Get("X-Request-Id") == "" ||
		a.header.Get("Access-Control-Allow-Origin") == "" || !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "Grpc-Status") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	a = s.ask(http.MethodGet, svc.ModelServiceListModelsProcedure+"?connect=v1&encoding=json&message=%7B%7D", "")
	if a.status != http.StatusOK || !strings.Contains(a.body, `"m"`) {
		t.Errorf("by GET: %d %s", a.status, a.body)
	}
	a = s.ask(http.MethodPost, svc.ModelServiceGetModelProcedure, `{"name":"none"}`, "Content-Type", "application/json")
	if a.status != http.StatusNotFound || !strings.Contains(a.body, `"not_found"`) || !strings.Contains(a.body, "google.rpc.ErrorInfo") {
		t.Errorf("%d %s", a.status, a.body)
	}
	message := `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`
	a = s.ask(http.MethodPost, svc.ChatServiceChatProcedure, string(framed([]byte(message))), "Content-Type", "application/connect+json")
	if a.status != http.StatusOK || !strings.Contains(a.body, `"content":" 1"`) || !strings.Contains(a.body, `"finishReason"`) {
		t.Errorf("a stream: %d %q", a.status, a.body)
	}
	req, err := proto.Marshal(&pb.GetModelRequest{Name: "m"})
	if err != nil {
		t.Fatal(err)
	}
	a = s.ask(http.MethodPost, svc.ModelServiceGetModelProcedure, string(framed(req)), "Content-Type", "application/grpc-web+proto")
	if a.status != http.StatusOK || !strings.Contains(strings.ToLower(a.body), "grpc-status: 0") {
		t.Errorf("gRPC-Web: %d %q", a.status, a.body)
	}
	if a := s.ask(http.MethodGet, "/v1/models", ""); a.status != http.StatusOK || !json.Valid([]byte(a.body)) {
		t.Errorf("the HTTP API: %d %s", a.status, a.body)
	}
}

// framed is a message of a stream: uncompressed, its length in front.
func framed(message []byte) []byte {
	n := len(message)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}
