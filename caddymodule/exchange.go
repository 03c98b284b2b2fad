package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"assistant/activator"
	"assistant/internal/dialect"
	"assistant/internal/keys"
	"assistant/internal/ollama"
	"assistant/internal/openai"
	"assistant/internal/responses"
	"assistant/internal/upstream"
	"assistant/lifecycle"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// statusClientGone is what logs show for a client that left before its answer (nginx's number, and Caddy's).
const statusClientGone = 499

// defaultAlias is the model, or alias, that requests without a model go to.
const defaultAlias = "default"

// exchange is one request to a model, from its body to its last byte.
type exchange struct {
	h       *Handler
	w       http.ResponseWriter
	r       *http.Request
	ep      endpoint
	key     *keys.Key       // nil = none is asked for
	client  *dialect.Writer // what w is for clients of another API; nil = w is the client's own
	end     func()          // gives back what the request takes of its key's bounds
	call    dialect.Call    // the request as another API has it; nil = it is OpenAI's
	body    *openai.Body
	asked   *openai.Body // the body as it was before the model's own shape was put on it, for a fallback; nil = body is that
	req     openai.Request
	model   *modeldir.Model
	stats   *modelStats
	plan    *openai.Plan   // what its engine's dialect needs; nil = nothing
	planned openai.Repairs // of the kind of engine that the plan is for

	remote    *destination // of a model that is not here; nil = it is
	fallbacks []string     // of the model that was asked, those that were not tried yet
	patience  *patience    // nil = none is needed

	conversation uint64             // what further turns have in common; 0 = none, or nobody cares
	run          *lifecycle.Running // that answers, or did; nil before

	status int  // told to the client; 0 = nothing yet
	early  bool // 200 and SSE comments went out while the request waited
	tap    *openai.UsageTap
	bytes  int64 // of the answer

	account
}

// serve answers the request by an instance of the model it names.
func (x *exchange) serve() error {
	x.open()
	defer x.close()
	if err := x.prepare(); err != nil {
		return x.fail(err)
	}
	if call := x.managing(); call != nil {
		return x.fail(x.manage(call))
	}
	if call, ok := x.call.(*responses.Call); ok && call.Background() {
		return x.fail(x.serveLater(call))
	}
	return x.serveNow()
}

// close ends the exchange and gives back what it holds.
func (x *exchange) close() {
	x.log()
	for _, body := range []*openai.Body{x.body, x.asked} {
		if body != nil {
			body.Close()
		}
	}
	if x.end != nil {
		x.end()
	}
}

// prepare finds out what is asked, and of which model.
func (x *exchange) prepare() error {
	if err := x.read(); err != nil {
		return err
	}
	if err := x.find(); err != nil {
		return err
	}
	if x.managing() != nil || x.remote != nil {
		return nil
	}
	if err := x.detokenise(); err != nil {
		return err
	}
	return x.fit()
}

// fit makes the request what the model's file and its engine want it to be.
func (x *exchange) fit() error {
	if err := x.sees(); err != nil {
		return err
	}
	if err := x.shape(); err != nil {
		return err
	}
	return x.planRepairs()
}

// sees refuses images and sounds for a model that has nothing to read them with. llama-server would be started for them, and then answer
// 500; a client that only tries whether a model sees is to be told that it does not.
func (x *exchange) sees() error {
	if !x.ep.joins || toBeBrought(x.model) || engine.For(x.model).Name != modeldir.EngineLlamaServer || projectorOf(x.model) != "" {
		return nil
	}
	switch a := openai.AttachmentsOf(x.body.Bytes(), x.req); {
	case a.Image:
		return openai.Unreadable("image")
	case a.Audio:
		return openai.Unreadable("audio")
	}
	return nil
}

