import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadTokenizer, tokenizerFromJson, writeTokenizer } from '../../ts/data/index.ts';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-generate-'));
afterAll(() => rmSync(folder, { recursive: true }));
const checkpoint = path.join(folder, 'model');
const dense = path.join(folder, 'dense');

const begun = path.join(folder, 'begun');

const addTokenizer = async (to: string): Promise<void> => void writeTokenizer(to, await smallTokenizer());

beforeAll(async () => {
  const sizes = { vocabularySize: 290, dModel: 8, layers: 2, heads: 2, feedForward: { hidden: 8 } };
  using plain = new LanguageModel(sizes, { seed: 1 });
  await saveModel(plain, dense, { extra: addTokenizer });
  const { json, config } = await smallTokenizer();
  const processor = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: {
      '<s>': { id: '<s>', ids: [tokenizerFromJson(json, config).tokenToId('<s>')], tokens: ['<s>'] },
    },
  };
  await saveModel(plain, begun, {
    extra: (to) => void writeTokenizer(to, { json: { ...json, post_processor: processor }, config }),
  });
  using mixture = new LanguageModel(
    { ...sizes, moe: { layers: [1], experts: 4, topK: 2, expert: { hidden: 8 } } },
    { seed: 1 },
  );
  await saveModel(mixture, checkpoint, { extra: addTokenizer });
  writeFileSync(
    path.join(checkpoint, 'chat_template.jinja'),
    '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}',
  );
});

const run = (...args: string[]) =>
  libmoe(['generate', '--model', checkpoint, '--max-tokens', '3', '--temperature', '0', ...args]);

it('generate answers in the words of the chat template', async () => {
  const { code, stdout, stderr } = await run('--prompt', 'the cat', '--system', 'sat', '--json');
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const { text, ids, promptTokens } = JSON.parse(stdout);
  const tokenizer = loadTokenizer(checkpoint);
  const asked = [...tokenizer.encode('[system] sat\n[user] the cat\n[assistant]')];
  expect(ids.slice(0, promptTokens)).toEqual(asked);
  expect(text).toBe(tokenizer.decode(ids.slice(promptTokens)));
  // The answer alone is printed, and --chat without --system has no system turn.
  const plain = await run('--prompt', 'the cat', '--chat', '--json');
  expect(JSON.parse(plain.stdout).promptTokens).toBe(tokenizer.encode('[user] the cat\n[assistant]').length);
  const missing = await libmoe(['generate', '--model', dense, '--prompt', 'a', '--chat']);
  expect(missing.code).toBe(2);
  expect(missing.stderr).toMatch(/ERR_LIBMOE_TOKENIZER.*has no chat template/);
}, 60_000);

it('generate says which experts each token was chosen with', async () => {
  const { code, stdout } = await run('--prompt', 'the cat', '--routing', '--json');
  expect(code).toBe(0);
  const { tokens, ids, promptTokens } = JSON.parse(stdout);
  expect(tokens.map(({ token }: { token: number }) => token)).toEqual(ids.slice(promptTokens));
  for (const { routing } of tokens) {
    expect(routing).toHaveLength(1);
    expect(routing[0].layer).toBe('1');
    expect(new Set(routing[0].experts).size).toBe(2);
    expect(routing[0].weights[0] + routing[0].weights[1]).toBeCloseTo(1, 6);
  }
  const words = await run('--prompt', 'the cat', '--routing');
  const [{ experts, weights }] = tokens[0].routing;
  expect(words.stdout).toMatch(/token +layer 1/);
  expect(words.stdout).toContain(`${experts[0]} (${weights[0].toFixed(2)}) ${experts[1]} (`);
  const none = await libmoe(['generate', '--model', dense, '--prompt', 'a', '--routing']);
  expect(none.code).toBe(2);
  expect(none.stderr).toMatch(/ERR_LIBMOE_ARGUMENT: --routing: .* has no MoE layers/);
}, 60_000);

it('generate begins a text as the tokenizer does, and refuses one that has no beginning', async () => {
  const from = (model: string, ...args: string[]) =>
    libmoe(['generate', '--model', model, '--max-tokens', '2', '--temperature', '0', ...args]);
  const { stdout, stderr } = await from(begun, '--prompt', 'the cat', '--json');
  expect(stderr).toBe('');
  const { ids, promptTokens, text } = JSON.parse(stdout);
  const tokenizer = loadTokenizer(begun);
  expect(tokenizer.bosId).toBeDefined();
  expect(ids.slice(0, promptTokens)).toEqual([tokenizer.bosId, ...tokenizer.encode('the cat')]);
  expect(text).toMatch(/^the cat/);
  expect(JSON.parse((await from(begun, '--prompt', '', '--json')).stdout).promptTokens).toBe(1);
  const empty = await from(dense, '--prompt', '');
  expect(empty.code).toBe(2);
  expect(empty.stderr).toMatch(
    /ERR_LIBMOE_ARGUMENT: --prompt is empty, and .* has no token that begins a text/,
  );
  for (const seed of ['1.5', '-1', 'x', '']) {
    const wrong = await from(dense, '--prompt', 'a', '--seed', seed);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain(`--seed expects a whole number, 0 or more, got "${seed}"`);
  }
}, 60_000);
