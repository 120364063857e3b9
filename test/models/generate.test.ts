import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  endTokens,
  type GeneratedToken,
  type GenerateOptions,
  generate,
  type LanguageModel,
  packSequences,
  rawForward,
  sampleToken,
} from '../../ts/models/language/index.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';
import { someIds, tinyModel, tinyMoe } from './tiny.ts';

const prompt = someIds(6);

async function take(model: LanguageModel, options: GenerateOptions): Promise<GeneratedToken[]> {
  const tokens: GeneratedToken[] = [];
  for await (const token of generate(model, prompt, options)) tokens.push(token);
  return tokens;
}

describe('generate', () => {
  it('greedy tokens are the most probable ones of the whole sequence', async () => {
    using model = tinyModel();
    const made = await take(model, { maxTokens: 12 });
    expect(made).toHaveLength(12);
    const ids = [...prompt];
    for (const { token, logProbability } of made) {
      const row = noGrad(() =>
        scope(() => model.logits(model.forward(packSequences([ids]))).toArray()),
      ).slice(-50);
      const best = Math.max(...row);
      expect(row[token]).toBe(best);
      const total = row.reduce((sum, logit) => sum + Math.exp(logit - best), 0);
      expect(logProbability).toBeCloseTo(-Math.log(total), 5);
      ids.push(token);
    }
  });

  it('says which experts each token was chosen with', async () => {
    using model = tinyModel(tinyMoe);
    const made = await take(model, { maxTokens: 4, routing: true });
    expect(made.map(({ token }) => token)).toEqual(
      (await take(model, { maxTokens: 4 })).map(({ token }) => token),
    );
    expect((await take(model, { maxTokens: 1 }))[0]!.routing).toBeUndefined();
    // The same as the last row of a whole pass over what came before.
    const ids = [...prompt];
    for (const { token, routing } of made) {
      const tensors = rawForward(model, [ids], { hidden: true });
      expect(routing!.map(({ layer }) => layer)).toEqual(['1']);
      expect(routing![0]!.experts).toEqual(tensors.get('routing.1.experts')!.toArray().slice(-2));
      expect(routing![0]!.weights).toEqual(tensors.get('routing.1.weights')!.toArray().slice(-2));
      for (const t of tensors.values()) t.dispose();
      ids.push(token);
    }
  });

  it('knows where checkpoints say that texts end', () => {
    using model = tinyModel();
    expect(endTokens(model)).toEqual([]);
    model.specialTokens = { eos_token_id: 3 };
    expect(endTokens(model)).toEqual([3]);
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-end-'));
    try {
      expect(endTokens(model, folder)).toEqual([3]);
      writeFileSync(join(folder, 'generation_config.json'), '{ "eos_token_id": [7, 3, 50] }');
      expect(endTokens(model, folder)).toEqual([3, 7]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('samples by the seed alone', async () => {
    using model = tinyModel();
    const options = { maxTokens: 20, temperature: 1.5, topK: 30, topP: 0.95 };
    const first = await take(model, { ...options, seed: 4 });
    expect(await take(model, { ...options, seed: 4 })).toEqual(first);
    expect(await take(model, { ...options, seed: 5 })).not.toEqual(first);
    expect((await take(model, { ...options, temperature: 0.001 })).map(({ token }) => token)).toEqual(
      (await take(model, { maxTokens: 20 })).map(({ token }) => token),
    );
  });

  it('stops at stop tokens, at maxPositions and at a signal, and leaves the mode as it was', async () => {
    using model = tinyModel();
    const all = await take(model, { maxTokens: 10 });
    const stop = all[4]!.token;
    const cut = await take(model, { maxTokens: 10, stop: [stop] });
    expect(cut).toEqual(
      all.slice(
        0,
        all.findIndex(({ token }) => token === stop),
      ),
    );
    expect(await take(model, { maxTokens: 1000 })).toHaveLength(96 - 6 + 1);
    const aborter = new AbortController();
    const seen: number[] = [];
    for await (const { token } of generate(model, prompt, { signal: aborter.signal })) {
      seen.push(token);
      if (seen.length === 3) aborter.abort();
    }
    expect(seen).toHaveLength(3);
    expect(model.training).toBe(true);
  });

  it('rejects bad input', async () => {
    using model = tinyModel();
    await expect(take(model, { maxTokens: -3 })).rejects.toThrow(/ERR_LIBMOE_ARGUMENT.*maxTokens/);
    await expect(take(model, { maxTokens: 1.5 })).rejects.toThrow(/ERR_LIBMOE_ARGUMENT.*maxTokens/);
    await expect(take(model, { temperature: -1 })).rejects.toThrow(/ERR_LIBMOE_ARGUMENT.*temperature/);
    await expect(take(model, { topP: 0 })).rejects.toThrow(/topP must be in/);
    await expect(take(model, { topK: 1.5 })).rejects.toThrow(/topK must be a positive integer/);
    await expect(generate(model, [], {}).next()).rejects.toThrow(/ERR_LIBMOE_DATA.*empty/);
    await expect(generate(model, [50], {}).next()).rejects.toThrow(/ERR_LIBMOE_DATA/);
    await expect(generate(model, someIds(96), {}).next()).rejects.toThrow(/ERR_LIBMOE_ARGUMENT.*cut it/);
  });
});

describe('sampleToken', () => {
  const logits = [0, Math.log(2), Math.log(5), Math.log(2)];
  const draw = (options: object, random: number): number => sampleToken(logits, options, () => random).token;
  it('walks the cumulative distribution', () => {
    const at = [0.05, 0.15, 0.35, 0.95].map((random) => draw({ temperature: 1 }, random));
    expect(at).toEqual([0, 1, 2, 3]);
  });
  it('cuts by rank and by mass, ties to the lower id', () => {
    expect([0, 0.7, 0.72, 0.999].map((random) => draw({ temperature: 1, topK: 2 }, random))).toEqual([
      2, 2, 1, 1,
    ]);
    expect([0, 0.999].map((random) => draw({ temperature: 1, topP: 0.5 }, random))).toEqual([2, 2]);
    expect(draw({ temperature: 1, topP: 0.51 }, 0.999)).toBe(1);
  });
  it('refuses logits that are no numbers', () => {
    expect(() => sampleToken([0, Number.NaN], {}, () => 0)).toThrow(/ERR_LIBMOE_NOT_FINITE.*token 1/);
    expect(() => sampleToken([-Infinity, -Infinity], {}, () => 0)).toThrow(/ERR_LIBMOE_NOT_FINITE/);
  });
});
