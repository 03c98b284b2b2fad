package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"assistant/internal/hub"
)

func (c *client) pullCommand() *cobra.Command {
	var name string
	var dry bool
	cmd := c.sub("pull SOURCE", "Download a model and write its model file", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
		if dry {
			return c.plan(w, args[0])
		}
		return c.pull(w, args[0], name)
	})
	cmd.Long = `Downloads a model into the running server's store, verified, and writes a model file with sensible values into its
config_dir. It is in force at once. Ctrl-C leaves the download going on; caddy assistant downloads tells how it stands.

  caddy assistant pull hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M
  caddy assistant pull ollama:qwen2.5:0.5b
  caddy assistant pull oci:registry.example.com/ai/qwen2.5:0.5b
  caddy assistant pull https://example.com/model.gguf#sha256=...`
	cmd.Flags().StringVar(&name, "name", "", "What to call the model; by default as its source suggests")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Only tell what would be downloaded: files, sizes, licence")
	return cmd
}

// plan tells what a source stands for.
func (c *client) plan(w io.Writer, src string) error {
	b, err := c.call(http.MethodGet, "plan", url.Values{"source": {src}})
	if err != nil {
		return err
	}
	var p PlanResult
	return c.print(w, b, &p, func(w io.Writer) {
		fmt.Fprintf(w, "source\t%s\nname\t%s\nsize\t%s\nquantisation\t%s\nlicence\t%s\n", p.Source, p.Name, sizeOf(p.Size),
			first(p.Quantization, "not told"), first(p.Licence, "not told"))
		for _, f := range p.Files {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Role, f.Name, sizeOf(f.Size))
		}
	})
}

// pull has the server bring a model and shows how far it is.
func (c *client) pull(w io.Writer, src, name string) error {
	query := url.Values{"source": {src}}
	if name != "" {
		query.Set("name", name)
	}
	body, err := c.open(http.MethodPost, "pull", query)
	if err != nil {
		return err
	}
	defer body.Close()
	show := showPull(w)
	if c.json {
		show = func(s hub.Status) { _ = json.NewEncoder(w).Encode(s) }
	}
	var last hub.Status
	for lines := json.NewDecoder(body); ; {
		var s hub.Status
		if err := lines.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read the server's answer (the download goes on): %w", err)
		}
		show(s)
		last = s
	}
	if last.State != hub.Completed {
		return fmt.Errorf("%s: the download is %s: %s", src, last.State, first(last.Error, "caddy assistant downloads resume "+last.ID+" goes on with it"))
	}
	return nil
}

// showPull shows how a download stands: on a terminal by a bar that moves, elsewhere by a line now and then.
func showPull(w io.Writer) func(hub.Status) {
	file, ok := w.(*os.File)
	moves := ok && term.IsTerminal(int(file.Fd()))
	told := time.Time{}
	introduced := false
	return func(s hub.Status) {
		if !introduced && s.Resolved != "" {
			introduced = true
			fmt.Fprintf(w, "%s: %s, licence %s, %s\n", s.Resolved, sizeOf(s.Total), first(s.Licence, "not told"), first(s.Quantization, "quantisation not told"))
		}
		const pause = 5 * time.Second // between lines
		switch {
		case s.State == hub.Completed:
			if moves {
				fmt.Fprintf(w, "\r%s\n", bar(s))
			}
			fmt.Fprintf(w, "%s is here\n", first(s.Name, s.Source))
		case moves:
			fmt.Fprintf(w, "\r%s", bar(s))
		case !s.Over() && time.Since(told) >= pause:
			told = time.Now()
			fmt.Fprintln(w, howFar(s))
		}
	}
}

func sizeOf(n int64) string {
	if n < 0 {
		return "size not told"
	}
	return humanize.Bytes(uint64(n))
}

// bar is a download drawn in one line.
func bar(s hub.Status) string {
	const width = 40
	done := 0
	if s.Total > 0 {
		done = int(width * s.Done / s.Total)
	}
	return fmt.Sprintf("[%s%s] %s, %s/s    ", strings.Repeat("#", done), strings.Repeat(".", width-done), howFar(s), humanize.Bytes(uint64(s.BytesPerSec)))
}

func (c *client) downloadsCommand() *cobra.Command {
	cmd := c.sub("downloads", "List downloads", cobra.NoArgs, func(w io.Writer, _ []string) error { return c.downloads(w) })
	for _, act := range []struct{ name, short, done string }{
		{"pause", "Pause a download; what it has stays", "is paused"},
		{"resume", "Go on with a download", "goes on"},
		{"cancel", "End a download and remove what it has", "is cancelled"},
	} {
		cmd.AddCommand(c.sub(act.name+" ID", act.short, cobra.ExactArgs(1), func(w io.Writer, args []string) error {
			return c.post(w, "downloads/"+act.name, url.Values{"id": args}, args[0]+" "+act.done+"\n")
		}))
	}
	return cmd
}

func (c *client) downloads(w io.Writer) error {
	var result DownloadsResult
	return c.get(w, "downloads", &result, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tSOURCE\tSTATE\tDONE\tSIZE\tSPEED\tERROR")
		for _, s := range result.Downloads {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s/s\t%s\n", s.ID, s.Source, s.State, sizeOf(s.Done), sizeOf(s.Total),
				humanize.Bytes(uint64(s.BytesPerSec)), firstLine(s.Error))
		}
	})
}

func (c *client) pruneCommand() *cobra.Command {
	return c.sub("prune", "Remove downloaded models that no model file names", cobra.NoArgs, func(w io.Writer, _ []string) error {
		b, err := c.call(http.MethodPost, "prune", nil)
		if err != nil {
			return err
		}
		var got hub.Collected
		return c.print(w, b, &got, func(w io.Writer) {
			for _, src := range got.Models {
				fmt.Fprintf(w, "removed\t%s\n", src)
			}
			fmt.Fprintf(w, "freed\t%s\n", sizeOf(got.Bytes))
		})
	})
}
