package caddymodule

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"assistant/internal/keys"
)

// keyCommand makes API keys.
func (c *client) keyCommand() *cobra.Command {
	var file string
	var entry keys.Entry
	fresh := c.sub("new NAME", "Make an API key: print it once, and what the file of keys holds of it", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
		entry.Name = args[0]
		return newKey(w, entry, file)
	})
	f := fresh.Flags()
	f.StringVar(&file, "file", "", "Append it to this file of keys")
	f.BoolVar(&entry.Admin, "admin", false, "It may manage as well, by gRPC: models, instances and downloads")
	f.StringSliceVar(&entry.Models, "models", nil, "Models it may use, such as qwen* (default: all)")
	f.StringVar(&entry.Owner, "owner", "", "Whose it is")
	f.StringVar(&entry.Team, "team", "", "Of which team")
	f.IntVar(&entry.RequestsPerMinute, "requests-per-minute", 0, "0 = no bound")
	f.IntVar(&entry.TokensPerMinute, "tokens-per-minute", 0, "0 = no bound")
	f.Int64Var(&entry.TokensPerMonth, "tokens-per-month", 0, "Of the calendar, UTC; 0 = no bound")
	f.IntVar(&entry.Concurrent, "concurrent-requests", 0, "0 = no bound")
	f.StringVar(&entry.Progress, "progress", "", "How streams tell that they wait for a model: comments or reasoning (default: not at all)")
	f.TimeVar(&entry.Expires, "expires", time.Time{}, []string{time.DateOnly, time.RFC3339}, "Until when it is good, such as 2027-01-31 (default: for ever)")
	key := &cobra.Command{Use: "key", Short: "Make API keys"}
	key.AddCommand(fresh)
	return key
}

// newKey makes a key of an entry that has none yet.
func newKey(w io.Writer, entry keys.Entry, file string) error {
	if file == "" {
		key, sum := keys.New()
		entry.SHA256 = sum
		_, err := fmt.Fprintf(w, "%s\n\nThat is the key, which is not shown again. The file that the option keys names gets:\n\n%s", key, entry.TOML())
		return err
	}
	key, err := keys.Create(file, entry)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n\nThat is the key, which is not shown again. %s is in %s.\n", key, entry.Name, file)
	return err
}
