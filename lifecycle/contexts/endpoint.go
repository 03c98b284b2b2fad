package contexts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Endpoint is a running engine.
type Endpoint struct {
	Network string // "unix" or "tcp"
	Address string
	Dir     string // its --slot-save-path, from Store.Place
}

// maxReply bounds an engine's reply, in bytes: the tokens of the longest prompt that is looked up fit.
const maxReply = 64 << 20

// refusal is an engine's answer other than 200.
type refusal struct {
	path   string
	status int
	body   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the engine answered %s with %d: %s", r.path, r.status, r.body)
}

// client talks to one engine.
type client struct{ http http.Client }

func newClient(at Endpoint) *client {
	return &client{http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // see engine.Kind.OneRequestEach
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, at.Network, at.Address)
		},
	}}}
}

// ask sends body, unless it is nil, and decodes the reply.
func (c *client) ask(ctx context.Context, path string, body []byte, reply any) error {
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return &refusal{path, res.StatusCode, string(text[:min(len(text), 500)])}
	}
	return json.Unmarshal(text, reply)
}

// slot is one of an engine's slots.
type slot struct {
	ID     int  `json:"id"`
	Busy   bool `json:"is_processing"`
	Tokens *int `json:"n_prompt_tokens"` // it holds; nil before its first task, and in builds that do not say
	Task   *int `json:"id_task"`         // its latest; nil before its first
}

// empty says that nothing is lost when a slot is restored.
func (s slot) empty() bool {
	return !s.Busy && (s.Tokens != nil && *s.Tokens == 0 || s.Tokens == nil && s.Task == nil)
}

// full says that it is worth the while to save it.
func (s slot) full() bool {
	return !s.Busy && (s.Tokens != nil && *s.Tokens >= block || s.Tokens == nil && s.Task != nil)
}

func (c *client) slots(ctx context.Context) (list []slot, err error) {
	err = c.ask(ctx, "/slots", nil, &list)
	return list, err
}

// save has a slot saved as a file in the engine's directory. It returns its tokens and the file's length.
func (c *client) save(ctx context.Context, id int, name string) (tokens int, size int64, err error) {
	var reply struct {
		Tokens int   `json:"n_saved"`
		Size   int64 `json:"n_written"`
	}
	err = c.act(ctx, id, "save", name, &reply)
	return reply.Tokens, reply.Size, err
}

// restore has a slot filled from a file in the engine's directory.
func (c *client) restore(ctx context.Context, id int, name string) (tokens int, size int64, err error) {
	var reply struct {
		Tokens int   `json:"n_restored"`
		Size   int64 `json:"n_read"`
	}
	err = c.act(ctx, id, "restore", name, &reply)
	return reply.Tokens, reply.Size, err
}

func (c *client) act(ctx context.Context, id int, action, name string, reply any) error {
	return c.ask(ctx, fmt.Sprintf("/slots/%d?action=%s", id, action), fmt.Appendf(nil, `{"filename":%q}`, name), reply)
}

// Request is one that waits for an engine.
type Request struct {
	Path string // of its URL
	Body []byte
}

// maxLookup is the longest body, in bytes, that is looked up. Longer ones have images or files in them, which
// llama-server does not save.
const maxLookup = 4 << 20

// errNoLookup says that a request is not of a kind that can be looked up.
var errNoLookup = errors.New("no chat or text completion")

// tokens returns the tokens of the request's prompt, as the engine will make them.
func (c *client) tokens(ctx context.Context, r Request) ([]int32, error) {
	if len(r.Body) > maxLookup {
		return nil, errNoLookup
	}
	switch {
	case strings.HasSuffix(r.Path, "/chat/completions"):
		var reply struct {
			Prompt string `json:"prompt"`
		}
		if err := c.ask(ctx, "/apply-template", r.Body, &reply); err != nil {
			return nil, err
		}
		return c.tokenize(ctx, reply.Prompt)
	case strings.HasSuffix(r.Path, "/completions"):
		return c.promptTokens(ctx, r.Body)
	}
	return nil, errNoLookup
}

// promptTokens returns those of a text completion's prompt: a string, one in an array, or tokens.
func (c *client) promptTokens(ctx context.Context, body []byte) ([]int32, error) {
	var req struct {
		Prompt json.RawMessage `json:"prompt"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	var text string
	if json.Unmarshal(req.Prompt, &text) == nil {
		return c.tokenize(ctx, text)
	}
	var texts []string
	if json.Unmarshal(req.Prompt, &texts) == nil && len(texts) == 1 {
		return c.tokenize(ctx, texts[0])
	}
	var tokens []int32
	if json.Unmarshal(req.Prompt, &tokens) == nil {
		return tokens, nil
	}
	return nil, errNoLookup
}

// tokenize does as the engine does with a prompt: with its special tokens, and those that the text spells.
func (c *client) tokenize(ctx context.Context, text string) ([]int32, error) {
	body, err := json.Marshal(map[string]any{"content": text, "add_special": true, "parse_special": true})
	if err != nil {
		return nil, err
	}
	var reply struct {
		Tokens []int32 `json:"tokens"`
	}
	err = c.ask(ctx, "/tokenize", body, &reply)
	return reply.Tokens, err
}