// serveNow has the model answer.
func (x *exchange) serveNow() error {
	x.stats = x.h.rt.stats.of(x.model.Name)
	x.stats.requestBytes.AddInt64(x.body.Len())
	x.tap = taps.Get().(*openai.UsageTap) //nolint:errcheck,forcetypeassert // nothing else is in the pool
	defer x.count()
	return x.fail(x.answerOrFallBack())
}

// taps are large enough to be worth keeping.
var taps = sync.Pool{New: func() any { return new(openai.UsageTap) }}

// count adds the exchange to the metrics. It runs on a panic too.
func (x *exchange) count() {
	x.stats.responseBytes.AddInt64(x.bytes)
	x.prompt, x.completion, x.told = x.tap.Tokens()
	if x.told {
		x.stats.promptTokens.Add(x.prompt)
		x.stats.completeTokens.Add(x.completion)
	}
	x.meter(x.prompt, x.completion, x.told)
	if x.run != nil && x.run.KeepsContexts && x.status == http.StatusOK {
		reuse, said := x.tap.Reuse()
		x.run.Reused(x.conversation, reuse.Cached, reuse.Computed, reuse.Took, said)
	}
	x.tap.Reset()
	taps.Put(x.tap)
	x.stats.ended(x.status)
	x.stats.of(x.ep.operation()).ended(&x.account, x.failure(), time.Now())
}

// read takes the whole body in. Only then does net/http notice a client that leaves while its request waits.
func (x *exchange) read() error {
	kind := x.r.Header.Get("Content-Type")
	if !x.ep.form && kind != "" && !mayBeJSON(kind) {
		return openai.UnsupportedMedia(kind)
	}
	body, end := bounded(x.w, x.r.Body)
	err := x.take(body, x.r.ContentLength, x.h.app.MaxBody)
	end()
	if err != nil {
		return err
	}
	if x.ep.api != nil {
		if err := x.translate(); err != nil {
			return err
		}
	}
	if x.ep.path != "" {
		x.readdress(x.ep.path)
	}
	if x.ep.form {
		x.req, err = openai.ScanMultipart(bytes.NewReader(x.body.Bytes()), kind)
	} else {
		x.req, err = openai.Scan(x.body.Bytes())
	}
	return err
}

// take makes what is read the body, in place of the one that was.
func (x *exchange) take(r io.Reader, length, limit int64) error {
	body, err := openai.ReadBody(r, length, openai.Limits{
		MaxBody: limit, MaxMemory: min(limit, openai.DefaultMaxBody), Budget: x.h.rt.budget,
	})
	if err != nil {
		return err
	}
	if x.body != nil {
		x.body.Close()
	}
	x.body = body
	return nil
}

// translate makes a request of another API one to an endpoint of OpenAI's.
func (x *exchange) translate() error {
	call, err := x.ep.api.read(x, x.body.Bytes())
	if err != nil {
		return err
	}
	path, body := call.Path(), call.Body()
	if err := x.take(bytes.NewReader(body), int64(len(body)), int64(len(body))); err != nil {
		return err
	}
	x.call = call
	x.client.Answers(call)
	x.ep = endpoints[path]
	x.readdress(path)
	x.r.Header.Set("Content-Type", "application/json")
	x.r.Header.Del("Accept-Encoding") // the answer is read here
	return nil
}

// readdress makes the request one to another path.
func (x *exchange) readdress(path string) {
	x.r = x.r.Clone(x.r.Context())
	x.r.URL.Path, x.r.URL.RawPath, x.r.URL.RawQuery = path, "", ""
}

// mayBeJSON refuses only what surely is no JSON: curl -d says application/x-www-form-urlencoded of anything.
func mayBeJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return kind == "application/json" || strings.HasSuffix(kind, "+json") ||
		kind == "text/plain" || kind == "application/x-www-form-urlencoded" || kind == "application/octet-stream"
}

