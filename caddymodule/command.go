package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"assistant/activator"
	"assistant/lifecycle"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "assistant",
		Usage: "[ps|models|load|unload|logs|pull|downloads|prune|scan|import|remotes|model-config|doctor|key|reap]",
		Short: "Look at and control the models of a running server",
		Long: `Speaks to the admin API of a running server; --address says where, by default where
the Caddyfile in this folder says, else localhost:2019. With --json the answer is the admin API's own.

  caddy assistant ps                     instances that are alive
  caddy assistant models                 every configured model and how it stands
  caddy assistant load MODEL             start an instance now
  caddy assistant unload MODEL           let its instances go (--force: at once)
  caddy assistant logs MODEL             what its engine printed last
  caddy assistant pull SOURCE            download a model and write its model file
  caddy assistant downloads              list downloads; pause, resume or cancel one
  caddy assistant prune                  remove downloaded models that no model file names
  caddy assistant scan [DIR…]            write model files for GGUF files that lie here
  caddy assistant import FILE            translate a configuration of llama-swap
  caddy assistant remotes                remote servers and how they stand
  caddy assistant model-config [FILE]    write a documented default model file
  caddy assistant doctor                 what is installed, what each model runs, what is missing
  caddy assistant key new NAME           make an API key, and what the file of keys holds of it
  caddy assistant reap                   stop what a router that died left behind`,
		CobraFunc: assistantCommand,
	})
}

// client is what the subcommands share: where the server is and how to print.
type client struct {
	address string
	json    bool
}

func assistantCommand(cmd *cobra.Command) {
	c := &client{}
	cmd.PersistentFlags().StringVar(&c.address, "address", "", "The admin API's address")
	cmd.PersistentFlags().BoolVar(&c.json, "json", false, "Print JSON")
	old := cmd.Flags().Bool("model-config", false, "The same as the subcommand model-config")
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *old {
			return c.modelConfig(cmd.OutOrStdout(), args)
		}
		if len(args) > 0 {
			return fmt.Errorf("unknown subcommand %q: see caddy assistant --help", args[0])
		}
		return cmd.Help()
	}
	var force bool
	var stateDir, configDir string
	unload := c.sub("unload MODEL", "Let a model's instances go", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
		return c.post(w, "unload", url.Values{"model": args, "force": {strconv.FormatBool(force)}}, args[0]+" is let go\n")
	})
	unload.Flags().BoolVar(&force, "force", false, "Stop busy instances too")
	reap := c.sub("reap", "Stop what a router that died left behind", cobra.NoArgs, func(w io.Writer, _ []string) error {
		return c.reap(w, stateDir)
	})
	reap.Flags().StringVar(&stateDir, "state-dir", "", "Work on this state directory, without a running server")
	doctor := c.sub("doctor", "Tell what is installed, what each model runs, what is missing", cobra.NoArgs, func(w io.Writer, _ []string) error {
		return c.doctor(w, configDir)
	})
	doctor.Flags().StringVar(&configDir, "config-dir", "", "Examine this directory of models, without a running server")
	cmd.AddCommand(
		c.sub("ps", "List instances that are alive", cobra.NoArgs, func(w io.Writer, _ []string) error { return c.ps(w) }),
		c.sub("models", "List the models", cobra.NoArgs, func(w io.Writer, _ []string) error { return c.models(w) }),
		c.sub("load MODEL", "Start an instance of a model now", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
			return c.post(w, "load", url.Values{"model": args}, args[0]+" is ready\n")
		}),
		unload,
		c.sub("logs MODEL", "Print what a model's engine printed last", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
			return c.logs(w, args[0])
		}),
		c.sub("model-config [FILE]", "Write a documented default model file, to stdout without FILE", cobra.MaximumNArgs(1), c.modelConfig),
		c.pullCommand(), c.downloadsCommand(), c.pruneCommand(), c.scanCommand(), c.importCommand(),
		c.sub("remotes", "List the remote servers", cobra.NoArgs, func(w io.Writer, _ []string) error { return c.remotes(w) }),
		doctor,
		c.keyCommand(),
		reap,
	)
}

func (c *client) sub(use, short string, args cobra.PositionalArgs, run func(io.Writer, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.OutOrStdout(), args) },
	}
}

