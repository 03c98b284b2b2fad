//go:build !unix

package enginetest

import "os/exec"

// ownSession does nothing: there are no sessions.
func ownSession(*exec.Cmd) {}
