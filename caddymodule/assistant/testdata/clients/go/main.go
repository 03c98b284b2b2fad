// Clients are the cases of the client matrix by openai-go. It prints one line of JSON a case.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
)

var (
	client = openai.NewClient(option.WithBaseURL(os.Getenv("BASE_URL")), option.WithAPIKey("unused"), option.WithMaxRetries(0))
	count  = os.Getenv("ENGINE") + "-count"
	ctx    = context.Background()
)

func params(most int64) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{Model: count, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Count.")}}
	if most > 0 {
		p.MaxTokens = openai.Int(most)
	}
	return p
}

func plain(p openai.ChatCompletionNewParams) string {
	c, err := client.Chat.Completions.New(ctx, p)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q %s %s", c.Choices[0].Message.Content, c.Choices[0].FinishReason, c.Model)
}

func stream(p openai.ChatCompletionNewParams, more ...option.RequestOption) string {
	s := client.Chat.Completions.NewStreaming(ctx, p, more...)
	acc, ends, usages := openai.ChatCompletionAccumulator{}, []string{}, 0
	for s.Next() {
		c := s.Current()
		acc.AddChunk(c)
		if c.Usage.TotalTokens > 0 {
			usages++
		}
		for _, choice := range c.Choices {
			if choice.FinishReason != "" {
				ends = append(ends, choice.FinishReason)
			}
		}
	}
	if s.Err() != nil {
		return s.Err().Error()
	}
	return fmt.Sprintf("%q %v %d", acc.Choices[0].Message.Content, ends, usages)
}

// cold is what a model that is not loaded answers to a stream that is told what it waits for.
func cold() string {
	root := strings.TrimSuffix(os.Getenv("BASE_URL"), "/v1")
	res, err := http.Post(root+"/models/unload", "application/json", strings.NewReader(`{"model":"fake-slow"}`))
	if err != nil {
		return err.Error()
	}
	res.Body.Close()
	p := params(3)
	p.Model = "fake-slow"
	return stream(p, option.WithHeader("X-Assistant-Progress", "comments"))
}

func tools() string {
	p := params(200)
	p.Model = os.Getenv("ENGINE") + "-tools"
	p.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage("use the tool")}
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
		Name:       "weather",
		Parameters: shared.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 8}}, "required": []string{"city"}},
	})}
	p.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String(os.Getenv("TOOL_CHOICE"))}
	c, err := client.Chat.Completions.New(ctx, p)
	if err != nil {
		return err.Error()
	}
	if len(c.Choices[0].Message.ToolCalls) == 0 {
		return "no call: " + c.Choices[0].Message.Content
	}
	return c.Choices[0].FinishReason + " " + c.Choices[0].Message.ToolCalls[0].Function.Name
}

func refused() string {
	p := params(1)
	p.Model = "nobody"
	_, err := client.Chat.Completions.New(ctx, p)
	var e *openai.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(e.StatusCode, " ", e.Code, " ", e.Param)
}

func embeddings() string {
	e, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{
		Model: os.Getenv("ENGINE") + "-embed", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}},
	})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(len(e.Data), " of ", len(e.Data[0].Embedding))
}

func models() string {
	page, err := client.Models.List(ctx)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(slices.ContainsFunc(page.Data, func(m openai.Model) bool { return m.ID == count }))
}

func leaves() string {
	for range 2 {
		s := client.Chat.Completions.NewStreaming(ctx, params(0))
		s.Next()
		s.Close()
	}
	return plain(params(2))
}

func main() {
	withUsage, withStop := params(2), params(0)
	withUsage.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	withStop.Stop = openai.ChatCompletionNewParamsStopUnion{OfString: openai.String(" 4")}
	for _, c := range []struct {
		name string
		run  func() string
		want string
	}{
		{"plain", func() string { return plain(params(5)) }, `" 1 2 3 4 5" length ` + count},
		{"stream", func() string { return stream(params(7)) }, `" 1 2 3 4 5 6 7" [length] 0`},
		{"usage", func() string { return stream(withUsage) }, `" 1 2" [length] 1`},
		{"stop", func() string { return stream(withStop) }, `" 1 2 3" [stop] 0`},
		{"tools", tools, "tool_calls weather"},
		{"no such model", refused, "404 model_not_found model"},
		{"embeddings", embeddings, "2 of 384"},
		{"models", models, "true"},
		{"waits, comments", cold, `" 1 2 3" [length] 0`},
		{"client leaves", leaves, `" 1 2" length ` + count},
	} {
		got := c.run()
		line, _ := json.Marshal(map[string]any{"case": c.name, "ok": got == c.want, "got": got})
		fmt.Println(string(line))
	}
}
