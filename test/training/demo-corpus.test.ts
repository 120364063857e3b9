import { beforeAll, describe, expect, it } from 'vitest';
import {
  PackedLoader,
  sotuSplits,
  type TokenDataset,
  tokenDataset,
  tokenizerFromJson,
  trainTokenizer,
} from '../../ts/data/index.ts';
import { LanguageModel } from '../../ts/models/language/index.ts';
import { routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { optimizer, schedule, train } from '../../ts/training/index.ts';
import { leaveToCollector } from '../collected.ts';

leaveToCollector();

const vocabularySize = 512;
const steps = 50;

/** 70,000 tokens of the demo's corpus. */
let dataset: TokenDataset;

beforeAll(async () => {
  setThreads(1); // the model is too small for more
  const texts = sotuSplits().train.slice(0, 30);
  const trained = await trainTokenizer(
    texts.map(({ text }) => text),
    { vocabularySize, byteFallback: true },
  );
  const tokenizer = tokenizerFromJson(trained.json, trained.config);
  const ids = texts.flatMap(({ text }) => [...tokenizer.encode(text)]).slice(0, 70_000);
  dataset = tokenDataset(Int32Array.from(ids), { vocabularySize });
}, 60_000);

/** Cross entropy of every step. */
async function losses(name: string, learningRate: number): Promise<number[]> {
  const feedForward = { hidden: 32, activation: 'silu', gated: true } as const;
  using model = new LanguageModel(
    {
      vocabularySize,
      dModel: 32,
      layers: 2,
      heads: 2,
      keyValueHeads: 2,
      feedForward,
      tieEmbeddings: true,
      maxPositions: 64,
      moe: {
        experts: 4,
        topK: 2,
        router: { name },
        expert: feedForward,
        ...(routerDefinition(name).sharedExpert && { shared: { hidden: 32 } }),
      },
    },
    { seed: 3 },
  );
  const adam = optimizer(model.namedParameters(), { name: 'adamw' });
  const seen: number[] = [];
  try {
    for await (const { crossEntropy } of train(model, {
      data: new PackedLoader(dataset, { sequenceLength: 32, batchSequences: 4, seed: 1 }),
      optimizer: adam,
      schedule: schedule({ name: 'constant', learningRate }, steps),
      steps,
    }))
      seen.push(crossEntropy);
  } finally {
    adam.dispose();
  }
  return seen;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
/** How far the last ten steps are below the first ten. */
const fall = (values: readonly number[]): number => mean(values.slice(0, 10)) - mean(values.slice(-10));

describe('fifty steps on the demo corpus', () => {
  it('do nothing without learning: batches differ by less than a tenth of what training gains', async () => {
    expect(Math.abs(fall(await losses('smoe', 1e-9)))).toBeLessThan(0.05);
  });

  it.each(routerNames())('%s: the loss falls', async (name) => {
    const seen = await losses(name, 0.01);
    expect(seen.every(Number.isFinite)).toBe(true);
    expect(fall(seen)).toBeGreaterThan(0.5);
  });
});
