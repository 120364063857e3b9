import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LanguageModel, type LanguageModelOptions } from '../../ts/models/language/index.ts';
import { type Compat, createRouter, routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { setThreads, threads } from '../../ts/tensor/index.ts';
import { checkpointEvery, optimizer, type StepReport, schedule, train } from '../../ts/training/index.ts';
import { leaveToCollector } from '../collected.ts';
import { tinyConfig } from '../models/tiny.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { ToyData } from './toy.ts';

leaveToCollector();

const root = temporaryFolder();
const before = threads();
// So small a model is faster on one thread.
beforeAll(() => setThreads(1));
afterAll(() => setThreads(before));
const steps = 8;

/** The most choices up to 2 that a router makes under this `compat`: Switch's own method makes one. */
function choicesOf(name: string, compat: Compat, options: object): number {
  const place = { width: tinyConfig.dModel, experts: 4, layer: 0, layers: 3, compat, shared: true } as const;
  const makes = (topK: number): boolean => {
    try {
      createRouter(name, options, { ...place, topK }).dispose();
      return true;
    } catch (error) {
      if (/topK/.test((error as Error).message)) return false;
      throw error;
    }
  };
  return makes(2) ? 2 : 1;
}

interface Kind {
  until?: number;
  compat?: Compat;
  topK?: number;
}

async function session(
  name: string,
  options: object,
  out: string,
  { until, compat = 'fixed', topK = choicesOf(name, compat, options) }: Kind = {},
) {
  const config: LanguageModelOptions = {
    ...tinyConfig,
    vocabularySize: 64,
    moe: {
      experts: 4,
      topK,
      compat,
      router: { name, ...options },
      expert: { hidden: 8 },
      ...(routerDefinition(name).sharedExpert && { shared: { hidden: 8 } }),
    },
  };
  using model = new LanguageModel(config, { seed: 1 });
  const adam = optimizer(model.namedParameters(), { name: 'adamw' });
  const reports: StepReport[] = [];
  try {
    for await (const report of train(model, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'cosine', learningRate: 0.02 }, steps),
      steps,
      out,
      callbacks: [checkpointEvery(4)],
      resume: until === undefined,
    })) {
      reports.push(report);
      if (report.step === until) break; // as a crash would
    }
    const buffers = [...model.namedBuffers()].map(([key, t]) => [key, t.toArray()] as const);
    return { reports, buffers: new Map(buffers), weights: model.parameters().map((p) => p.readSync()) };
  } finally {
    adam.dispose();
  }
}

const losses = (reports: StepReport[]) => reports.map(({ step, loss, gradNorm }) => [step, loss, gradNorm]);

describe('training with every router', () => {
  const kinds = routerNames().flatMap((name) =>
    (routerDefinition(name).compat ?? (['fixed'] as const)).map((compat) => ({ name, compat })),
  );

  it.each(kinds)('$name ($compat) is resumed bit for bit', async ({ name, compat }) => {
    // LibMoE's language models have no switch balance of ternary choices.
    const options = name === 'tc-moe' && compat === 'libmoe' ? { balance: 'global' } : {};
    const straight = await session(name, options, join(root, `${name}-${compat}-straight`), { compat });
    const out = join(root, `${name}-${compat}-resumed`);
    await session(name, options, out, { until: 5, compat });
    const second = await session(name, options, out, { compat });
    expect(second.reports[0]!.step).toBe(5);
    expect(losses(second.reports)).toEqual(losses(straight.reports.slice(4)));
    expect(second.weights).toEqual(straight.weights);
    expect(second.buffers).toEqual(straight.buffers);
    expect(straight.reports.every(({ loss }) => Number.isFinite(loss))).toBe(true);
  });

  it('moves the biases of shared-v3 until the part of the run that was asked for', async () => {
    const biases = async (biasUpdateUntil: number) => {
      const options = { biasUpdate: 0.5, biasUpdateUntil };
      const { buffers } = await session('shared-v3', options, join(root, `v3-${biasUpdateUntil}`));
      return [...buffers.values()].flat();
    };
    // Each of the first two steps moves a bias by 0.5 or leaves it.
    const early = await biases(0.25);
    expect(early.some((b) => b !== 0)).toBe(true);
    expect(early.every((b) => Math.abs(b) <= 1 && Number.isInteger(2 * b))).toBe(true);
    expect(await biases(1)).not.toEqual(early);
    expect((await biases(0)).every((b) => b === 0)).toBe(true);
  });

  it("adapts remoe's λ, the same in all layers", async () => {
    const { buffers } = await session('remoe', { sparsityFactor: 2 }, join(root, 'remoe'), { topK: 1 });
    const [first, ...others] = [...buffers.values()].map(([value]) => value!);
    expect(others).toEqual([first, first]);
    // More than a quarter of the gates are open at the start: λ doubles at every one of the 8 steps unless the goal is reached before.
    expect(Math.log2(first! / Math.fround(1e-8))).toBeGreaterThan(0);
  });
});
