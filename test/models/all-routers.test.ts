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
import { routerCases } from '../moe/routers/cases.ts';
import { tinyConfig, tinyModel } from './tiny.ts';

const cases = routerCases('language');

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-routers-'));
afterAll(() => rmSync(folder, { recursive: true }));

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

  // What the definition says is what the model does: no list here.
  it('made of a dense model computes what that does, or its definition says why not', () => {
    using dense = tinyModel(tinyConfig);
    const before = logitsOf(dense);
    for (const { compat, options } of cases.filter((given) => given.name === name)) {
      const router = { name, ...options };
      const { model, report } = upcycleWithReport(dense, { experts: 4, topK: 1, router, compat });
      const logits = logitsOf(model);
      model.dispose();
      const change = Math.max(...logits.map((x, i) => Math.abs(x - before[i]!)));
      if (report.unlikeDense.length === 0) expect(change, compat).toBeLessThan(1e-5);
      else {
        expect(change, compat).toBeGreaterThan(5e-5); // tc-moe: null experts have e⁻¹⁰
        expect(report.unlikeDense.join('\n')).toMatch(
          new RegExp(`^router ${name.replaceAll('+', '\\+')}: .{20,}$`),
        );
      }
    }
  });
});
