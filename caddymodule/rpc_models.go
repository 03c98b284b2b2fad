package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"assistant/internal/openai"
	"assistant/internal/rpc"
	pb "assistant/internal/rpc/assistantv1"
	"assistant/internal/wholefile"
	"assistant/modeldir"
)

// rpcModels implements rpc.Models: models are the files of config_dir.
type rpcModels struct{ rt *runtime }

// List tells of every model, as GET /v1/models does: variants and files that are none are among them.
func (s rpcModels) List(c *rpc.Caller) []*pb.Model {
	v := s.rt.view()
	var all []*pb.Model
	listed := map[string]bool{}
	for _, m := range v.served() {
		listed[m.Name] = true
		if may(c.Key, m) {
			all = append(all, s.model(v, c, m))
		}
	}
	for _, f := range v.catalog.Faults() {
		if !listed[f.Name] && (c.Key == nil || c.Key.May(f.Name)) {
			listed[f.Name] = true
			all = append(all, s.broken(c, f))
		}
	}
	slices.SortFunc(all, func(a, b *pb.Model) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Get tells of one model, and for admin what its file says.
func (s rpcModels) Get(c *rpc.Caller, name string) (*pb.Model, error) {
	v := s.rt.view()
	if m, ok := named(v.catalog, c.Key, name, modeldir.Chat); ok {
		return s.withFile(c, s.model(v, c, m))
	}
	if f, ok := s.fault(c, name); ok {
		return s.withFile(c, s.broken(c, f))
	}
	return nil, openai.ModelNotFound(name)
}

// fault finds a file that is no model, by the name that it would have.
func (s rpcModels) fault(c *rpc.Caller, name string) (modeldir.Fault, bool) {
	faults := s.rt.catalog.Load().Faults()
	i := slices.IndexFunc(faults, func(f modeldir.Fault) bool { return f.Name == name })
	if i < 0 || c.Key != nil && !c.Key.May(name) {
		return modeldir.Fault{}, false
	}
	return faults[i], true
}

var modelStates = map[string]pb.ModelState{
	"cold": pb.ModelState_MODEL_STATE_COLD, "starting": pb.ModelState_MODEL_STATE_STARTING, "ready": pb.ModelState_MODEL_STATE_READY,
	"draining": pb.ModelState_MODEL_STATE_DRAINING, "failed": pb.ModelState_MODEL_STATE_FAILED,
}

// model is a model as it stands.
func (s rpcModels) model(v view, c *rpc.Caller, m *modeldir.Model) *pb.Model {
	status, now := v.status(m), v.statuses[m.Key]
	out := &pb.Model{
		Name: m.Name, Aliases: m.Aliases, Kind: string(m.Kind), Engine: m.Engine,
		State: modelStates[first(now.State, "cold")], Error: status.Error, ContextLength: int64(first(contextOf(m), v.facts(m).contextLength)),
		Instances: int32(now.Instances), Queued: int32(now.Queued), //nolint:gosec // thousands at most
	}
	if status.Failed {
		out.State = pb.ModelState_MODEL_STATE_FAILED
	}
	if m.Name != m.Key {
		out.VariantOf = m.Key
	}
	out.Editable = out.VariantOf == "" && s.editable(m)
	if c.Admin {
		out.File = m.File
	}
	return out
}

func (s rpcModels) broken(c *rpc.Caller, f modeldir.Fault) *pb.Model {
	out := &pb.Model{Name: f.Name, State: pb.ModelState_MODEL_STATE_FAILED, Error: f.Err.Error(), Editable: s.inDir(f.File)}
	if c.Admin {
		out.File = f.File
	}
	return out
}

// editable reports whether a model has a file of its own.
func (s rpcModels) editable(m *modeldir.Model) bool { return !m.Entry && s.inDir(m.File) }

func (s rpcModels) inDir(file string) bool {
	app := s.rt.inForce()
	return app != nil && filepath.Dir(file) == app.ConfigDir
}

// withFile adds what the model's file says, for admin.
func (s rpcModels) withFile(c *rpc.Caller, m *pb.Model) (*pb.Model, error) {
	if !c.Admin || !m.Editable {
		return m, nil
	}
	text, err := os.ReadFile(m.File)
	if err != nil {
		return nil, err
	}
	describe(m, text)
	return m, nil
}

// describe adds what a file says.
func describe(m *pb.Model, text []byte) {
	m.Toml, m.Etag = strings.ToValidUTF8(string(text), "\uFFFD"), etag(text)
	if fields, err := modeldir.ModelFileFields(m.File, text); err == nil {
		m.Fields = structOf(fields)
	}
}

// structOf makes a message of what TOML has; nil if it has what JSON has not.
func structOf(fields map[string]any) *structpb.Struct {
	text, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	s := new(structpb.Struct)
	if protojson.Unmarshal(text, s) != nil {
		return nil
	}
	return s
}

// etag names a version of a file.
func etag(text []byte) string {
	const length = 16 // bytes
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:length])
}

