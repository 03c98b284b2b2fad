package caddymodule

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"assistant/internal/keys"
)

// keyCommand makes API keys.
func (c *client) keyCommand() *cobra.Command {
	var file string
	var models []string
	fresh := c.sub("new NAME", "Make an API key: print it once, and what the file of keys holds of it", cobra.ExactArgs(1), func(w io.Writer, args []string) error {
		return newKey(w, args[0], models, file)
	})
	fresh.Flags().StringVar(&file, "file", "", "Append it to this file of keys")
	fresh.Flags().StringSliceVar(&models, "models", nil, "Models it may use, such as qwen* (default: all)")
	key := &cobra.Command{Use: "key", Short: "Make API keys"}
	key.AddCommand(fresh)
	return key
}

func newKey(w io.Writer, name string, models []string, file string) error {
	key, sum := keys.New()
	entry := keys.Entry(name, sum, models)
	if file == "" {
		_, err := fmt.Fprintf(w, "%s\n\nThat is the key, which is not shown again. The file that the option keys names gets:\n\n%s", key, entry)
		return err
	}
	if err := keys.Append(file, entry); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n\nThat is the key, which is not shown again. %s is in %s.\n", key, name, file)
	return err
}
