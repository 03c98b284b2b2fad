package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"assistant/activator"
	"assistant/internal/openai"
	"assistant/internal/remote"
	"assistant/internal/upstream"
	"assistant/lifecycle"
	"assistant/modeldir"
)

// remoteHeader tells a client which remote server answered it.
const remoteHeader = "X-Assistant-Remote"

// useRemotes makes the remote servers those of a configuration. What is known of them stays if they are the same.
func (rt *runtime) useRemotes(configs []remote.Config) error {
	before := rt.remotes.Load()
	if before.Of(configs) {
		return nil
	}
	var set *remote.Set
	if len(configs) > 0 {
		var err error
		if set, err = remote.NewSet(configs, rt.log); err != nil {
			return err
		}
	}
	rt.remotes.Store(set)
	if before != nil {
		go before.Close() // what was sent there goes on
	}
	return nil
}

// remoteServers are those of the configuration, after those of config.toml, with what placeholders stand for.
func (a *App) remoteServers() []remote.Config {
	var all []remote.Config
	if a.user != nil {
		for _, s := range a.user.RemoteServers {
			all = append(all, remote.Config{URL: s.URL, APIKey: s.APIKey, Models: s.Models, Weight: s.Weight, MaxConcurrency: s.MaxConcurrency})
		}
	}
	all = append(all, a.RemoteServers...)
	repl := caddy.NewReplacer()
	for i := range all {
		all[i].APIKey = repl.ReplaceKnown(all[i].APIKey, "")
	}
	return all
}

// knownWithin is how long a request for a model that is not here waits, after a start, until remote servers have told their models.
const knownWithin = 5 * time.Second

// away is where a request may be sent: nil if there are no remote servers, or it comes from another Assistant, which has chosen this one. So there
// are no loops.
func (x *exchange) away() *remote.Set {
	if x.r.Header.Get(remote.HopsHeader) != "" {
		return nil
	}
	return x.h.rt.remotes.Load()
}

// findAway looks for a model that is not here among those of remote servers.
func (x *exchange) findAway(name string) bool {
	set := x.away()
	if set == nil || x.key != nil && !x.key.May(name) {
		return false
	}
	if !set.Known() {
		ctx, cancel := context.WithTimeout(x.r.Context(), knownWithin)
		set.WaitKnown(ctx)
		cancel()
	}
	model, only, ok := set.Find(name)
	if !ok {
		return false
	}
	x.model = &modeldir.Model{Name: name, Key: name, Kind: x.ep.kind}
	x.remote = &destination{set: set, model: model, only: only}
	return true
}

// destination is the remote servers that may answer a request.
type destination struct {
	set   *remote.Set
	model string // as they call it
	only  string // the one server that was named; "" = any
}

// elsewhere is where a model of ours is better asked just now: it is full here, or cold, and a remote server that is well has measured quicker than
// it starts. nil = here. For who has no remote servers it costs a look at a pointer.
func (x *exchange) elsewhere() *destination {
	set := x.away()
	if set == nil || x.ep.form || x.model.Shape != nil && x.model.Shape.Forced["model"] != "" { // what it is called elsewhere is not known
		return nil
	}
	quickest, ok := set.Quickest(x.model.Name)
	if !ok {
		return nil
	}
	rt := x.h.rt
	ready, free, alive := rt.room(x.model)
	switch {
	case free:
		return nil
	case ready && alive >= max(x.model.MaxInstances, 1): // full
	case !ready && quickest > 0 && quickest < rt.act.StartTakes(x.model.Key): // cold
	default:
		return nil
	}
	return &destination{set: set, model: x.model.Name}
}

// room is whether an instance of a model is ready, whether one has a free slot, and how many are alive.
func (rt *runtime) room(m *modeldir.Model) (ready, free bool, alive int) {
	for _, in := range rt.act.Instances() {
		if in.Key != m.Key {
			continue
		}
		alive++
		if in.State == lifecycle.Ready.String() {
			ready = true
			free = free || in.Slots == 0 || in.Leases < in.Slots
		}
	}
	return ready, free, alive
}

// answerAway has a remote server answer, and another one if that can't before the first byte of an answer was there. A POST may then have been
// computed twice; that it is lost would be worse.
func (x *exchange) answerAway(to *destination) error {
	if err := x.rename(to); err != nil {
		return err
	}
	var tried []*remote.Server
	var last error
	for {
		turn, err := to.set.Take(to.model, to.only, tried)
		if err != nil {
			return x.nobodyAway(err, last)
		}
		tried = append(tried, turn.Server)
		again, err := x.answerByRemote(to, turn, tried)
		if !again {
			return err
		}
		last = err
		x.h.rt.log.Info("a remote server could not answer", "remote", turn.Name, "model", to.model, "error", err)
	}
}

// errNobodyAway is that no remote server answered, and the client was told nothing.
var errNobodyAway = errors.New("no remote server answered")

