//go:build !linux && !darwin

package upstream

import "time"

// trusted is how long an idle connection is believed to be open where it cannot be asked: less than the idle timeout of
// any engine known to us (5 s in uvicorn and cpp-httplib).
const trusted = 2 * time.Second

func (c *conn) alive() bool { return time.Since(c.idleSince) < trusted }

func (c *conn) peekAt(uintptr) bool { return true }