// detokenise makes text of tokens that are not the model's.
func (x *exchange) detokenise() error {
	if x.ep.join != openai.Embeddings || x.model.TokenIDs == modeldir.TokensModel {
		return nil
	}
	body, err := openai.TextOfTokens(x.body.Bytes(), x.req)
	if body == nil || err != nil {
		return err
	}
	if err := x.take(bytes.NewReader(body), int64(len(body)), int64(len(body))); err != nil {
		return err
	}
	x.req, err = openai.Scan(body)
	return err
}

// find looks the model up.
func (x *exchange) find() error {
	if err := x.h.waitReady(x.r); err != nil {
		return err
	}
	name := first(x.req.Model, defaultAlias)
	m, ok := named(x.h.rt.catalog.Load(), x.key, name, x.ep.kind)
	if _, tagged := x.call.(*ollama.Call); !ok && tagged { // the tag was taken off, but may have been the name's own
		m, ok = named(x.h.rt.catalog.Load(), x.key, name+ollamaTag, x.ep.kind)
	}
	if !ok && x.findAway(name) {
		return nil
	}
	if !ok {
		if x.req.Model == "" {
			return openai.ModelRequired()
		}
		return openai.ModelNotFound(name)
	}
	x.model, x.fallbacks = m, m.Fallbacks
	if x.r.URL.RawQuery != "" && x.r.URL.Query().Get("autoload") == "false" && !x.h.rt.loaded(m) {
		return openai.NotLoaded(name)
	}
	if !x.ep.any && !engine.For(m).Serves(m, x.ep.kind) {
		return x.unserved()
	}
	return nil
}

// unserved says that the model is not for the endpoint, and which ones are.
func (x *exchange) unserved() error {
	const most = 5
	var others []string
	for _, m := range x.h.rt.catalog.Load().Models() {
		if m.Kind == x.ep.kind && may(x.key, m) && len(others) < most {
			others = append(others, strconv.Quote(m.Name))
		}
	}
	why := fmt.Sprintf("it is of kind %q, and this asks for one of kind %q", x.model.Kind, x.ep.kind)
	if len(others) == 0 {
		return openai.Unserved(x.name(), why+", which no model here is")
	}
	return openai.Unserved(x.name(), why+", such as "+strings.Join(others, ", "))
}

// answer gets a lease and lets the instance answer. A connection that could not be made is tried once more, on what the
// activator gives then: not a byte of the request was sent.
func (x *exchange) answer() error {
	if toBeBrought(x.model) {
		if err := x.bring(); err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		asked := time.Now()
		lease, err := x.acquire()
		x.traceActivation(asked, &lease, err)
		if err != nil {
			return err
		}
		err = x.answerBy(&lease)
		if !unreachable(err) || try == 2 {
			return err
		}
	}
}

func (x *exchange) answerBy(lease *activator.Lease) (err error) {
	defer lease.Release() // on a panic too
	x.tell(lease)
	if call, ok := x.call.(*responses.Call); ok {
		call.Running()
	}
	x.run = lease.Running()
	x.run.Began(x.conversation)
	stop := x.bePatient()
	defer stop()
	if span := x.engineSpan(); span != nil {
		defer func() { x.endEngineSpan(span, err) }()
	}
	err = x.send(x.run)
	if unreachable(err) {
		lease.Unreachable()
	}
	if late := x.tooSlow(); late != nil && err != nil && !handled(err) {
		return late
	}
	return err
}

// unreachable reports whether an error says that nobody listens at the instance any more. Other failures to connect, such as
// running out of file descriptors, are not the instance's.
func unreachable(err error) bool {
	var dial *upstream.DialError
	return errors.As(err, &dial) &&
		(errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, net.ErrClosed))
}

// acquire waits for a lease, telling the client that it still waits if that was asked for.
func (x *exchange) acquire() (activator.Lease, error) {
	every, how := x.telling()
	if every == 0 {
		return x.h.rt.act.Acquire(x.r.Context(), x.request())
	}
	type granted struct {
		lease activator.Lease
		err   error
	}
	g := tellUntil(x, every, how, func() granted {
		lease, err := x.h.rt.act.Acquire(x.r.Context(), x.request())
		return granted{lease, err}
	})
	return g.lease, g.err
}

