// Package openai speaks the OpenAI wire: it reads a request without decoding it, writes error objects and model
// lists, and puts a llama-server stream together into the answer that a client would have got without streaming.
//
// It knows nothing of models, instances or Caddy.
package openai
