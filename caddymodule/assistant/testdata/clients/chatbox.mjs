// What ChatBox asks of a provider, by the SDK that it asks with: its list of models, and the three chats of its button "Check", which decide
// what a model is offered for (src/renderer/utils/model-tester.ts of 2026-04). Prints one line of JSON a case.
import { require, run } from './run.mjs';

const { createOpenAICompatible } = require('@ai-sdk/openai-compatible');
const { extractReasoningMiddleware, stepCountIs, streamText, tool, wrapLanguageModel } = require('ai');
const { z } = require('zod');

const E = process.env;
const provider = createOpenAICompatible({ name: 'OpenAI Compatible', baseURL: E.BASE_URL, apiKey: 'unused' });
const [CHAT, TOOLS] = ['chat', 'tools'].map((kind) => wrapLanguageModel({
  model: provider.languageModel(`${E.ENGINE}-${kind}`),
  middleware: extractReasoningMiddleware({ tagName: 'think' }),
}));

// The list's entry of the model, and whether it is said to see.
async function list() {
  const answer = await fetch(`${E.BASE_URL}/models`, { headers: { Authorization: 'Bearer unused' } });
  const found = (await answer.json()).data.find((m) => m.id === `${E.ENGINE}-chat`);
  return [found.name, found.architecture.input_modalities.includes('image')];
}

// How a chat ended: anything but an error counts as "can do it".
async function check(model, content, more) {
  let failure;
  const result = streamText({ model, messages: [{ role: 'user', content }], maxRetries: 0, onError: ({ error }) => { failure = error; }, ...more });
  for await (const _ of result.fullStream);
  return failure ? failure.statusCode : 'can';
}

const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const get_weather = tool({
  description: 'Get the weather',
  inputSchema: z.object({ location: z.string().describe('City name') }),
  execute: async () => ({ temperature: 72, condition: 'sunny' }),
});
await run([
  ['list', list, [`${E.ENGINE}-chat`, false]],
  ['check: text', () => check(CHAT, 'Hi', { maxOutputTokens: 20 }), 'can'],
  ['check: image', () => check(CHAT, [{ type: 'text', text: 'What color is in this image?' }, { type: 'image', image: `data:image/png;base64,${pixel}` }], {}), 400],
  ['check: tool', () => check(TOOLS, 'What is the weather in San Francisco?', { tools: { get_weather }, stopWhen: stepCountIs(1), maxOutputTokens: 20 }), 'can'],
]);
