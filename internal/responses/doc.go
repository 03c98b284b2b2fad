// Package responses serves OpenAI's Responses API (openai-openapi 2.3.0, /v1/responses) from models that speak chat completions:
// [Store.Create] makes a request one to /v1/chat/completions, and the answer to that becomes a response, which the Store holds for
// the requests that come back to it.
//
// What OpenAI runs on its own machines is refused with a 400 that names the field: the tools of its servers (web_search, file_search,
// code_interpreter, mcp, …), files by id or URL, conversations, prompt templates, streams that are resumed. Not honoured, as nothing is
// wrong without it: reasoning.summary (models here tell all they think, as reasoning_text), truncation "auto" (the engine refuses what
// is too long), service tiers.
package responses
