package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"assistant/lifecycle/engine"
	"assistant/lifecycle/launcher"
)

// compileTime is how long a compilation may take: llama-api-server's 10 MB took two minutes of a processor here.
const compileTime = 20 * time.Minute

// compiler compiles what later starts are quicker with, one at a time, in what is left of the processors. It is told of it when an
// instance has stopped, not when it started: even at idle priority the first answer took 149 ms instead of 61 beside it, as
// llama.cpp's threads wait for one another.
type compiler struct {
	launcher *launcher.Launcher
	log      *slog.Logger
	ctx      context.Context //nolint:containedctx // the life of the router's
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	tried map[engine.Compilation]bool
}

func newCompiler(l *launcher.Launcher, log *slog.Logger) *compiler {
	ctx, stop := context.WithCancel(context.Background())
	return &compiler{launcher: l, log: log, ctx: ctx, stop: stop, tried: map[engine.Compilation]bool{}}
}

// settle is how long is waited before anything is compiled: a router that is stopping stops all its instances.
const settle = time.Second

// begin compiles in the background what has not been tried before; nil = nothing.
func (c *compiler) begin(what *engine.Compilation) {
	if what == nil {
		return
	}
	c.running.Go(func() {
		select {
		case <-time.After(settle):
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.tried[*what] || c.ctx.Err() != nil {
			return
		}
		c.tried[*what] = true
		began := time.Now()
		switch ran, err := c.run(what); {
		case c.ctx.Err() != nil:
		case err != nil:
			c.log.Warn("cannot compile for later starts: they are as slow as the first", "wasm", what.Wasm(), "error", err)
		case ran:
			c.log.Info("compiled for later starts", "wasm", what.Wasm(), "took", time.Since(began).Round(time.Millisecond))
		}
	})
}

// run reports whether there was anything to do.
func (c *compiler) run(what *engine.Compilation) (ran bool, err error) {
	argv, finish, err := what.Begin()
	if argv == nil || err != nil {
		return false, err
	}
	output, err := os.CreateTemp("", "assistant-compile-")
	if err != nil {
		return false, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	proc, err := c.launcher.Start(launcher.Spec{Instance: "compile#" + filepath.Base(what.Wasm()), Argv: argv, Output: output})
	if err != nil {
		return false, err
	}
	defer proc.Forget()
	proc.Idle()
	limit := time.NewTimer(compileTime)
	defer limit.Stop()
	select {
	case <-proc.Exited():
		if err := proc.Err(); err != nil {
			said, _ := os.ReadFile(output.Name())
			return true, fmt.Errorf("%w: %s", err, said)
		}
		return true, finish()
	case <-limit.C:
		err = fmt.Errorf("not done after %v", compileTime)
	case <-c.ctx.Done():
		err = errors.New("the router ends")
	}
	proc.Signal(syscall.SIGKILL)
	<-proc.Exited()
	return true, err
}

// close ends what is running.
func (c *compiler) close() {
	c.stop()
	c.running.Wait()
}
