// Package ollama serves clients of Ollama's API from models that speak OpenAI's: chats and prompts are made chat completions, raw prompts
// text completions, and the answers, whole or streamed, are made Ollama's. What its routes about models answer is here too.
//
// Sources: api/types.go, server/routes.go and docs/api.md of Ollama at fb30760 (August 2026), and ollama 0.6 of PyPI.
package ollama