// Create writes the file of a new model.
func (s rpcModels) Create(_ context.Context, c *rpc.Caller, r *pb.CreateModelRequest) (*pb.Model, error) {
	app, err := s.app()
	if err != nil {
		return nil, err
	}
	field, text := "toml", []byte(r.GetToml())
	if f, ok := r.Definition.(*pb.CreateModelRequest_Fields); ok {
		field = "fields"
		if text, err = modeldir.NewModelFile(f.Fields.AsMap()); err != nil {
			return nil, rpc.Invalid(field, "%v", err)
		}
	}
	s.rt.editing.Lock()
	defer s.rt.editing.Unlock()
	name, file, text, err := place(app.ConfigDir, r.Name, field, text)
	if err != nil {
		return nil, err
	}
	m, err := s.judge(c, version{}, field, file, text)
	if err != nil {
		return nil, err
	}
	if r.ValidateOnly {
		return s.wouldBe(c, m, text), nil
	}
	err = wholefile.Create(file, text)
	if errors.Is(err, fs.ErrExist) {
		return nil, rpc.Errorf(connect.CodeAlreadyExists, "file_exists", "there is a file %s, which is no model of that name: choose another name", file)
	}
	if err != nil {
		return nil, err
	}
	return s.inForce(c, name, file)
}

// place finds out what a new model is called, and where its file goes. The file says the name if it does not have it itself.
func place(dir, name, field string, text []byte) (_, file string, _ []byte, _ error) {
	fields, err := modeldir.ModelFileFields("", text)
	if err != nil {
		return "", "", nil, rpc.Invalid(field, "%v", err)
	}
	said, has := fields["name"].(string)
	switch {
	case name == "":
		name = said
	case has && said != name:
		return "", "", nil, rpc.Invalid("name", "is %q, but that of %s is %q: leave one out", name, field, said)
	}
	if name == "" {
		return "", "", nil, rpc.Invalid("name", "must not be empty: it is what clients call the model")
	}
	if slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }), func(part string) bool { return part == "." || part == ".." }) {
		return "", "", nil, rpc.Invalid("name", "%q looks like a way through directories: choose another", name)
	}
	base, err := fileOf(name)
	if err != nil {
		return "", "", nil, rpc.Invalid("name", "%v", err)
	}
	file = filepath.Join(dir, base)
	if !has && base != name+".toml" {
		if text, err = modeldir.EditModelFile(file, text, map[string]any{"name": name}); err != nil {
			return "", "", nil, rpc.Invalid(field, "%v", err)
		}
	}
	return name, file, text, nil
}

// Update changes the file of a model.
func (s rpcModels) Update(_ context.Context, c *rpc.Caller, r *pb.UpdateModelRequest) (*pb.Model, error) {
	s.rt.editing.Lock()
	defer s.rt.editing.Unlock()
	file, before, err := s.find(c, r.Name, r.Etag)
	if err != nil {
		return nil, err
	}
	field, after := "toml", []byte(r.GetToml())
	if f, ok := r.Change.(*pb.UpdateModelRequest_Fields); ok {
		field = "fields"
		if after, err = modeldir.EditModelFile(file, before, f.Fields.AsMap()); err != nil {
			return nil, rpc.Invalid(field, "%v", err)
		}
	}
	was, _ := modeldir.ParseModel(file, before)
	m, err := s.judge(c, version{file, was}, field, file, after)
	if err != nil {
		return nil, err
	}
	if r.ValidateOnly {
		return s.wouldBe(c, m, after), nil
	}
	if etag(before) != etag(after) {
		if err := wholefile.Rewrite(file, after); err != nil {
			return nil, err
		}
	}
	return s.inForce(c, m.Name, file)
}

// Delete removes the file of a model.
func (s rpcModels) Delete(_ context.Context, c *rpc.Caller, r *pb.DeleteModelRequest) error {
	s.rt.editing.Lock()
	defer s.rt.editing.Unlock()
	file, _, err := s.find(c, r.Name, r.Etag)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	s.rt.reread()
	return nil
}

func (s rpcModels) app() (*App, error) {
	app := s.rt.inForce()
	if app == nil {
		return nil, openai.ShuttingDown()
	}
	return app, nil
}

