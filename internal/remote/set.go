package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"assistant/internal/upstream"
)

// How often and how long servers are asked for their lists, which tell also whether they are there. One that has requests of ours is asked more often: a request
// may take minutes, and if its server is gone somebody else is to answer it.
const (
	listEvery  = 30 * time.Second
	watchEvery = time.Second
	askWithin  = 2 * time.Second
	goneAfter  = 2       // questions in a row without an answer
	maxList    = 4 << 20 // bytes
)

// Set is the servers that there are.
type Set struct {
	configs []Config
	servers []*Server
	log     *slog.Logger
	models  atomic.Pointer[[]Model]
	first   sync.WaitGroup
	known   chan struct{} // closed when all were asked once
	stop    context.CancelFunc
	runs    sync.WaitGroup
}

// Model is a model of theirs.
type Model struct {
	ID      string   // what clients write; with the server's name before it where a local model may have the same
	Servers []string // names
}

// NewSet makes a set of servers and begins to ask them for their models.
func NewSet(configs []Config, log *slog.Logger) (*Set, error) {
	s := &Set{configs: configs, log: log, known: make(chan struct{})}
	names := map[string]bool{}
	for i, c := range configs {
		server, err := newServer(c)
		if err != nil {
			return nil, fmt.Errorf("remote server %s: %w", c.URL, err)
		}
		if names[server.Name] {
			server.Name = fmt.Sprintf("%s-%d", server.Name, i+1)
		}
		names[server.Name] = true
		s.servers = append(s.servers, server)
	}
	s.collect()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.first.Add(len(s.servers))
	for _, server := range s.servers {
		s.runs.Go(func() { s.follow(ctx, server) })
	}
	s.runs.Go(func() {
		s.first.Wait()
		close(s.known)
	})
	return s, nil
}

// Of reports whether a set is that of these servers; nil is that of none.
func (s *Set) Of(configs []Config) bool {
	if s == nil {
		return len(configs) == 0
	}
	return reflect.DeepEqual(s.configs, configs)
}

// Close ends the questions. Requests that are on their way end by themselves.
func (s *Set) Close() {
	s.stop()
	s.runs.Wait()
	for _, server := range s.servers {
		server.Transport.Close()
	}
}

// follow asks a server for its list until ctx ends.
func (s *Set) follow(ctx context.Context, server *Server) {
	asked := sync.OnceFunc(s.first.Done)
	defer asked()
	silent := 0
	for last := (time.Time{}); ; {
		if now := time.Now(); last.IsZero() || now.Sub(last) >= listEvery || server.busy() || silent > 0 {
			last = now
			if s.ask(ctx, server) {
				silent = 0
			} else if silent++; silent >= goneAfter && ctx.Err() == nil {
				if silent == goneAfter {
					s.log.Warn("a remote server does not answer any more", "remote", server.Name, "url", server.URL)
				}
				server.gone()
			}
			asked()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchEvery):
		}
	}
}

// ask asks a server for its list. It reports whether there was an answer, which may be that it has none.
func (s *Set) ask(ctx context.Context, server *Server) bool {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	res, err := server.Transport.Do(ctx, &upstream.Request{In: &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/models"}, Header: http.Header{}}})
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxList))
	if err != nil {
		return false
	}
	if res.StatusCode != http.StatusOK || json.Unmarshal(b, &list) != nil {
		server.well(server.list()) // it is there
		return true
	}
	var ids []string
	for _, m := range list.Data {
		if m.ID != "" && len(m.ID) <= maxID {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	changed := !slices.Equal(ids, server.list())
	server.well(ids)
	if changed && len(server.Models) == 0 {
		s.collect()
	}
	return true
}

const maxID = 256 // bytes of a model's name

// collect makes the list of models anew.
func (s *Set) collect() {
	by := map[string]*Model{}
	var order []string
	for _, server := range s.servers {
		for _, id := range server.list() {
			if by[id] == nil {
				by[id] = &Model{ID: id}
				order = append(order, id)
			}
			by[id].Servers = append(by[id].Servers, server.Name)
		}
	}
	slices.Sort(order)
	list := make([]Model, len(order))
	for i, id := range order {
		list[i] = *by[id]
	}
	s.models.Store(&list)
}

// Models are the models of all servers, by their plain names. The slice is not to be changed, and another one when they change.
func (s *Set) Models() *[]Model { return s.models.Load() }

// WaitKnown waits until all servers were asked once, as long as ctx lasts.
func (s *Set) WaitKnown(ctx context.Context) {
	select {
	case <-s.known:
	case <-ctx.Done():
	}
}

// Known reports whether all servers were asked once.
func (s *Set) Known() bool {
	select {
	case <-s.known:
		return true
	default:
		return false
	}
}

// Find tells what a name means to the servers: the model, and, where the name has a server's before it, that server alone.
func (s *Set) Find(name string) (model, only string, ok bool) {
	for _, server := range s.servers {
		if server.has(name) {
			return name, "", true
		}
	}
	for _, server := range s.servers {
		if rest, cut := strings.CutPrefix(name, server.Name+"/"); cut && server.has(rest) {
			return rest, server.Name, true
		}
	}
	return "", "", false
}

// Errors of Take.
var (
	ErrNone = errors.New("no remote server is left to ask")
	ErrFull = errors.New("every remote server has as many requests as it may have")
)

// Take reserves the best server for a request to a model, of those that were not tried: well before not well, the least busy, then the quickest.
// One that is not well is taken only if there is no other: better to try than to refuse.
func (s *Set) Take(model, only string, tried []*Server) (*Turn, error) {
	for {
		best, full := s.best(model, only, tried)
		switch {
		case best == nil && full:
			return nil, ErrFull
		case best == nil:
			return nil, ErrNone
		}
		if turn, ok := best.take(); ok {
			return turn, nil
		}
	}
}

// Has reports whether Take would find a server now.
func (s *Set) Has(model, only string, tried []*Server) bool {
	best, _ := s.best(model, only, tried)
	return best != nil
}

// best is the server that is to be asked; nil if there is none, and then whether one has no room.
func (s *Set) best(model, only string, tried []*Server) (best *Server, full bool) {
	var chosen fitness
	now := time.Now()
	for _, server := range s.servers {
		if only != "" && server.Name != only || slices.Contains(tried, server) || !server.has(model) {
			continue
		}
		f, room := server.fitness(now)
		switch {
		case !room:
			full = true
		case best == nil || f.compare(chosen) < 0:
			best, chosen = server, f
		}
	}
	return best, full
}

// Quickest is how long the first byte of an answer took of late of the quickest server that is well, has room, and has the model; false if there is none. 0 = it
// is not known yet.
func (s *Set) Quickest(model string) (time.Duration, bool) {
	found, least := false, time.Duration(0)
	now := time.Now()
	for _, server := range s.servers {
		f, room := server.fitness(now)
		if !room || !f.well || !f.open.IsZero() || !server.has(model) {
			continue
		}
		if !found || f.first < least {
			least = f.first
		}
		found = true
	}
	return least, found
}

// Statuses are how the servers stand.
func (s *Set) Statuses() []Status {
	list := make([]Status, len(s.servers))
	for i, server := range s.servers {
		list[i] = server.status(time.Now())
	}
	return list
}
