//go:build !unix

package enginetest

import (
	"errors"
	"os/exec"
)

// ownSession does nothing: there are no sessions.
func ownSession(*exec.Cmd) {}

func (g gpus) lock() (unlock func(), err error) { return nil, errors.New("pretended GPUs need unix") }