// telling is how often the client is to be told that it waits, and how; 0 = not at all.
func (x *exchange) telling() (every time.Duration, how string) {
	every = time.Duration(x.h.KeepAlive)
	how = x.wantsProgress()
	if how != "" {
		every = progressInterval
	}
	if every <= 0 || !x.req.Stream {
		return 0, ""
	}
	return every, how
}

// tellUntil tells the client that it waits until do is done.
func tellUntil[T any](x *exchange, every time.Duration, how string, do func() T) T {
	got := make(chan T, 1)
	go func() { got <- do() }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case v := <-got:
			return v
		case <-tick.C:
			x.keepAlive(how)
		}
	}
}

// request is what the activator is asked for.
func (x *exchange) request() activator.Request {
	r := activator.Request{Key: x.model.Key, Client: clientOf(x.r, x.key), Bytes: x.body.Len()}
	if x.model.KeepContext || x.model.MaxInstances > 1 {
		x.conversation = openai.ConversationKey(x.body.Bytes(), x.req)
		r.Conversation, r.Path, r.Body = x.conversation, x.r.URL.Path, x.body.Bytes()
	}
	return r
}

// keepAlive tells the client that it still waits, by an SSE comment unless it asked for more. If the client is gone the context tells.
func (x *exchange) keepAlive(how string) {
	if !x.early {
		x.early, x.status = true, http.StatusOK
		header := x.w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-cache")
		x.w.WriteHeader(http.StatusOK)
	}
	_, _ = x.w.Write(x.waiting(how))
	_ = http.NewResponseController(x.w).Flush()
}

// tell says what became of the wait, and to the client after a cold start how long its parts took.
func (x *exchange) tell(lease *activator.Lease) {
	x.leased(lease)
	if x.early {
		return
	}
	x.w.Header()[modelHeader] = x.stats.header
	if x.cold {
		run := lease.Running()
		x.w.Header().Set("Server-Timing", fmt.Sprintf("spawn;dur=%.1f, ready;dur=%.1f, queue;dur=%.1f",
			millis(run.Spawned), millis(run.Loaded), millis(x.waited)))
	}
}

// send sends the request to the instance and its answer to the client.
func (x *exchange) send(run *lifecycle.Running) error {
	x.r.Header.Del("Upgrade") // Java's client offers h2c with every request; a server may ignore that (RFC 9110 7.8)
	out := &upstream.Request{In: x.r, Body: x.body.Bytes(), Length: x.body.Len()}
	to := run.Lean
	if x.h.Transport == transportStd {
		to = run.Std
		out.BodyReader = func() (io.ReadCloser, error) { return x.body.NewReader(), nil } // it may outlive us there
	}
	if run.Kind.Repairs != x.planned { // "auto" chose another kind since it was started
		if err := x.planFor(run.Kind); err != nil {
			return err
		}
	}
	x.streamed = x.req.Stream
	switch {
	case x.plan != nil:
		return x.sendRepaired(run, to)
	case x.ep.joins && x.req.Joinable() && run.Kind.StreamsPlain(x.model):
		return x.sendJoined(run, to)
	case x.early:
		return x.sendAfterEarly(run, to, out)
	}
	res, err := to.Forward(x.r.Context(), x.w, out, upstream.Hooks{
		Head: func(status int, header http.Header) {
			x.status = status
			header[requestIDHeader] = header[requestIDHeader][:1] // an engine's own is not the one in our logs
		},
		Tap: func(piece []byte) {
			x.answered(run)
			x.seen(piece)
		},
	})
	if err == nil || !res.Started {
		return err
	}
	return x.broken(err)
}

