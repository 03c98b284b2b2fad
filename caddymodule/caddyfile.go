package caddymodule

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"assistant/internal/remote"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("assistant", parseGlobal)
	httpcaddyfile.RegisterHandlerDirective("assistant", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("assistant", httpcaddyfile.Before, "reverse_proxy")
}

func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("the global option assistant is given twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "assistant", Value: caddyconfig.JSON(app, nil)}, nil
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the global option:
//
//	assistant {
//		config_dir    <directory>          # one TOML file a model; default ./models
//		config        <file>               # a config.toml; default none
//		state_dir     <directory>          # default: assistant in Caddy's data directory
//		max_instances <n>                  # default 10
//		max_load      <load per CPU>       # from which there are no replicas; 0 = off; default 0.8
//		idle_timeout  <duration>           # 0 = never retire; default 5m
//		start_timeout <duration>           # default 5m
//		max_wait      <duration>           # default 60s
//		queue         <per model> [total]  # requests waiting; default 1000 10000
//		queue_bytes   <per model> [total]  # their bodies; default 1GiB 4GiB
//		queue_client  <requests> [bytes]   # of one client, for one model; default as of all
//		keep_last     on|off               # the instance used last stays; default off
//		predict       on|off               # start what is likely to be asked for; default off
//		context_disk  <size>               # for models with keep_context; 0 = none; default 4GiB
//		keys          <file>               # API keys, of which each request then needs one; default: see App.Keys
//		identity      <placeholder>        # who holds a key without its secret; default none
//		insecure      on|off               # without keys, serve everybody; default off
//		allow_remote_commands on|off       # gRPC may set what models run: command, args, env, wasm; default off
//		max_body      <size>               # default 32MiB
//		model_store   <directory>          # of downloaded models; default: store in state_dir
//		remote_servers <url>...            # other servers; with keys and more: in config.toml or JSON
//		download_limit <size>              # a second, of all downloads together; 0 = none; default 0
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return eachOption(d, func(option string, args []string) error {
		if option == "remote_servers" {
			return a.remoteOption(d, args)
		}
		if len(args) == 0 || len(args) > 2 || len(args) == 2 && !strings.HasPrefix(option, "queue") {
			return d.ArgErr()
		}
		return a.option(d, option, args)
	})
}

// eachOption calls set with the options of a block and their arguments, none of them twice.
func eachOption(d *caddyfile.Dispenser, set func(option string, args []string) error) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return d.Errf("%s is given twice", option)
		}
		seen[option] = true
		args := d.RemainingArgs()
		if d.NextBlock(nesting + 1) {
			return d.Errf("%s takes no block", option)
		}
		if err := set(option, args); err != nil {
			return err
		}
	}
	return nil
}

// remoteOption takes the addresses of remote servers.
func (a *App) remoteOption(d *caddyfile.Dispenser, urls []string) error {
	if len(urls) == 0 {
		return d.ArgErr()
	}
	for _, u := range urls {
		a.RemoteServers = append(a.RemoteServers, remote.Config{URL: u})
	}
	return nil
}

