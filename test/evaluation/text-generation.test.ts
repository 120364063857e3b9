import { afterAll, describe, expect, it, vi } from 'vitest';
import {
  type EvalTokenizer,
  type GeneratedText,
  type Generation,
  type GenerationRequest,
  languageAdapter,
  MersenneTwister,
} from '../../ts/evaluation/index.ts';
import { earliest } from '../../ts/evaluation/text-generation.ts';
import { generate } from '../../ts/models/language/generate.ts';
import { KvCache } from '../../ts/models/language/kv-cache.ts';
import type { LanguageModel } from '../../ts/models/language/model.ts';
import { smallModel, smallVocabulary } from './small-models.ts';

const dense = smallModel('dense', 64);
const mixture = smallModel('mixture', 64);
afterAll(() => {
  dense.dispose();
  mixture.dispose();
});

/** Every token is two letters, so that texts say which tokens were made and stop strings can lie across them. */
const letters: EvalTokenizer = {
  name: 'letters',
  encode: (text) => [...text].map((letter) => letter.charCodeAt(0)),
  decode: (ids) => ids.map((id) => String.fromCharCode(97 + (id >> 4), 65 + (id & 15))).join(''),
  addsBos: false,
};
const textOf = (ids: readonly number[]): string => letters.decode!(ids);

const random = new MersenneTwister(5);
const tokens = (count: number): number[] =>
  Array.from({ length: count }, () => random.below(smallVocabulary));
const greedy: Generation = { until: [], maxTokens: 12, temperature: 0, seed: 0, repeat: 0 };
const asked = (context: readonly number[], more: Partial<Generation> = {}): GenerationRequest => ({
  kind: 'generate_until',
  context,
  generation: { ...greedy, ...more },
});
const prompts = Array.from({ length: 13 }, () => tokens(1 + random.below(40)));

async function ask(
  model: LanguageModel,
  requests: readonly GenerationRequest[],
  options: { batchSize?: number; tokenBudget?: number; endTokens?: number[] } = {},
): Promise<GeneratedText[]> {
  const answers: GeneratedText[] = [];
  const adapter = languageAdapter(model, { tokenizer: letters, ...options });
  await adapter.generateUntil!(requests, (i, answer) => {
    expect(answers[i]).toBeUndefined();
    answers[i] = answer;
  });
  expect(answers.filter(() => true)).toHaveLength(requests.length);
  return answers;
}

/** One prompt alone, by the generator of the models. */
async function alone(model: LanguageModel, prompt: readonly number[], maxTokens = 12): Promise<number[]> {
  const ids: number[] = [];
  for await (const { token } of generate(model, prompt, { maxTokens })) ids.push(token);
  return ids;
}

