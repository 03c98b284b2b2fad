package caddymodule

import (
	"fmt"
	"time"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/lifecycle"
)

// progressHeader is by which a client that streams asks to be told how long it still waits for a model:
//
//	X-Assistant-Progress: comments     SSE comments, which SDKs pass over
//	X-Assistant-Progress: reasoning    a chat's reasoning, which user interfaces show
//
// That commits the status 200, so a failed start is told in the stream. A key's progress is for requests without the header.
const progressHeader = "X-Assistant-Progress"

// progressInterval is how often it is told.
const progressInterval = time.Second

// wantsProgress is how the client, or else its key's file, asked for it: a way of package keys; "" = not at all.
func (x *exchange) wantsProgress() string {
	how := x.r.Header.Get(progressHeader)
	if how == "" && x.key != nil {
		how = x.key.Progress
	}
	switch {
	case how == keys.ProgressReasoning && x.ep.join == openai.Chat:
		return how
	case how == keys.ProgressReasoning, how == keys.ProgressComments:
		return keys.ProgressComments
	}
	return ""
}

// waiting is what a client is told while it waits. Only a single newline after a comment is survived by every SDK: openai-go before 3.43
// takes a blank line for an event.
func (x *exchange) waiting(how string) []byte {
	if how == "" {
		return []byte(": waiting for the model\n")
	}
	text := x.waitingText()
	if how == keys.ProgressComments {
		return []byte(": " + text + "\n")
	}
	return openai.ReasoningChunk(x.w.Header().Get(requestIDHeader), x.model.Name, time.Now(), text+"\n")
}

// waitingText says what the request waits for: that its model starts, and how long this took the last times, or its turn.
func (x *exchange) waitingText() string {
	name := x.model.Name
	if toBeBrought(x.model) {
		if s, ok := x.h.rt.coming()[sourceOf(x.model)]; ok {
			return name + " is being downloaded: " + howFar(s)
		}
	}
	for _, in := range x.h.rt.act.Instances() {
		if in.Key != x.model.Key || in.State != lifecycle.Starting.String() {
			continue
		}
		took := time.Since(in.Started).Round(time.Second)
		if usual := x.h.rt.act.StartTakes(x.model.Key); usual > 0 {
			return fmt.Sprintf("%s is loading: %v of about %v", name, took, usual.Round(time.Second))
		}
		return fmt.Sprintf("%s is loading: %v", name, took)
	}
	return name + " is waited for: others go first"
}