func (a *App) option(d *caddyfile.Dispenser, option string, args []string) error {
	switch arg := args[0]; option {
	case "config_dir":
		a.ConfigDir = arg
	case "config":
		a.Config = arg
	case "state_dir":
		a.StateDir = arg
	case "max_instances":
		return positive(d, option, arg, &a.MaxInstances)
	case "max_load":
		load, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(load >= 0 && load < 1e6) {
			return d.Errf("max_load %q: give a number, 0 or more", arg)
		}
		a.MaxLoad = &load
	case "idle_timeout":
		a.IdleTimeout = new(caddy.Duration)
		return duration(d, option, arg, a.IdleTimeout, true)
	case "start_timeout":
		return duration(d, option, arg, &a.StartTimeout, false)
	case "max_wait":
		return duration(d, option, arg, &a.MaxWait, false)
	case "queue":
		if len(args) == 2 {
			if err := positive(d, option, args[1], &a.QueueTotal); err != nil {
				return err
			}
		}
		return positive(d, option, arg, &a.Queue)
	case "queue_bytes":
		if len(args) == 2 {
			if err := size(d, option, args[1], &a.QueueBytesTotal, false); err != nil {
				return err
			}
		}
		return size(d, option, arg, &a.QueueBytes, false)
	case "queue_client":
		if len(args) == 2 {
			if err := size(d, option, args[1], &a.QueueBytesClient, false); err != nil {
				return err
			}
		}
		return positive(d, option, arg, &a.QueueClient)
	case "keep_last":
		return onOff(d, option, arg, &a.KeepLast)
	case "predict":
		return onOff(d, option, arg, &a.Predict)
	case "context_disk":
		a.ContextDisk = new(int64)
		return size(d, option, arg, a.ContextDisk, true)
	case "keys":
		a.Keys = arg
	case "identity":
		a.Identity = arg
	case "insecure":
		return onOff(d, option, arg, &a.Insecure)
	case "allow_remote_commands":
		return onOff(d, option, arg, &a.AllowRemoteCommands)
	case "max_body":
		return size(d, option, arg, &a.MaxBody, false)
	case "model_store":
		a.ModelStore = arg
	case "download_limit":
		return size(d, option, arg, &a.DownloadLimit, true)
	default:
		return d.Errf("assistant has no option %q", option)
	}
	return nil
}

func positive(d *caddyfile.Dispenser, option, arg string, to *int) error {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return d.Errf("%s %q: give a whole number, 1 or more", option, arg)
	}
	*to = n
	return nil
}

func size(d *caddyfile.Dispenser, option, arg string, to *int64, zero bool) error {
	n, err := humanize.ParseBytes(arg)
	if err != nil || n == 0 && !zero || n > 1<<50 {
		return d.Errf("%s %q: give a size such as 32MiB", option, arg)
	}
	*to = int64(n)
	return nil
}

func onOff(d *caddyfile.Dispenser, option, arg string, to *bool) error {
	if arg != "on" && arg != "off" {
		return d.Errf("%s %q: write on or off", option, arg)
	}
	*to = arg == "on"
	return nil
}

func duration(d *caddyfile.Dispenser, option, arg string, to *caddy.Duration, zero bool) error {
	v, err := caddy.ParseDuration(arg)
	if err != nil || v < 0 || v == 0 && !zero {
		return d.Errf("%s %q: give a duration such as 30s or 5m", option, arg)
	}
	*to = caddy.Duration(v)
	return nil
}

// UnmarshalCaddyfile reads the directive:
//
//	assistant [<matcher>] {
//		transport  lean|std    # default lean
//		keep_alive <interval>  # SSE comments while a stream waits; default off
//		download_wait <duration> # for a model that is being downloaded, before 503; 0 = none; default 1m
//		metrics    [<path>]    # serve metrics here too; default path /metrics
//		cors_origins <origin>... # of pages that may use the API, besides this machine's; * = all
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return eachOption(d, func(option string, args []string) error {
		if len(args) > 1 && option != "cors_origins" || len(args) == 0 && option != "metrics" {
			return d.ArgErr()
		}
		switch option {
		case "transport":
			h.Transport = args[0]
			if h.Transport != transportLean && h.Transport != transportStd {
				return d.Errf("transport %q: choose %s or %s", h.Transport, transportLean, transportStd)
			}
		case "keep_alive":
			return duration(d, option, args[0], &h.KeepAlive, false)
		case "download_wait":
			h.DownloadWait = new(caddy.Duration)
			return duration(d, option, args[0], h.DownloadWait, true)
		case "metrics":
			h.Metrics = "/metrics"
			if len(args) == 1 {
				h.Metrics = args[0]
			}
			if !strings.HasPrefix(h.Metrics, "/") {
				return d.Errf("metrics %q: a path begins with /", h.Metrics)
			}
		case "cors_origins":
			h.CORSOrigins = args
			if err := h.readOrigins(); err != nil {
				return d.WrapErr(err)
			}
		default:
			return d.Errf("the directive assistant has no option %q", option)
		}
		return nil
	})
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
