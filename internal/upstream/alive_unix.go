//go:build linux || darwin

package upstream

import "syscall"

// alive tells whether an idle connection is open and has nothing to read: what an engine says unasked would be taken for
// the answer to the next request.
func (c *conn) alive() bool {
	return c.raw != nil && c.raw.Read(c.peek) == nil && c.silent
}

func (c *conn) peekAt(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	c.silent = err == syscall.EAGAIN
	return true // never wait
}
