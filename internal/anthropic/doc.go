// Package anthropic serves clients of Anthropic's Messages API from models that speak OpenAI's chat completions: their
// requests are made chat requests, and the answers, whole or streamed, are made messages.
//
// What the API has and a local model lacks is refused where the client would wait for it in vain, as web search, and left out
// where the answer is as good without, as marks for a cache. Sources: the types and the readers of streams in Anthropic's SDKs
// (anthropic 2.14.0 of PyPI, @anthropic-ai/sdk 1.14.0 of npm) and what Claude Code 2.1.100 sends.
package anthropic
