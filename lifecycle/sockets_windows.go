package lifecycle

// socketsWork says that engines can be reached by unix sockets: Windows has them, engines there do not.
const socketsWork = false
