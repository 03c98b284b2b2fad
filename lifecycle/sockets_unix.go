//go:build unix

package lifecycle

// socketsWork says that engines can be reached by unix sockets.
const socketsWork = true
