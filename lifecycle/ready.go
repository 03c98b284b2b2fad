package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"assistant/internal/upstream"
	"assistant/lifecycle/engine"
	"assistant/modeldir"
)

// Probing: each probe is one local connect, then one small request, so it is cheap enough to be
// done often. The first second is when small models get ready (DESIGN §5.4).
const (
	eagerProbing  = time.Second
	eagerInterval = 2 * time.Millisecond
	laterInterval = 5 * time.Millisecond
)

// becomeReady waits until the engine is ready and proven to be ours.
func (s *start) becomeReady(ctx context.Context) (*Running, error) {
	spawned := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("not ready after %v (start_timeout)", s.timeout))
	defer cancel()
	network, address := s.address()
	lean, std := upstream.NewPool(network, address), upstream.NewStd(network, address)
	if s.kind.OneRequestEach {
		lean.OneRequestEach()
		std.OneRequestEach()
	}
	run := &Running{
		ID: s.id, PID: s.proc.PID, Slots: s.plan.Slots, Network: network, Address: address, Kind: s.kind,
		Spawned: spawned.Sub(s.created), Lean: lean, Std: std,
	}
	if err := s.probe(ctx, lean, spawned); err != nil {
		run.close()
		return nil, err
	}
	if s.guest != nil {
		run.Slots = s.guest.host.Info().Slots
	}
	if run.Slots == engine.SlotsUnknown {
		run.Slots = askSlots(ctx, network, address, s.kind.SlotsPath)
	}
	s.giveBack(ctx, run)
	run.ReadyAt = time.Now()
	run.Loaded = run.ReadyAt.Sub(spawned)
	return run, nil
}

// probe asks again and again until the engine is ready, gone, or out of time.
func (s *start) probe(ctx context.Context, to upstream.Transport, spawned time.Time) error {
	var foreign error // what answers on our address is not ours
	pause := time.NewTimer(0)
	defer pause.Stop()
	look := time.NewTicker(aliveInterval) // at what went to the background
	defer look.Stop()
	exited := s.proc.Exited()
	announced, silent := s.announced(), s.guestDone()
	if announced != nil {
		pause.Stop() // it says so itself
	}
	for {
		select {
		case <-announced:
			return nil
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), foreign)
		case <-silent:
			silent = nil
			if !s.goneWithin(guestEnds) {
				return fmt.Errorf("the engine's guest ended before it was ready: %w", s.guest.why())
			}
		case <-exited:
			if err := s.leftBehind(); err != nil {
				return errors.Join(err, foreign)
			}
			exited = nil // it went to the background; what it started goes on
		case <-look.C:
			if exited == nil {
				if err := s.leftBehind(); err != nil {
					return errors.Join(err, foreign)
				}
			}
			continue
		case <-pause.C:
		}
		if announced != nil {
			continue // we listen for a guest ourselves: that somebody answers says nothing of it
		}
		if s.answers(ctx, to) {
			if foreign = s.proveOurs(); foreign == nil {
				return nil
			}
			if s.choosesPort() {
				return foreign // ours can never have this port now
			}
		}
		interval := eagerInterval
		if time.Since(spawned) > eagerProbing {
			interval = laterInterval
		}
		pause.Reset(interval)
	}
}

// answers reports whether the engine is ready by its own word.
func (s *start) answers(ctx context.Context, to upstream.Transport) bool {
	path := s.model.ReadyPath
	if path == "" {
		path = s.kind.ReadyPath
	}
	if path == "" {
		return s.accepts(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := to.Get(ctx, path)
	return err == nil && status == http.StatusOK
}

// accepts reports whether something listens where the engine is to.
func (s *start) accepts(ctx context.Context) bool {
	network, address := s.address()
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// proveOurs checks that the listener belongs to what we spawned. A unix socket in our own
// directory can be nobody else's.
func (s *start) proveOurs() error {
	network, address := s.address()
	if network == "unix" || s.model.Identity == modeldir.IdentityNone {
		return nil
	}
	addr, err := resolve(address)
	if err != nil {
		return err
	}
	owner, err := s.proc.Listener(addr)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil // this system does not tell; doctor says so
	case err != nil:
		return fmt.Errorf("find out who listens on %s: %w", addr, err)
	case owner.Ours:
		return nil
	case owner.PID > 0:
		return fmt.Errorf("%w: process %d listens on %s, which is not what was started", errPortTaken, owner.PID, addr)
	default:
		return fmt.Errorf("%w: what listens on %s cannot be shown to be what was started; set identity = %q if it is a container", errPortTaken, addr, modeldir.IdentityNone)
	}
}

func resolve(address string) (netip.AddrPort, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return tcp.AddrPort(), nil
}

var errEnded = errors.New("the engine ended before it was ready")

// leftBehind tells what the end of the program itself means: nil if what it started, or a container
// that it told somebody else to run, serves in its place.
func (s *start) leftBehind() error {
	if err := s.proc.Err(); err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	if s.proc.Alive() || s.detached() {
		return nil
	}
	return fmt.Errorf("%w, with status 0", errEnded)
}

// detached reports whether the engine is not our process at all, as after docker run -d.
func (s *start) detached() bool {
	return s.model.Upstream != "" && s.model.Identity == modeldir.IdentityNone
}

// askSlots asks an engine for its number of slots; 1 if it does not say.
func askSlots(ctx context.Context, network, address, path string) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, http.NoBody)
	if err != nil {
		return 1
	}
	res, err := client.Do(req)
	if err != nil {
		return 1
	}
	defer res.Body.Close()
	var props struct {
		TotalSlots int `json:"total_slots"`
	}
	if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&props) != nil || props.TotalSlots < 1 {
		return 1
	}
	return props.TotalSlots
}
