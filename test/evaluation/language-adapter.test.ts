import { afterAll, describe, expect, it } from 'vitest';
import { unitsOf } from '../../ts/evaluation/batching.ts';
import { evalTokenizer } from '../../ts/evaluation/eval-tokenizer.ts';
import {
  evaluate,
  heldOutTextTask,
  MersenneTwister,
  type Results,
  type TokenRequest,
  type TokenScore,
  wordOrderTask,
} from '../../ts/evaluation/index.ts';
import { languageAdapter } from '../../ts/evaluation/language-adapter.ts';
import type { LanguageModel } from '../../ts/models/language/model.ts';
import { packSequences } from '../../ts/models/language/packed-batch.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';
import { byteTokenizer } from './fake-model.ts';
import { smallModel, smallVocabulary } from './small-models.ts';

const model = smallModel('dense', 48);
const mixture = smallModel('mixture', 48);
afterAll(() => {
  model.dispose();
  mixture.dispose();
});

const random = new MersenneTwister(9);
const tokens = (count: number): number[] =>
  Array.from({ length: count }, () => random.below(smallVocabulary));
function request(
  context: readonly number[],
  continuation: readonly number[],
  kind: TokenRequest['kind'] = 'loglikelihood',
): TokenRequest {
  return { kind, context, continuation };
}
const shared = Array.from({ length: 5 }, () => tokens(9 + random.below(20)));
const requests: TokenRequest[] = [
  ...shared.flatMap((context) => [1, 1, 3, 7].map((length) => request(context, tokens(length)))), // four choices each
  ...Array.from({ length: 9 }, () => request([256], tokens(1 + random.below(40)))),
  request(tokens(60), tokens(5)), // context to be cut
  request([256], tokens(130), 'loglikelihood_rolling'), // three windows
];

async function ask(
  of: LanguageModel,
  asked: readonly TokenRequest[],
  options: { tokenBudget?: number; sharePrefixes?: boolean } = {},
): Promise<TokenScore[]> {
  const scores: TokenScore[] = [];
  const adapter = languageAdapter(of, { tokenizer: byteTokenizer, ...options });
  await adapter.loglikelihood(asked, (i, score) => {
    expect(scores[i]).toBeUndefined();
    scores[i] = score;
  });
  expect(scores.filter(() => true)).toHaveLength(asked.length);
  return scores;
}

/** log softmax of the plain logits, in double precision, one sequence at a time. */
function direct(of: LanguageModel, { context, continuation }: TokenRequest): TokenScore {
  const all = [...context, ...continuation];
  const logits = noGrad(() =>
    scope(() => of.logits(of.forward(packSequences([all.slice(0, -1)]))).toArray()),
  );
  let sum = 0;
  let greedy = true;
  for (let at = context.length; at < all.length; at++) {
    const row = logits.slice((at - 1) * 258, at * 258);
    const top = Math.max(...row);
    sum += row[all[at]!]! - top - Math.log(row.reduce((total, x) => total + Math.exp(x - top), 0));
    greedy &&= row.indexOf(top) === all[at];
  }
  return { sum, greedy };
}

