package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// secondTerm is when SIGTERM is sent again: llama-server hangs on the first one while
	// it streams, and ends on the second (measured with build 11669).
	secondTerm = time.Second

	// aliveInterval is how often something that is not our own child is looked at.
	aliveInterval = 200 * time.Millisecond

	// afterKill is how long a killed process may take to vanish before we go on without it.
	afterKill = 5 * time.Second
)

// watch returns when the instance is told to stop (nil) or has ended by itself (why).
func (s *start) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.guestDone():
		// It has nothing to say any more, or what nobody understands; its end may follow at once, and tells more.
		if !s.goneWithin(guestEnds) {
			return fmt.Errorf("the engine's guest ended: %w", s.guest.why())
		}
	case <-s.proc.Exited():
	}
	if err := s.proc.Err(); err != nil {
		return fmt.Errorf("the engine died: %w", err)
	}
	look := time.NewTicker(aliveInterval)
	defer look.Stop()
	for s.proc.Alive() || s.detached() && s.accepts(ctx) {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
	return errors.New("the engine ended by itself")
}

// end sees to it that nothing of the instance is left: stop_command, SIGTERM twice, SIGKILL.
func (s *start) end() {
	ctx := context.Background() // an end is carried through
	if len(s.model.StopCommand) > 0 {
		s.command(ctx, "stop_command", s.model.StopCommand)
	}
	began := time.Now()
	limit := s.stopTimeout()
	s.proc.Signal(syscall.SIGTERM)
	if !s.goneWithin(min(secondTerm, limit)) {
		s.proc.Signal(syscall.SIGTERM)
		if !s.goneWithin(limit - time.Since(began)) {
			s.log.Warn("engine killed: it did not stop", "after", time.Since(began).Round(time.Millisecond))
			s.proc.Signal(syscall.SIGKILL)
			if !s.goneWithin(afterKill) {
				s.log.Error("engine cannot be killed", "pid", s.proc.PID)
			}
		}
	}
	s.runner.records.remove(s.proc.Mark)
	s.proc.Forget()
}

// goneWithin waits for the program and all that it started to end.
func (s *start) goneWithin(limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-s.proc.Exited():
	case <-timeout.C:
		return false
	}
	for s.proc.Alive() {
		select {
		case <-timeout.C:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}