// answered notes the first byte of an answer: an instance's first is the last phase of its cold start.
func (x *exchange) answered(run *lifecycle.Running) {
	if x.token.IsZero() {
		x.token = time.Now()
	}
	if x.patience != nil {
		x.patience.heard()
	}
	if took, isFirst := run.Answered(); isFirst {
		x.h.rt.act.FirstByte(x.model.Name, took)
	}
}

// seen notes a piece of the answer that goes to the client.
func (x *exchange) seen(piece []byte) {
	if x.sent.IsZero() {
		x.sent = time.Now()
	}
	x.bytes += int64(len(piece))
	_, _ = x.tap.Write(piece)
}

// sendJoined asks for a stream where the client asked for a whole, and puts it together: an engine that does not notice
// that the client of a plain request left notices it of a stream.
func (x *exchange) sendJoined(run *lifecycle.Running, to upstream.Transport) error {
	body := openai.AskStream(x.body.Bytes(), x.req, x.ep.join)
	res, err := to.Do(x.r.Context(), &upstream.Request{In: x.r, Body: body, Length: int64(len(body))})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	status := res.StatusCode
	var whole []byte
	if openai.IsStream(res.StatusCode, res.Header) {
		x.streamed = true
		whole, err = openai.Join(noticed{res.Body, func() { x.answered(run) }}, x.ep.join)
		res.Header.Set("Content-Type", "application/json; charset=utf-8")
		var told *openai.EngineError
		if errors.As(err, &told) {
			status, whole, err = told.Status, told.Body, nil
		}
	} else {
		whole, err = io.ReadAll(res.Body)
	}
	if err != nil {
		if ctx := x.r.Context(); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &upstream.HeadError{Err: err} // nothing of the answer was told to the client
	}
	x.seen(whole)
	header := x.w.Header()
	for name, values := range res.Header {
		switch name {
		case requestIDHeader, "Content-Length", "Cache-Control": // ours; the stream's
		case "Vary": // we may have said something of it
			header[name] = append(header[name], values...)
		default:
			header[name] = values
		}
	}
	header["Content-Length"] = []string{strconv.Itoa(len(whole))}
	x.status = status
	x.w.WriteHeader(status)
	_, _ = x.w.Write(whole) // a client that is gone has no answer
	return nil
}

// sendAfterEarly passes an answer on whose status the client has been told already: an error becomes one of the stream.
func (x *exchange) sendAfterEarly(run *lifecycle.Running, to upstream.Transport, out *upstream.Request) error {
	res, err := to.Do(x.r.Context(), out)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if !openai.IsStream(res.StatusCode, res.Header) {
		const longest = 64 << 10
		said, _ := io.ReadAll(io.LimitReader(res.Body, longest))
		event := fmt.Appendf(nil, "data: %s\n\n", bytes.ReplaceAll(said, []byte("\n"), []byte(" ")))
		x.status = res.StatusCode
		x.seen(event)
		_, _ = x.w.Write(event)
		return nil
	}
	client := flushing{w: x.w, to: http.NewResponseController(x.w), seen: x.seen}
	if _, err := io.Copy(client, noticed{res.Body, func() { x.answered(run) }}); err != nil {
		return x.broken(&upstream.BodyError{Written: true, Err: err})
	}
	return nil
}

// noticed calls read whenever a piece was read.
type noticed struct {
	r    io.Reader
	read func()
}

func (f noticed) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 {
		f.read()
	}
	return n, err
}

// flushing flushes after each write: a token is not to wait for the next.
type flushing struct {
	w    io.Writer
	to   *http.ResponseController
	seen func([]byte)
}

func (f flushing) Write(p []byte) (int, error) {
	f.seen(p)
	n, err := f.w.Write(p)
	if err == nil {
		err = f.to.Flush()
	}
	return n, err
}

