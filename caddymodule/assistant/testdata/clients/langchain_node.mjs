// The cases of the client matrix by LangChain in JavaScript. Prints one line of JSON a case.
import { require, run } from './run.mjs';

const { ChatOpenAI, OpenAIEmbeddings } = require('@langchain/openai');

const E = process.env;
const [COUNT, , TOOLS, EMBED] = ['count', 'chat', 'tools', 'embed'].map((kind) => `${E.ENGINE}-${kind}`);
const at = { apiKey: 'unused', maxRetries: 0, configuration: { baseURL: E.BASE_URL } };
const chat = (more) => new ChatOpenAI({ model: COUNT, ...at, ...more });
const weather = { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 8 } }, required: ['city'] } } };

async function stream() {
  let text = '';
  const finish = [];
  for await (const piece of await chat({ maxTokens: 7 }).stream('Count.')) {
    text += piece.content;
    if (piece.response_metadata.finish_reason) finish.push(piece.response_metadata.finish_reason);
  }
  return [text, finish];
}

await run([
  ['plain', async () => (await chat({ maxTokens: 5 }).invoke('Count.')).content, ' 1 2 3 4 5'],
  ['stream', stream, [' 1 2 3 4 5 6 7', ['length']]],
  ['stop', async () => (await chat({}).invoke('Count.', { stop: [' 4'] })).content, ' 1 2 3'],
  ['tools', async () => (await chat({ model: TOOLS, maxTokens: 200 }).bindTools([weather], { tool_choice: E.TOOL_CHOICE }).invoke('use the tool')).tool_calls.map((c) => c.name), ['weather']],
  ['no such model', async () => { try { await chat({ model: 'nobody' }).invoke('x'); } catch (e) { return e.status; } }, 404],
  ['embeddings', async () => (await new OpenAIEmbeddings({ model: EMBED, ...at }).embedDocuments(['a', 'b'])).map((v) => v.length), [384, 384]],
]);
