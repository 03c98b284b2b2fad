package upstream

import (
	"net"
	"syscall"
	"time"
)

// conn is one connection to an engine. While idle it holds no buffers.
type conn struct {
	net.Conn
	reused    bool
	idleSince time.Time
	abort     func()          // closes the connection, for context.AfterFunc; made once
	raw       syscall.RawConn // nil where there is none
	peek      func(fd uintptr) bool
	silent    bool // what peek found
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc}
	c.abort = func() { _ = nc.Close() }
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, c.peek = raw, c.peekAt
		}
	}
	return c
}
