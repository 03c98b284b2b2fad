package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A peer is a way from the client to an engine.
type peer struct {
	name string
	// start brings up the peer and an engine with the given flags behind it,
	// and returns when both are warm.
	start func(b *bench, flags ...string) (target, error)
}

// A target is a peer that runs.
type target struct {
	addr   string   // host:port
	router *process // nil = there is none
}

// Names of the peers that goals speak of.
const (
	direct = "direct"
	caddy  = "caddy"
	ours   = "ours"
)

// peers are measured in this order in each round.
func (b *bench) peers() []peer {
	all := []peer{
		{direct, startDirect},
		{caddy, startCaddy},
		{ours, startOurs},
	}
	if !b.hasOurs {
		all = all[:2]
	}
	return all
}

func startDirect(b *bench, flags ...string) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	argv := append([]string{b.engine, "--port", strconv.Itoa(port)}, flags...)
	p, err := b.procs.start("engine", argv...)
	if err != nil {
		return target{}, err
	}
	t := target{addr: "127.0.0.1:" + strconv.Itoa(port)}
	return t, p.await(b.ctx, answers(t.addr, get(t.addr, "/health")))
}

func startCaddy(b *bench, flags ...string) (target, error) {
	engine, err := startDirect(b, flags...)
	if err != nil {
		return target{}, err
	}
	t, err := b.startRouter("", "reverse_proxy "+engine.addr)
	if err != nil {
		return target{}, err
	}
	return t, t.router.await(b.ctx, answers(t.addr, get(t.addr, "/health")))
}

func startOurs(b *bench, flags ...string) (target, error) {
	t, err := b.startAssistant([]model{{"m1", flags}}, 10)
	if err != nil {
		return target{}, err
	}
	return t, t.router.await(b.ctx, answers(t.addr, post(t.addr, "m1", 64, `"max_tokens":1`)))
}

// startRouter runs the product with a Caddyfile of one site on a free port of the
// loopback address. It does not wait for it.
func (b *bench) startRouter(global, site string) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	admin, err := freePort()
	if err != nil {
		return target{}, err
	}
	config := fmt.Sprintf("{\n\tadmin localhost:%d\n\tdefault_bind 127.0.0.1\n%s}\nhttp://127.0.0.1:%d {\n\t%s\n}\n", admin, global, port, site)
	file := filepath.Join(b.dir, fmt.Sprintf("Caddyfile-%d", port))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return target{}, err
	}
	p, err := b.procs.start("caddy", b.caddy, "run", "--adapter", "caddyfile", "--config", file)
	return target{"127.0.0.1:" + strconv.Itoa(port), p}, err
}

// A model is a name and the flags of the fake engine that serves it.
type model struct {
	name  string
	flags []string
}

// startAssistant runs the product with our module and the given models. It does
// not wait for it, and no engine starts.
func (b *bench) startAssistant(models []model, maxInstances int) (target, error) {
	dir, err := os.MkdirTemp(b.dir, "models-")
	if err != nil {
		return target{}, err
	}
	state, err := os.MkdirTemp(b.dir, "state-")
	if err != nil {
		return target{}, err
	}
	for _, m := range models {
		argv := append([]string{b.engine, "--port", "{{port}}", "--alias", m.name}, m.flags...)
		for i, arg := range argv {
			argv[i] = strconv.Quote(arg)
		}
		toml := fmt.Sprintf("name = %q\nengine = \"command\"\ncommand = [%s]\nready_path = \"/health\"\n", m.name, strings.Join(argv, ", "))
		if err := os.WriteFile(filepath.Join(dir, m.name+".toml"), []byte(toml), 0o600); err != nil {
			return target{}, err
		}
	}
	return b.startRouter(fmt.Sprintf("\tassistant {\n\t\tconfig_dir %s\n\t\tstate_dir %s\n\t\tmax_instances %d\n\t\tmax_load 0\n\t\tidle_timeout 5m\n\t}\n",
		dir, state, maxInstances), "assistant")
}

// answers returns a question: does the server at addr answer this request with 200?
func answers(addr string, request []byte) func() bool {
	return func() bool {
		c := client{addr: addr, timeout: 30 * time.Second}
		defer c.close()
		r, err := c.do(request)
		return err == nil && r.status == 200
	}
}