describe('the language model adapter', () => {
  it.each([
    ['dense', model],
    ['mixture', mixture],
  ] as const)('scores as the plain logits do (%s)', async (_, of) => {
    const short = requests
      .slice(0, 29)
      .filter(({ context, continuation }) => context.length + continuation.length <= 49);
    const scores = await ask(of, short);
    for (const [i, one] of short.entries()) {
      const expected = direct(of, one);
      expect(scores[i]!.sum).toBeCloseTo(expected.sum, 3);
      expect(Math.abs(scores[i]!.sum - expected.sum)).toBeLessThan(2e-5 * Math.abs(expected.sum) + 1e-5);
      expect(scores[i]!.greedy).toBe(expected.greedy);
    }
  });

  it('knows a greedy continuation', async () => {
    const context = tokens(12);
    const continuation: number[] = [];
    for (let i = 0; i < 4; i++) {
      const logits = noGrad(() =>
        scope(() => model.logits(model.forward(packSequences([[...context, ...continuation]]))).toArray()),
      ).slice(-258);
      continuation.push(logits.indexOf(Math.max(...logits)));
    }
    const other = [...continuation.slice(0, 3), (continuation[3]! + 1) % 258];
    const [right, wrong] = await ask(model, [request(context, continuation), request(context, other)]);
    expect([right!.greedy, wrong!.greedy]).toEqual([true, false]);
  });

  it.each([
    ['dense', model],
    ['mixture', mixture],
  ] as const)('gives the same bits in any batch, shared or not (%s)', async (_, of) => {
    const reference = await ask(of, requests, { tokenBudget: 1, sharePrefixes: false });
    for (const options of [
      { tokenBudget: 64 },
      { tokenBudget: 100_000 },
      { tokenBudget: 100_000, sharePrefixes: false },
      { tokenBudget: 1 },
    ])
      expect(await ask(of, requests, options)).toEqual(reference);
    expect(await ask(of, requests.toReversed())).toEqual(reference.toReversed());
  });

  it('runs a shared context once', () => {
    const cost = (share: boolean): number =>
      unitsOf(requests.slice(0, 20), 48, 2048, () => share).reduce((sum, unit) => sum + unit.cost, 0);
    const contexts = shared.reduce((sum, { length }) => sum + length, 0);
    expect(cost(true)).toBe(contexts + 5 * (0 + 0 + 2 + 6));
    expect(cost(false)).toBe(4 * contexts + 5 * (0 + 0 + 2 + 6));
    // a group that does not fit the budget is split, each part with the context
    expect(
      unitsOf(requests.slice(0, 4), 48, shared[0]!.length + 6).map(
        (unit) => unit.kind === 'shared' && unit.requests,
      ),
    ).toEqual([[0, 1, 2], [3]]);
  });

  it('has a fingerprint of its weights', () => {
    const twin = smallModel('dense', 48);
    const of = (which: LanguageModel) => languageAdapter(which, { tokenizer: byteTokenizer }).fingerprint();
    expect(of(twin)).toBe(of(model));
    const value = twin.finalNorm.weight.toArray();
    twin.finalNorm.weight.write(value.map((x, i) => (i === 7 ? x + 1e-6 : x)));
    expect(of(twin)).not.toBe(of(model));
    expect(languageAdapter(model, { tokenizer: byteTokenizer, maxLength: 20 }).fingerprint()).not.toBe(
      of(model),
    );
    twin.dispose();
  });

  it('leaves the model in the mode it was in', async () => {
    model.train();
    await ask(model, requests.slice(0, 2));
    expect(model.training).toBe(true);
    model.eval();
    await ask(model, requests.slice(0, 2));
    expect(model.training).toBe(false);
  });

  it('stops between batches', async () => {
    const controller = new AbortController();
    let emitted = 0;
    const adapter = languageAdapter(model, { tokenizer: byteTokenizer, tokenBudget: 40 });
    const work = adapter.loglikelihood(
      requests,
      () => {
        emitted++;
        controller.abort(new Error('enough'));
      },
      { signal: controller.signal },
    );
    await expect(work).rejects.toThrow('enough');
    expect(emitted).toBeLessThan(requests.length);
  });

  it('refuses sizes that cannot be', () => {
    expect(() => languageAdapter(model, { tokenizer: byteTokenizer, tokenBudget: 0 })).toThrow('tokenBudget');
    expect(() => languageAdapter(model, { tokenizer: byteTokenizer, maxLength: 49 })).toThrow(
      'maxPositions 48',
    );
  });

  it('carries a whole evaluation', async () => {
    const text = 'It was a bright cold day in April, and the clocks were striking thirteen times over.';
    const run = evaluate(languageAdapter(mixture, { tokenizer: byteTokenizer, name: 'tiny' }), {
      tasks: [
        heldOutTextTask('text', [
          { id: 'a', text },
          { id: 'b', text: text.repeat(3) },
        ]),
        wordOrderTask('order', [text]),
      ],
      bootstrapResamples: 1000,
    });
    let results: Results | undefined;
    while (results === undefined) {
      const step = await run.next();
      if (step.done) results = step.value;
    }
    expect(results.results.text?.['bits_per_byte,none']).toBeGreaterThan(7.5); // an untrained model knows nothing
    expect(results.config).toMatchObject({
      model: 'tiny',
      model_dtype: 'f32',
      device: 'cpu',
      max_length: 48,
    });
    expect(results['n-samples'].order).toEqual({ original: 1, effective: 1 });
  });
});

describe('a tokenizer as evaluation needs it', () => {
  const tokenizer = (adds: boolean) => ({
    name: 'toy',
    hash: '0123456789abcdef',
    vocabularySize: 300,
    bosId: 1,
    encode: (text: string, options?: { addSpecialTokens?: boolean }) =>
      Int32Array.from([...(adds && options?.addSpecialTokens ? [1] : []), ...Buffer.from(text)]),
    decode: () => '',
    idToToken: (id: number) => (id === 1 ? '<s>' : undefined),
    tokenToId: () => undefined,
  });
  it('says whether it adds BOS of its own accord', () => {
    expect(evalTokenizer(tokenizer(true))).toMatchObject({
      name: 'toy@0123456789ab',
      bos: 1,
      bosText: '<s>',
      addsBos: true,
    });
    expect(evalTokenizer(tokenizer(false)).addsBos).toBe(false);
    expect(evalTokenizer(tokenizer(true)).encode('ab')).toEqual([97, 98]);
    expect(evalTokenizer(tokenizer(true)).eos).toBeUndefined();
  });
});