describe('texts of a network', () => {
  it.each([
    ['dense', dense],
    ['mixture', mixture],
  ] as const)('are what the model says, one prompt at a time (%s)', async (_, model) => {
    const answers = await ask(
      model,
      prompts.map((prompt) => asked(prompt)),
    );
    for (const [i, prompt] of prompts.entries())
      expect(answers[i]).toEqual({ text: textOf(await alone(model, prompt)), tokens: 12, ended: 'length' });
  });

  it.each([
    ['dense', dense],
    ['mixture', mixture],
  ] as const)('do not depend on batch size, budget or order (%s)', async (_, model) => {
    const requests = prompts.map((prompt, i) =>
      asked(prompt, i % 3 === 0 ? { temperature: 0.9, topP: 0.8, seed: 7 } : { maxTokens: 4 + i }),
    );
    const reference = await ask(model, requests, { batchSize: 1 });
    for (const options of [
      { batchSize: 2 },
      { batchSize: 8 },
      { batchSize: 100, tokenBudget: 10_000 },
      { tokenBudget: 1 },
    ])
      expect(await ask(model, requests, options)).toEqual(reference);
    expect(await ask(model, requests.toReversed(), { batchSize: 5 })).toEqual(reference.toReversed());
  });

  it('end before the earliest stop string, also where it lies across tokens', async () => {
    const prompt = prompts[3]!;
    const text = textOf(await alone(dense, prompt));
    const across = text.slice(5, 8); // from the second letter of a token to the second of the next
    const later = text.slice(12, 14);
    const cut = text.indexOf(across);
    const [answer, first, nothing] = await ask(dense, [
      asked(prompt, { until: [across] }),
      asked(prompt, { until: [later, across, ''] }),
      asked(prompt, { until: ['not in there'] }),
    ]);
    expect(answer).toEqual({ text: text.slice(0, cut), tokens: Math.ceil((cut + 3) / 2), ended: 'stop' });
    expect(first!.text).toBe(text.slice(0, Math.min(cut, text.indexOf(later))));
    expect(nothing).toEqual({ text, tokens: 12, ended: 'length' });
    expect(earliest('abc', ['c', 'b'])).toBe(1);
    expect(earliest('abc', ['', 'd'])).toBe(-1);
  });

  it('end at a token that ends texts, which is no part of them', async () => {
    const ids = await alone(dense, prompts[5]!);
    const at = 4;
    const end = ids[at]!;
    const [answer] = await ask(dense, [asked(prompts[5]!)], { endTokens: [end] });
    const first = ids.indexOf(end);
    expect(answer).toEqual({ text: textOf(ids.slice(0, first)), tokens: first, ended: 'eos' });
  });

  it('cut a prompt on the left to leave room for the answer', async () => {
    const long = tokens(100);
    const [answer] = await ask(dense, [asked(long, { maxTokens: 10 })]);
    expect(answer!.text).toBe(textOf(await alone(dense, long.slice(-54), 10)));
    // An answer that could fill all positions still begins after one token at least.
    const [most] = await ask(dense, [asked(long, { maxTokens: 500 })]);
    expect(most).toMatchObject({ tokens: 64, ended: 'length' });
  });

  it('differ by seed and by repeat when sampled', async () => {
    const sampled = (seed: number, repeat: number) => asked(prompts[2]!, { temperature: 1.5, seed, repeat });
    const answers = await ask(dense, [sampled(1, 0), sampled(1, 1), sampled(2, 0), sampled(1, 0)]);
    expect(answers[3]).toEqual(answers[0]);
    expect(new Set(answers.map(({ text }) => text)).size).toBe(3);
  });

  it('are the same after memory ran out: fewer rows at a time', async () => {
    const requests = prompts.map((prompt) => asked(prompt));
    const reference = await ask(dense, requests);
    // Memory for three rows only.
    const original = KvCache.prototype.begin;
    let refused = 0;
    const spy = vi.spyOn(KvCache.prototype, 'begin').mockImplementation(function (
      this: KvCache,
      sequences,
      counts,
    ) {
      if (sequences.length > 3) {
        refused += 1;
        throw Object.assign(new Error('ERR_LIBMOE_OUT_OF_MEMORY: made up'), {
          code: 'ERR_LIBMOE_OUT_OF_MEMORY',
        });
      }
      return original.call(this, sequences, counts);
    });
    try {
      expect(await ask(dense, requests, { batchSize: 13 })).toEqual(reference);
    } finally {
      spy.mockRestore();
    }
    expect(refused).toBeGreaterThanOrEqual(2);
  });

  it('stop between tokens', async () => {
    const controller = new AbortController();
    const adapter = languageAdapter(dense, { tokenizer: letters });
    const work = adapter.generateUntil!(
      [asked(prompts[0]!, { maxTokens: 3 }), asked(prompts[1]!)],
      () => controller.abort(new Error('enough')),
      { signal: controller.signal },
    );
    await expect(work).rejects.toThrow('enough');
  });

  it('need a tokenizer that decodes', async () => {
    const { decode: _, ...mute } = letters;
    const adapter = languageAdapter(dense, { tokenizer: mute });
    await expect(adapter.generateUntil!([asked(prompts[0]!)], () => {})).rejects.toThrow('has no decode');
  });
});
