package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"assistant/internal/guest"
	"assistant/lifecycle/launcher"
)

// guestServer listens where an engine would, for one that speaks frames over stdin and stdout.
type guestServer struct {
	host   *guest.Host
	server *http.Server
	stdout *os.File
}

// guestEnds is how long a guest's process may live after its stdout was closed before the guest is taken for broken.
const guestEnds = time.Second

// serveGuest starts the process with pipes and listens at the instance's address.
func (s *start) serveGuest(spec launcher.Spec) (*launcher.Process, error) {
	network, address := s.address()
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen for the guest: %w", err)
	}
	stdin, toGuest, err := os.Pipe()
	if err != nil {
		listener.Close()
		return nil, err
	}
	fromGuest, stdout, err := os.Pipe()
	if err == nil {
		var proc *launcher.Process
		spec.Stdin, spec.Stdout = stdin, stdout
		proc, err = s.runner.launcher.Start(spec)
		stdin.Close() // the process has its own
		stdout.Close()
		if err == nil {
			s.guest = newGuestServer(listener, toGuest, fromGuest, s)
			return proc, nil
		}
		fromGuest.Close()
	} else {
		stdin.Close()
	}
	toGuest.Close()
	listener.Close()
	return nil, err
}

func newGuestServer(listener net.Listener, toGuest, fromGuest *os.File, s *start) *guestServer {
	log := s.log.WithGroup("engine")
	g := &guestServer{stdout: fromGuest}
	g.host = guest.Start(toGuest, fromGuest, s.plan.Guest, func(line string) {
		s.output.add(line)
		log.Debug(line)
	})
	g.server = &http.Server{Handler: g.host, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := g.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("serving a guest ended", "error", err)
		}
	}()
	return g
}

// announced is closed when the engine has said that it is ready; nil for one that has to be asked.
func (s *start) announced() <-chan struct{} {
	if s.guest == nil {
		return nil
	}
	return s.guest.host.Ready()
}

// guestDone is closed when nothing more comes from a guest; nil if the engine is none.
func (s *start) guestDone() <-chan struct{} {
	if s.guest == nil {
		return nil
	}
	return s.guest.host.Done()
}

// why tells why nothing more comes from a guest whose process lives on.
func (g *guestServer) why() error {
	if err := g.host.Err(); err != nil {
		return err
	}
	return errors.New("it closed its output")
}

// closeGuest ends what serves in place of an engine, once its processes are gone.
func (s *start) closeGuest() {
	if s.guest == nil {
		return
	}
	s.guest.host.Close()
	s.guest.server.Close()
	s.guest.stdout.Close() // a process that got away may hold the other end
	<-s.guest.host.Done()
	s.guest = nil
}
