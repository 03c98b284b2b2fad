// Command fakeengine is the fake engine of package enginetest as a binary.
package main

import (
	"os"

	"assistant/internal/enginetest"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == enginetest.Word {
		args = args[1:]
	}
	os.Exit(enginetest.Main(args))
}