// nobodyAway is the error when there is no remote server left to ask.
func (x *exchange) nobodyAway(err, last error) error {
	name := x.name()
	var e *openai.Error
	switch {
	case errors.Is(err, remote.ErrFull):
		e = openai.QueueFull(name, time.Second)
	case last != nil:
		e = openai.EngineFailed(name, "the remote servers that have it could not be reached: "+last.Error())
		e.ShouldRetry = nil // another time may do
	default:
		e = openai.EngineFailed(name, "no remote server has it any more")
	}
	return fmt.Errorf("%w: %w", errNobodyAway, e)
}

// rename makes the request one for the model as the remote server calls it.
func (x *exchange) rename(to *destination) error {
	if x.ep.form || x.req.Model == to.model || x.body == nil {
		return nil
	}
	shape := openai.Shape{Forced: map[string]string{"model": string(openai.Marshal(to.model))}}
	pieces, err := shape.Apply(x.body.Bytes(), x.req, openai.Shaping{})
	if err != nil || pieces == nil {
		return err
	}
	return x.reshape(pieces)
}

// answerByRemote has one remote server answer. again is true if the client was told nothing, and another may be asked.
func (x *exchange) answerByRemote(to *destination, turn *remote.Turn, tried []*remote.Server) (again bool, err error) {
	outcome := remote.Left
	defer func() {
		turn.End(outcome) // on a panic too
		x.h.rt.stats.remote(turn.Name, outcome)
	}()
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	defer context.AfterFunc(turn.Lost, func() { cancel(remote.ErrGone) })()
	res, err := turn.Transport.Do(ctx, x.outgoing())
	if err != nil {
		if x.r.Context().Err() != nil {
			return false, context.Cause(x.r.Context())
		}
		outcome = remote.Failed
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return true, err
	}
	defer res.Body.Close()
	outcome = outcomeOf(res.StatusCode)
	if outcome != remote.Answered && to.set.Has(to.model, to.only, tried) {
		return true, errors.New("it answered " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode))
	}
	err = x.passAnswer(res, turn)
	if err != nil && x.r.Context().Err() == nil {
		outcome = remote.Failed
		return false, x.broken(&upstream.BodyError{Written: true, Err: err})
	}
	return false, err
}

// outcomeOf is what a status says of a server.
func outcomeOf(status int) remote.Outcome {
	switch status {
	case http.StatusTooManyRequests:
		return remote.Busy
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return remote.Failed
	}
	return remote.Answered
}

// outgoing is the request as it goes to a remote server.
func (x *exchange) outgoing() *upstream.Request {
	return &upstream.Request{
		In: x.r, Length: x.body.Len(),
		BodyReader: func() (io.ReadCloser, error) { return x.body.NewReader(), nil },
	}
}

// passAnswer passes a remote server's answer on, unharmed. Its error is about the server, unless the client has left.
func (x *exchange) passAnswer(res *upstream.Response, turn *remote.Turn) error {
	header := x.w.Header()
	for name, values := range res.Header {
		if name != requestIDHeader {
			header[name] = slices.Clone(values)
		}
	}
	header[remoteHeader] = []string{turn.Name}
	header[modelHeader] = x.stats.header
	if res.ContentLength >= 0 && header.Get("Content-Length") == "" {
		header.Set("Content-Length", strconv.FormatInt(res.ContentLength, 10))
	}
	x.status = res.StatusCode
	x.w.WriteHeader(res.StatusCode)
	x.streamed, x.instance = x.req.Stream, turn.Name
	client := flushing{w: x.w, to: http.NewResponseController(x.w), seen: x.seen}
	_, err := io.Copy(client, noticed{res.Body, func() {
		turn.Heard()
		if x.token.IsZero() {
			x.token = time.Now()
		}
	}})
	return err
}

// awayInstead reports whether an error of a model of ours leaves it to remote servers that have it.
func (x *exchange) awayInstead(err error) *destination {
	if !x.unavailable(err) || x.early {
		return nil
	}
	var fault *activator.Error
	if errors.As(err, &fault) && fault.Fault == activator.FaultUnknown {
		return nil
	}
	set := x.away()
	if set == nil || x.asked != nil {
		return nil
	}
	if _, ok := set.Quickest(x.model.Name); !ok {
		return nil
	}
	return &destination{set: set, model: x.model.Name}
}

// remoteCards are the models of remote servers as the list shows them: by their names, with the server's before it where a model here has the same.
func (v view) remoteCards() []openai.ModelCard {
	if v.remote == nil {
		return nil
	}
	var cards []openai.ModelCard
	for _, m := range *v.remote {
		if !v.catalog.Has(m.ID) {
			cards = append(cards, openai.ModelCard{ID: m.ID, OwnedBy: m.Servers[0], Name: m.ID, Tags: []string{"remote"}})
			continue
		}
		for _, server := range m.Servers {
			id := server + "/" + m.ID
			cards = append(cards, openai.ModelCard{ID: id, OwnedBy: server, Name: id, Tags: []string{"remote"}})
		}
	}
	return cards
}
