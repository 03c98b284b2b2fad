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
	// edit puts m in the place of the model of its name, in the configuration that
	// a running router watches; nil = there is none.
	edit func(m model) error
	// readsLate is of a router that answers before it has read all its models, and
	// answers for each by its name.
	readsLate bool
}

// A router is a peer that starts engines by itself, when they are asked for.
type router struct {
	name string
	// run starts the router. It does not wait for it, and no engine starts.
	run func(b *bench, f fleet) (target, error)
}

// A fleet is what a router is told of its models.
type fleet struct {
	models []model
	room   int // how many engines may live at a time
	// defaults leaves a router's own bound on the requests of a model as it comes.
	// Otherwise it is raised out of the way, to concurrency.
	defaults bool
	// split is for routers that can say "any 2 of 10" in a costly way only: as many
	// groups as there is room, in each of which one model lives at a time.
	split bool
}

// concurrency is what a router's bound on the requests of a model is raised to.
const concurrency = 1000

// A model is a name and the command of its engine, in which {{port}} stands for
// the port that the router chooses.
type model struct {
	name string
	argv []string
	gguf string // of a real engine, which ours starts in its own way; "" = fake
}

// fake is a model served by the fake engine.
func (b *bench) fake(name string, flags ...string) model {
	return model{name: name, argv: append([]string{b.engine, "--port", "{{port}}", "--alias", name}, flags...)}
}

// fakes are n models named m0, m1, …
func (b *bench) fakes(n int, flags ...string) []model {
	models := make([]model, n)
	for i := range models {
		models[i] = b.fake(fmt.Sprintf("m%d", i), flags...)
	}
	return models
}

// Names of the peers that goals speak of.
const (
	direct    = "direct"
	caddy     = "caddy"
	ours      = "ours"
	llamaSwap = "llama-swap"
	llamaCpp  = "llama.cpp"
)

// peers are measured in this order in each round.
func (b *bench) peers() []peer {
	all := []peer{
		{direct, startDirect},
		{caddy, startCaddy},
	}
	for _, r := range b.routers(false) {
		all = append(all, peer{r.name, r.warm})
	}
	return all
}

// routers are the peers that start engines, ours before its rivals: all that start
// the fake engine, or withReal those too that start nothing but the real one.
func (b *bench) routers(withReal bool) []router {
	var all []router
	if b.hasOurs {
		all = append(all, router{ours, startAssistant})
	}
	for _, r := range b.rivals {
		if withReal || !r.real {
			all = append(all, router{r.name, r.run})
		}
	}
	return all
}

// warm starts the router with one model, m1, and the model.
func (r router) warm(b *bench, flags ...string) (target, error) {
	t, err := r.run(b, fleet{models: []model{b.fake("m1", flags...)}, room: 10})
	if err != nil {
		return t, err
	}
	return t, t.router.await(b.ctx, answers(t.addr, post(t.addr, "m1", 64, `"max_tokens":1`)))
}

// up starts the router with the given models and returns when it knows them.
func (r router) up(b *bench, f fleet) (target, error) {
	t, err := r.run(b, f)
	if err != nil {
		return t, err
	}
	path := "/v1/models"
	if t.readsLate {
		path += "/" + f.models[len(f.models)-1].name
	}
	return t, t.router.await(b.ctx, answers(t.addr, get(t.addr, path)))
}

// A running router is one of those that a suite has brought up.
type running struct {
	router
	target
	events string // the file in which its fake engines write
}

// upAll brings up all routers, each with the models that fleet makes for its file
// of events. A rival that does not start is left out with a notice.
func (b *bench) upAll(name string, routers []router, fleet func(r router, events string) fleet) ([]running, error) {
	var all []running
	for i, r := range routers {
		events := filepath.Join(b.dir, fmt.Sprintf("%s-%d.events", name, i))
		t, err := r.up(b, fleet(r, events))
		switch {
		case err == nil:
			all = append(all, running{r, t, events})
		case r.name == ours || b.ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", r.name, err)
		default:
			b.leaveOut(r.name, err)
		}
	}
	return all, nil
}

func startDirect(b *bench, flags ...string) (target, error) {
	return b.startEngine(b.fake("m1", flags...))
}

// startEngine runs a model's engine without a router.
func (b *bench) startEngine(m model) (target, error) {
	port, err := freePort()
	if err != nil {
		return target{}, err
	}
	p, err := b.procs.start("engine", m.command(strconv.Itoa(port))...)
	if err != nil {
		return target{}, err
	}
	t := target{addr: "127.0.0.1:" + strconv.Itoa(port)}
	return t, p.await(b.ctx, answers(t.addr, get(t.addr, "/health")))
}

// command is the model's argument vector with the port put in.
func (m model) command(port string) []string {
	argv := make([]string, len(m.argv))
	for i, a := range m.argv {
		argv[i] = strings.ReplaceAll(a, "{{port}}", port)
	}
	return argv
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
	return target{addr: "127.0.0.1:" + strconv.Itoa(port), router: p}, err
}

// startAssistant runs the product with our module. Its limits on waiting are its
// defaults, so fleet.defaults changes nothing.
func startAssistant(b *bench, f fleet) (target, error) { return b.startOurs(f, "", "assistant") }

// startOurs is startAssistant with more options, and with the site's directives.
func (b *bench) startOurs(f fleet, options, site string) (target, error) {
	dir, err := os.MkdirTemp(b.dir, "models-")
	if err != nil {
		return target{}, err
	}
	state, err := os.MkdirTemp(b.dir, "state-")
	if err != nil {
		return target{}, err
	}
	write := func(m model) error {
		return replace(filepath.Join(dir, m.name+".toml"), m.toml())
	}
	for _, m := range f.models {
		if err := write(m); err != nil {
			return target{}, err
		}
	}
	t, err := b.startRouter(fmt.Sprintf("\tassistant {\n\t\tconfig_dir %s\n\t\tstate_dir %s\n\t\tmax_instances %d\n\t\tmax_load 0\n\t\tidle_timeout 5m\n%s\t}\n",
		dir, state, f.room, options), site)
	t.edit, t.readsLate = write, true
	return t, err
}

// toml is the model as our configuration says it.
func (m model) toml() string {
	if m.gguf != "" { // its own program is found by LLAMA_SERVER
		return fmt.Sprintf("name = %q\nengine = \"llama-server\"\nmodel_path = %q\nctx_size = %d\nconcurrency = %d\nargs = [%s]\n",
			m.name, m.gguf, realContext, realSlots, quoted(realFlags))
	}
	return fmt.Sprintf("name = %q\nengine = \"command\"\ncommand = [%s]\nready_path = \"/health\"\n", m.name, quoted(m.argv))
}

// quoted is a list of strings as TOML has it.
func quoted(list []string) string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = strconv.Quote(s)
	}
	return strings.Join(all, ", ")
}

// replace writes a file at once: whoever watches it never sees half of it.
func replace(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
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
