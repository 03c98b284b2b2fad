// The cases of the client matrix by openai-node, of the version that is named. Prints one line of JSON a case.
import { require, run } from './run.mjs';

const OpenAI = require(process.argv[2]);

const E = process.env;
const client = new OpenAI.OpenAI({ baseURL: E.BASE_URL, apiKey: 'unused', maxRetries: 0 });
const [COUNT, CHAT, TOOLS, EMBED] = ['count', 'chat', 'tools', 'embed'].map((kind) => `${E.ENGINE}-${kind}`);
const count = [{ role: 'user', content: 'Count.' }];
const parameters = { type: 'object', properties: { city: { type: 'string', maxLength: 8 } }, required: ['city'] };

const chat = (more) => client.chat.completions.create({ model: COUNT, messages: count, ...more });

async function streamed(more) {
  let text = '', usages = 0;
  const finish = [];
  for await (const chunk of await chat({ stream: true, ...more })) {
    usages += chunk.usage ? 1 : 0;
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? '';
      if (choice.finish_reason) finish.push(choice.finish_reason);
    }
  }
  return [text, finish, usages];
}

async function refused(more) {
  try {
    await chat(more);
    return 'answered';
  } catch (e) {
    return [e.constructor.name, e.param ?? null];
  }
}

async function plain() {
  const answer = await chat({ max_tokens: 5 });
  return [answer.choices[0].message.content, answer.choices[0].finish_reason, answer.model, answer.usage.completion_tokens];
}

async function helper() {
  const completions = client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions;
  const stream = completions.stream({ model: COUNT, messages: count, max_tokens: 5 });
  const last = await stream.finalChatCompletion();
  return [last.choices[0].finish_reason, last.choices[0].message.content];
}

async function tools() {
  const answer = await chat({ model: TOOLS, messages: [{ role: 'user', content: 'use the tool' }], tools: [{ type: 'function', function: { name: 'weather', parameters } }], tool_choice: E.TOOL_CHOICE, max_tokens: 200 });
  return [answer.choices[0].finish_reason, answer.choices[0].message.tool_calls[0].function.name];
}

async function schema() {
  const response_format = { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'], additionalProperties: false } } };
  if (E.SCHEMA !== '1') return refused({ response_format });
  const answer = await chat({ model: CHAT, response_format, max_tokens: 200 });
  return Object.keys(JSON.parse(answer.choices[0].message.content));
}

async function leaves() {
  for (let i = 0; i < 2; i++) {
    for await (const _ of await chat({ stream: true })) break;
  }
  return (await chat({ max_tokens: 2 })).choices[0].message.content;
}

// What a model that is not loaded answers to a stream that is told what it waits for.
async function cold(how) {
  const root = E.BASE_URL.replace(/\/v1$/, '');
  await fetch(`${root}/models/unload`, { method: 'POST', body: '{"model":"fake-slow"}' });
  let text = '', thought = '';
  const stream = await client.chat.completions.create({ model: 'fake-slow', messages: count, stream: true, max_tokens: 3 }, { headers: { 'X-Assistant-Progress': how } });
  for await (const chunk of stream) {
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? '';
      thought += choice.delta.reasoning_content ?? '';
    }
  }
  return [text, thought.includes('is loading')];
}

async function responses() {
  const answer = await client.responses.create({ model: COUNT, input: 'Count.', max_output_tokens: 5 });
  const stream = client.responses.stream({ model: COUNT, input: 'Count.', max_output_tokens: 7 });
  return [answer.output_text, (await client.responses.retrieve(answer.id)).status, (await stream.finalResponse()).output[0].content[0].text];
}

await run([
  ['plain', plain, [' 1 2 3 4 5', 'length', COUNT, 5]],
  ['stream', () => streamed({ max_tokens: 7 }), [' 1 2 3 4 5 6 7', ['length'], 0]],
  ['stream to its end', async () => (await streamed({}))[1], ['stop']],
  ['stream helper', helper, ['length', ' 1 2 3 4 5']],
  ['usage', async () => (await streamed({ max_tokens: 2, stream_options: { include_usage: true } }))[2], 1],
  ['stop', async () => (await streamed({ stop: ' 4' })).slice(0, 2), [' 1 2 3', ['stop']]],
  ['stop array', async () => (await chat({ stop: ['x', ' 3'] })).choices[0].message.content, ' 1 2'],
  ['parts', async () => (await chat({ messages: [{ role: 'user', content: [{ type: 'text', text: 'Count.' }] }], max_tokens: 2 })).choices[0].message.content, ' 1 2'],
  ['tools', tools, ['tool_calls', 'weather']],
  ['json_schema', schema, E.SCHEMA === '1' ? ['a'] : ['BadRequestError', 'response_format']],
  ['no such model', () => refused({ model: 'nobody' }), ['NotFoundError', 'model']],
  ['wrong request', async () => (await refused({ messages: 'x' }))[0], 'BadRequestError'],
  ['embeddings', async () => (await client.embeddings.create({ model: EMBED, input: ['a', 'b'] })).data.map((d) => d.embedding.length), [384, 384]],
  ['models', async () => { for await (const m of client.models.list()) if (m.id === COUNT) return true; }, true],
  ['client leaves', leaves, ' 1 2'],
  ['waits, comments', () => cold('comments'), [' 1 2 3', false]],
  ['waits, reasoning', () => cold('reasoning'), [' 1 2 3', true]],
  ['responses', responses, [' 1 2 3 4 5', 'incomplete', ' 1 2 3 4 5 6 7']],
]);
