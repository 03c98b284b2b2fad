package openai

import (
	"fmt"
	"time"
)

// ReasoningChunk is an event of a chat's stream by which the model thinks aloud: user interfaces show it apart from the answer, and no
// SDK minds it. id is the completion's.
func ReasoningChunk(id, model string, now time.Time, text string) []byte {
	return fmt.Appendf(nil,
		`data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":%d,"model":%s,`+
			`"choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":%s},"finish_reason":null}]}`+"\n\n",
		id, now.Unix(), Marshal(model), Marshal(text))
}