// broken ends an answer that broke off after its head: a stream by an error that SDKs raise, anything else by breaking the
// connection. Never does it look like a proper end.
func (x *exchange) broken(err error) error {
	fault := x.tooSlow()
	if fault == nil {
		var engine *upstream.BodyError
		if !errors.As(err, &engine) || x.r.Context().Err() != nil {
			return x.left(err)
		}
		fault = x.crashed()
	}
	x.status, x.failed = fault.Status, codeOf(fault)
	if x.client != nil {
		x.client.Fail(fault)
		return nil
	}
	if strings.HasPrefix(x.w.Header().Get("Content-Type"), "text/event-stream") {
		_, _ = io.WriteString(x.w, "\n\n") // it may have broken off in the middle of a line
		x.failStream(fault)
		return nil
	}
	panic(http.ErrAbortHandler)
}

func (x *exchange) failStream(e *openai.Error) {
	_, _ = x.w.Write(openai.StreamError(e))
	_ = http.NewResponseController(x.w).Flush()
	x.status, x.failed = e.Status, codeOf(e)
}

// gone reports whether the client left before it was told of the error.
func (x *exchange) gone(err error) bool {
	return x.r.Context().Err() != nil || errors.Is(err, openai.ErrClientGone)
}

// left is what Caddy is told of a client that left.
func (x *exchange) left(err error) error {
	x.status, x.failed = statusClientGone, codeClientGone
	return caddyhttp.Error(statusClientGone, err)
}

// fail tells the client of an error of an answer that has not begun. It returns what Caddy is to know of it.
func (x *exchange) fail(err error) error {
	if err == nil {
		return nil
	}
	if handled(err) {
		return err
	}
	if x.gone(err) {
		return x.left(err)
	}
	e := x.apiError(err)
	if e.Status >= http.StatusInternalServerError && x.model != nil {
		x.h.rt.log.Warn("request failed", "model", x.model.Name, "status", e.Status, "code", e.Code, "error", err)
	}
	if x.early {
		x.failStream(e)
		return nil
	}
	x.status, x.failed = e.Status, codeOf(e)
	e.WriteTo(x.w)
	return nil
}

// handled reports whether an error is one that Caddy only is to know of: the client has been told, or is gone.
func handled(err error) bool {
	var he caddyhttp.HandlerError
	return errors.As(err, &he)
}

// apiError is what a client is told of an error of ours.
func (x *exchange) apiError(err error) *openai.Error {
	var api *openai.Error
	if errors.As(err, &api) {
		return api
	}
	var fault *activator.Error
	if errors.As(err, &fault) {
		return activationError(x.name(), fault)
	}
	var bad *upstream.RequestError
	if errors.As(err, &bad) {
		return openai.InvalidRequest("", bad.Err.Error())
	}
	var head *upstream.HeadError
	if errors.As(err, &head) {
		return x.crashed()
	}
	return openai.EngineFailed(x.name(), err.Error())
}

// crashed is what a client is told of an engine that ended before its answer did: by itself, or with the server.
func (x *exchange) crashed() *openai.Error {
	if caddy.Exiting() {
		return openai.ShuttingDown()
	}
	return openai.EngineCrashed(x.name())
}

func (x *exchange) name() string { return first(x.req.Model, defaultAlias) }

func activationError(model string, e *activator.Error) *openai.Error {
	switch e.Fault {
	case activator.FaultUnknown:
		return openai.ModelNotFound(model)
	case activator.FaultFull:
		return openai.QueueFull(model, e.RetryAfter)
	case activator.FaultWait:
		return openai.Loading(model, e.RetryAfter)
	case activator.FaultShutdown:
		return openai.ShuttingDown()
	case activator.FaultTooLarge:
		return openai.EngineFailed(model, "it does not fit this machine: "+fmt.Sprint(e.Cause))
	default:
		failed := openai.EngineFailed(model, fmt.Sprint(e.Cause))
		failed.RetryAfter = e.RetryAfter
		return failed
	}
}
