// Package dialect serves clients of other APIs from models that speak OpenAI's: their request is made one to an OpenAI
// endpoint, and the answer to that is made theirs, streams event by event. What an API has its requests and answers look
// like is in the packages anthropic, ollama and responses; here is what they have in common.
package dialect