// find returns the file of a model that may be changed, and what it says.
func (s rpcModels) find(c *rpc.Caller, name, tag string) (file string, text []byte, err error) {
	catalog := s.rt.catalog.Load()
	m, isModel := named(catalog, c.Key, name, modeldir.Chat)
	f, isFault := s.fault(c, name)
	switch {
	case isModel && (m.Name != name || m.Key != name):
		return "", nil, rpc.Invalid("name", "%q is another name of the model %q: change that", name, m.Key)
	case isModel && !s.editable(m):
		return "", nil, rpc.Errorf(connect.CodeFailedPrecondition, "not_editable",
			"the model %q is not of a file in config_dir: change it where it is written, in %s", name, m.File)
	case isModel:
		file = m.File
	case isFault && s.inDir(f.File):
		file = f.File
	default:
		return "", nil, openai.ModelNotFound(name)
	}
	if text, err = os.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
		return "", nil, openai.ModelNotFound(name)
	} else if err != nil {
		return "", nil, err
	}
	if tag != "" && tag != etag(text) {
		return "", nil, rpc.Errorf(connect.CodeAborted, "stale_etag", "the file of %q has changed since: get the model again, and decide anew", name)
	}
	return file, text, nil
}

// version is a file that is replaced.
type version struct {
	file  string          // "" = there is none
	model *modeldir.Model // nil if there is none, or it is no good
}

// judge reads a file as the watcher will, and says whether the caller may have it so.
func (s rpcModels) judge(c *rpc.Caller, before version, field, file string, text []byte) (*modeldir.Model, error) {
	m, err := modeldir.ParseModel(file, text)
	var wrong *modeldir.FieldError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return nil, rpc.Invalid(field+"."+wrong.Field, "%s", wrong.Reason)
	}
	if err != nil {
		return nil, rpc.Invalid(field, "%v", err)
	}
	for _, name := range m.Names() {
		if c.Key != nil && !c.Key.May(name) {
			return nil, rpc.Errorf(connect.CodePermissionDenied, "model_not_allowed", "the key %q may not use a model with the name %q", c.Key.Name, name)
		}
	}
	if name, other := s.rt.catalog.Load().Clash(m, before.file); other != nil {
		return nil, rpc.Errorf(connect.CodeAlreadyExists, "model_exists", "the name %q is taken by the model %q: choose another", name, other.Name)
	}
	app, err := s.app()
	if err != nil {
		return nil, err
	}
	if runs := runsCommands(before.model, m); runs != "" && !app.AllowRemoteCommands {
		return nil, rpc.Errorf(connect.CodePermissionDenied, "remote_commands_not_allowed",
			"%s lets a model run any program here, which is not set over the network: edit the file, or set allow_remote_commands in the server's configuration", runs)
	}
	return m, nil
}

// runsCommands names what a changed file has the server run that it did not before, or run in another way: programs, and what turns an engine
// into one, such as LD_PRELOAD or an argument that names a file to be written. It is "" if nothing is. before is nil for a new file.
func runsCommands(before, after *modeldir.Model) string {
	if before == nil {
		before = new(modeldir.Model)
	}
	switch {
	case after.Engine == modeldir.EngineCommand:
		if before.SameLaunch(after) {
			return ""
		}
		return "a command"
	case len(after.Args) > 0 && !slices.Equal(before.Args, after.Args):
		return "args"
	case len(after.Env) > 0 && !maps.Equal(before.Env, after.Env):
		return "env"
	case after.Wasm != "" && after.Wasm != modeldir.WasmGuest && before.Wasm != after.Wasm:
		return "wasm"
	}
	return ""
}

// wouldBe is a model that is not in force.
func (s rpcModels) wouldBe(c *rpc.Caller, m *modeldir.Model, text []byte) *pb.Model {
	out := s.model(s.rt.view(), c, m)
	describe(out, text)
	return out
}

// inForce waits until what was written is what is served, and returns it.
func (s rpcModels) inForce(c *rpc.Caller, name, file string) (*pb.Model, error) {
	s.rt.reread()
	v := s.rt.view()
	m := v.catalog.Model(name)
	if m == nil || m.File != file || v.faults[name] != nil {
		why := "somebody else changes files as well"
		for _, f := range v.catalog.Faults() {
			if f.File == file {
				why = f.Err.Error()
			}
		}
		return nil, rpc.Errorf(connect.CodeAborted, "changed_meanwhile", "%s was written, but is not in force: %s", file, why)
	}
	return s.withFile(c, s.model(v, c, m))
}
