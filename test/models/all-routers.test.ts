import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  countParameters,
  LanguageModel,
  type LanguageModelOptions,
  loadModel,
  packSequences,
  saveModel,
} from '../../ts/models/language/index.ts';
import { ForwardContext, routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';
import { upcycleWithReport } from '../../ts/upcycling/index.ts';
import { tinyConfig, tinyModel } from './tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-routers-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Methods whose weights do not sum to 1, or not over experts alone: an upcycled model is another function than the dense one. */
const ownScale = ['expert-choice', 'moe++', 'remoe', 'switch', 'tc-moe'];

const configOf = (name: string): LanguageModelOptions => ({
  ...tinyConfig,
  moe: {
    experts: 4,
    topK: 1,
    router: { name },
    expert: { hidden: 8 },
    ...(routerDefinition(name).sharedExpert && { shared: { hidden: 8 } }),
  },
});

function logitsOf(model: LanguageModel): number[] {
  return noGrad(() =>
    scope(() => {
      using context = new ForwardContext();
      return model.forward(packSequences([[5, 9, 2, 1]]), context).toArray();
    }),
  );
}

describe.each(routerNames())('%s in a language model', (name) => {
  it('is counted as it is, saved, and loaded with the same logits', async () => {
    using model = new LanguageModel(configOf(name), { seed: 1 });
    expect(countParameters(configOf(name))).toBe(model.parameterCount());
    const to = path.join(folder, name);
    await saveModel(model, to);
    using loaded = (await loadModel(to)) as LanguageModel;
    expect([...loaded.stateDict().keys()]).toEqual([...model.stateDict().keys()]);
    expect(logitsOf(loaded)).toEqual(logitsOf(model));
  });

  it('is made of a dense model', () => {
    using dense = tinyModel(tinyConfig);
    const { model } = upcycleWithReport(dense, { experts: 4, topK: 1, router: name });
    try {
      const logits = logitsOf(model);
      expect(logits.every(Number.isFinite)).toBe(true);
      if (ownScale.includes(name)) return;
      const before = logitsOf(dense);
      expect(Math.max(...logits.map((x, i) => Math.abs(x - before[i]!)))).toBeLessThan(1e-5);
    } finally {
      model.dispose();
    }
  });
});
