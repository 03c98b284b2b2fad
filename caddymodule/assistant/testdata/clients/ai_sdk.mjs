// The cases of the client matrix by the AI SDK with its OpenAI-compatible provider. Prints one line of JSON a case.
import { require, run } from './run.mjs';

const { createOpenAICompatible } = require('@ai-sdk/openai-compatible');
const { embedMany, generateText, streamText, tool, APICallError } = require('ai');
const { z } = require('zod');

const E = process.env;
const provider = createOpenAICompatible({ name: 'assistant', baseURL: E.BASE_URL, apiKey: 'unused', includeUsage: true });
const [COUNT, , TOOLS, EMBED] = ['count', 'chat', 'tools', 'embed'].map((kind) => `${E.ENGINE}-${kind}`);
const ask = (more) => ({ model: provider(COUNT), prompt: 'Count.', maxRetries: 0, ...more });

async function stream(more) {
  const result = streamText(ask({ onError() {}, ...more }));
  let text = '';
  for await (const piece of result.textStream) text += piece;
  return [text, await result.finishReason, (await result.usage).outputTokens];
}

async function refused() {
  try {
    await generateText(ask({ model: provider('nobody') }));
  } catch (e) {
    return [APICallError.isInstance(e), e.statusCode];
  }
}

async function leaves() {
  const abort = new AbortController();
  const result = streamText(ask({ abortSignal: abort.signal, onError() {} }));
  for await (const _ of result.textStream) {
    abort.abort();
    break;
  }
  return (await generateText(ask({ maxOutputTokens: 2 }))).text;
}

const weather = tool({ description: 'The weather', inputSchema: z.object({ city: z.string().max(8) }) });
await run([
  ['plain', async () => { const r = await generateText(ask({ maxOutputTokens: 5 })); return [r.text, r.finishReason]; }, [' 1 2 3 4 5', 'length']],
  ['stream', () => stream({ maxOutputTokens: 7 }), [' 1 2 3 4 5 6 7', 'length', 7]],
  ['stream to its end', async () => (await stream({}))[1], 'stop'],
  ['stop', async () => (await stream({ stopSequences: [' 4'] })).slice(0, 2), [' 1 2 3', 'stop']],
  ['tools', async () => { const r = await generateText(ask({ model: provider(TOOLS), prompt: 'use the tool', tools: { weather }, toolChoice: E.TOOL_CHOICE, maxOutputTokens: 200 })); return [r.finishReason, r.toolCalls[0]?.toolName]; }, ['tool-calls', 'weather']],
  ['no such model', refused, [true, 404]],
  ['embeddings', async () => (await embedMany({ model: provider.textEmbeddingModel(EMBED), values: ['a', 'b'], maxRetries: 0 })).embeddings.map((e) => e.length), [384, 384]],
  ['client leaves', leaves, ' 1 2'],
]);