// call asks the admin API. Its errors come back as the sentence it said.
func (c *client) call(method, path string, query url.Values) ([]byte, error) {
	body, err := c.open(method, path, query)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// open is call for answers that come piece by piece.
func (c *client) open(method, path string, query url.Values) (io.ReadCloser, error) {
	address, err := c.adminAddress()
	if err != nil {
		return nil, err
	}
	uri := "/assistant/" + path
	if len(query) > 0 {
		uri += "?" + query.Encode()
	}
	res, err := caddycmd.AdminAPIRequest(address, method, uri, http.Header{}, http.NoBody)
	if err != nil {
		return nil, said(address, err)
	}
	return res.Body, nil
}

// adminAddress is --address, else what the Caddyfile of this folder says, else Caddy's default.
func (c *client) adminAddress() (string, error) {
	if c.address != "" {
		return c.address, nil
	}
	var config struct {
		Admin struct {
			Listen string `json:"listen"`
		} `json:"admin"`
	}
	if err := readCaddyfile(&config); err != nil {
		return "", fmt.Errorf("find the admin API's address in the Caddyfile of this folder (or give --address): %w", err)
	}
	return first(config.Admin.Listen, caddy.DefaultAdminListen), nil
}

// readCaddyfile reads what the Caddyfile of this folder comes to, if there is one.
func readCaddyfile(config any) error {
	body, err := os.ReadFile("Caddyfile")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(body, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	return json.Unmarshal(adapted, config)
}

// said finds the server's own sentence in Caddy's "HTTP 404: {"error":"…"}".
func said(address string, err error) error {
	var body struct {
		Error string `json:"error"`
	}
	text := err.Error()
	if i := strings.Index(text, "{"); i >= 0 && json.Unmarshal([]byte(text[i:]), &body) == nil && body.Error != "" {
		return errors.New(body.Error)
	}
	return fmt.Errorf("ask the server at %s (is it running? --address says where it is): %w", address, err)
}

// get asks and prints: JSON as it came, or by show what was decoded into v.
func (c *client) get(w io.Writer, path string, v any, show func(io.Writer)) error {
	b, err := c.call(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return c.print(w, b, v, show)
}

func (c *client) print(w io.Writer, b []byte, v any, show func(io.Writer)) error {
	if c.json {
		_, err := w.Write(b)
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	show(table)
	return table.Flush()
}

func (c *client) post(w io.Writer, path string, query url.Values, done string) error {
	b, err := c.call(http.MethodPost, path, query)
	if err != nil {
		return err
	}
	if c.json {
		_, err = w.Write(b)
	} else {
		_, err = io.WriteString(w, done)
	}
	return err
}

func (c *client) ps(w io.Writer) error {
	var result PsResult
	return c.get(w, "ps", &result, func(w io.Writer) {
		fmt.Fprintln(w, "MODEL\tGEN\tSTATE\tENGINE\tPID\tBUSY\tSERVED\tUP\tIDLE\tREADY IN\tMEMORY")
		for _, in := range result.Instances {
			slots := "∞"
			if in.Slots > 0 {
				slots = strconv.Itoa(in.Slots)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%d/%s\t%d\t%s\t%s\t%.0f ms\t%s\n", in.Key, in.Generation, in.State, in.Engine, in.PID,
				in.Leases, slots, in.Served, time.Since(in.Started).Round(time.Second),
				(time.Duration(in.IdleMS) * time.Millisecond).Round(time.Second), in.Phases.Spawn+in.Phases.Ready, memoryOf(in))
		}
	})
}

// memoryOf is what is reserved for an instance: on the host, then by device.
func memoryOf(in activator.InstanceStatus) string {
	parts := []string{machine.GiB(in.Memory)}
	for _, name := range slices.Sorted(maps.Keys(in.Devices)) {
		parts = append(parts, name+" "+machine.GiB(in.Devices[name]))
	}
	return strings.Join(parts, ", ")
}

func (c *client) models(w io.Writer) error {
	var result ModelsResult
	return c.get(w, "models", &result, func(w io.Writer) {
		fmt.Fprintln(w, "MODEL\tKIND\tENGINE\tSTATUS\tALIASES\tERROR")
		for _, m := range result.Models {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Kind, m.Engine, m.Status, strings.Join(m.Aliases, ","), firstLine(m.Error))
		}
	})
}

func (c *client) remotes(w io.Writer) error {
	var result RemotesResult
	return c.get(w, "remotes", &result, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tURL\tSTATE\tBUSY\tFAILURES\tFIRST BYTE\tMODELS")
		for _, r := range result.Remotes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%.0f ms\t%s\n", r.Name, r.URL, r.State, r.Outstanding, r.Failures, r.FirstByteMS, strings.Join(r.Models, ","))
		}
	})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func (c *client) logs(w io.Writer, model string) error {
	b, err := c.call(http.MethodGet, "logs", url.Values{"model": {model}})
	if err != nil {
		return err
	}
	if c.json {
		b, err = json.Marshal(map[string]string{"model": model, "output": string(b)})
		if err != nil {
			return err
		}
		b = append(b, '\n')
	}
	_, err = w.Write(b)
	return err
}

// modelConfig writes the default model file. It never overwrites one.
func (c *client) modelConfig(w io.Writer, args []string) error {
	text := modeldir.DefaultModelTOML()
	if len(args) == 0 {
		if c.json {
			return json.NewEncoder(w).Encode(map[string]string{"toml": string(text)})
		}
		_, err := w.Write(text)
		return err
	}
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // not a secret
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another file, or remove it first", args[0])
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if c.json {
		return json.NewEncoder(w).Encode(map[string]string{"file": args[0]})
	}
	_, err = fmt.Fprintf(w, "wrote %s: set its model_path, and put it into the server's config_dir\n", args[0])
	return err
}

// doctor asks the server, or examines a directory itself. It fails if something is missing.
func (c *client) doctor(w io.Writer, configDir string) error {
	var b []byte
	var err error
	if configDir != "" {
		b, err = examineDir(configDir)
	} else {
		b, err = c.call(http.MethodGet, "doctor", nil)
	}
	if err != nil {
		return err
	}
	var d Diagnosis
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if err := c.print(w, b, &d, d.show); err != nil {
		return err
	}
	if !d.healthy() {
		return errors.New("something is missing")
	}
	return nil
}

func examineDir(dir string) ([]byte, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	catalog, err := modeldir.LoadDir(abs)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(examine(catalog))
	return append(b, '\n'), err
}

func (d Diagnosis) show(w io.Writer) {
	fmt.Fprintf(w, "memory\t%s\tof %s available %s\n", verdictOf(d.Machine.Error), machine.GiB(d.Machine.Memory), machine.GiB(d.Machine.Available))
	for _, dev := range d.Machine.Devices {
		fmt.Fprintf(w, "device %s\tok\tof %s free %s %s\n", dev.Name, machine.GiB(dev.Total), machine.GiB(dev.Free), dev.ID)
	}
	for _, p := range d.Programs {
		if p.Missing != "" {
			fmt.Fprintf(w, "%s\tmissing\t%s\n", p.Engine, p.Missing)
			continue
		}
		fmt.Fprintf(w, "%s\tok\t%s %s\n", p.Engine, p.Path, p.Version)
	}
	for _, m := range d.Models {
		verdict, text := "ok", strings.Join(m.Argv, " ")
		if m.Missing != "" {
			verdict, text = "missing", m.Missing
		}
		fmt.Fprintf(w, "model %s\t%s\t%s\n", m.Model, verdict, text)
		needs := ""
		if m.Memory != "" {
			needs = "needs " + m.Memory
		}
		for _, note := range []string{m.Why, needs, m.Note} {
			if note != "" {
				fmt.Fprintf(w, "\t\t%s\n", note)
			}
		}
	}
	for _, f := range d.Faults {
		fmt.Fprintf(w, "file %s\tbroken\t%s\n", f.File, firstLine(f.Error))
	}
}

func verdictOf(fault string) string { return first(fault, "ok") }

// reap asks the server to, or does it itself on a state directory.
func (c *client) reap(w io.Writer, stateDir string) error {
	var b []byte
	var err error
	if stateDir != "" {
		var result ReapResult
		result.Reaped, err = lifecycle.Reap(context.Background(), stateDir)
		if err == nil {
			b, err = json.Marshal(result)
			b = append(b, '\n')
		}
	} else {
		b, err = c.call(http.MethodPost, "reap", nil)
	}
	if err != nil {
		return err
	}
	var result ReapResult
	return c.print(w, b, &result, func(w io.Writer) {
		for _, r := range result.Reaped {
			fmt.Fprintf(w, "%s\tpid %d\t%d processes stopped\n", r.Model, r.PID, r.Processes)
		}
		if len(result.Reaped) == 0 {
			fmt.Fprintln(w, "nothing was left behind")
		}
	})
}
