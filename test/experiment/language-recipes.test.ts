import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadRecipe, merged, planRecipe, prepareData, runRecipe } from '../../ts/experiment/index.ts';
import { readConfig } from '../../ts/models/language/checkpoint.ts';
import type { LanguageModelConfig } from '../../ts/models/language/index.ts';
import { createRouter, ForwardContext, routerDefinition } from '../../ts/moe/index.ts';
import { noGrad, scope, setThreads, threads } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';
import { leaveToCollector } from '../collected.ts';

leaveToCollector();

const root = path.resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-language-'));
const before = threads();
afterAll(() => {
  setThreads(before);
  rmSync(folder, { recursive: true });
});

const sizes = ['154m', '660m'] as const;
const fileOf = (size: string, name: string) => path.join(root, 'recipes', 'language', size, `${name}.yaml`);
const names = ['dense', 'moe++', 'remoe', 'shared-v2', 'shared-v3', 'sigmoid', 'smoe', 'tc-moe', 'xmoe'];

/** Parameters of LibMoE's two sizes, spec/algorithms.md §4.2 and our own arithmetic. */
const routerWidth = { '154m': 512, '660m': 1024 };
const moe = { '154m': 157_934_400, '660m': 678_287_168 };
const layers = { '154m': 16, '660m': 18 };

describe('recipes/language', () => {
  for (const size of sizes)
    it(`${size}: has every variant, and each can be planned`, () => {
      const files = readdirSync(path.dirname(fileOf(size, 'x')));
      expect(files.sort()).toEqual(names.map((name) => `${name}.yaml`));
      const plans = new Map(
        names.map((name) => [name, planRecipe(fileOf(size, name), {}, { gpu: 'a100-80' })]),
      );
      const parameters = (name: string): number => plans.get(name)!.parameters;
      const [d, n] = [routerWidth[size], layers[size]];
      for (const name of ['smoe', 'sigmoid', 'remoe']) expect(parameters(name)).toBe(moe[size]);
      expect(parameters('dense')).toBe({ '154m': 35_783_488, '660m': 129_769_280 }[size]);
      // 64 routed and two shared experts are 66; two rows of the router are gone.
      for (const name of ['shared-v2', 'shared-v3']) expect(parameters(name)).toBe(moe[size] - n * 2 * d);
      // A projection to 33 dimensions, embeddings in them and a temperature instead of the router's matrix.
      expect(parameters('xmoe')).toBe(moe[size] + n * (33 * d + 66 * 33 + 1 - 66 * d));
      expect(parameters('tc-moe')).toBe(moe[size] + n * 74 * d);
      // Eight more rows, six vectors and their mixing rows; a residual in all layers but the first.
      expect(parameters('moe++')).toBe(moe[size] + n * (8 + 6 + 12) * d + (n - 1) * 74 * 74);
      for (const plan of plans.values()) expect(plan.fits).toBe(true);
      // What a token uses is what the dense model has, nearly: the routers, and the dense layer's biases.
      const active = plans.get('smoe')!.activeParameters;
      expect(Math.abs(active / parameters('dense') - 1)).toBeLessThan(0.02);
      expect(plans.get('moe++')!.activeParameters).toBeLessThan(active);
    });

  /** §4.2 of the specification: what every model of a size has. */
  const sizeOf = {
    '154m': {
      data: { tokenLimit: 1024 * 64 * 100_100 },
      model: { dModel: 512, layers: 16, headDim: 82 },
      training: {
        steps: 100_000,
        clipNorm: 0.1,
        schedule: { warmupSteps: 0 },
        checkpointEvery: 10_000,
        evaluateEvery: 10_000,
      },
    },
    '660m': {
      data: { tokenLimit: 1024 * 64 * 400_100 },
      model: { dModel: 1024, layers: 18, headDim: 128 },
      training: {
        steps: 400_000,
        clipNorm: 0.25,
        schedule: { warmupSteps: 4000 },
        checkpointEvery: 20_000,
        evaluateEvery: 20_000,
      },
    },
  };
  const expertSize = { '154m': 128, '660m': 256 };
  const common = {
    seed: 42,
    precision: 'bf16',
    tokenizer: { train: { vocabularySize: 8000 } },
    data: { sequenceLength: 1024, batchSequences: 64, order: 'libmoe' },
    model: { heads: 4, rotary: { fraction: 0.5 }, init: 'libmoe' },
    training: {
      microBatches: 4,
      optimizer: { name: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 },
      schedule: { name: 'cosine', learningRate: 2.5e-4, minimumRatio: 0.1, compat: 'libmoe' },
    },
  };

  for (const size of sizes)
    it.each(names)(`${size}/%s has LibMoE's hyperparameters`, (name) => {
      const recipe = loadRecipe(fileOf(size, name));
      expect(recipe).toMatchObject(common);
      expect(recipe).toMatchObject(sizeOf[size]);
      const { moe, dModel, layers } = recipe.model as unknown as LanguageModelConfig;
      const hidden = expertSize[size];
      if (name === 'dense') {
        expect(moe ?? null).toBeNull();
        expect(recipe.model).toMatchObject({ feedForward: { hidden: 8 * hidden, activation: 'relu' } });
        return;
      }
      const shared = name.startsWith('shared');
      expect(moe).toMatchObject({
        ...(shared ? { experts: 64, topK: 6, shared: { hidden: 2 * hidden } } : { experts: 66, topK: 8 }),
        expert: { hidden, activation: 'relu', gated: false },
      });
      const { name: router, ...options } = moe!.router;
      expect(router).toBe(name);
      const place = { width: dModel, layer: 0, layers, compat: 'fixed', shared } as const;
      using made = createRouter(router, options, { ...place, experts: moe!.experts, topK: moe!.topK });
      using context = new ForwardContext({ training: true });
      const outputs = { 'moe++': 74, 'tc-moe': 140 }[name] ?? moe!.experts;
      scope(() => {
        const pass = context.routing(0, '0');
        const { losses, logits } = noGrad(() => made.route(randn([4, dModel], { seed: 1 }), pass));
        const coefficients = Object.fromEntries((losses ?? []).map((l) => [l.name, l.coefficient]));
        // moe.perplexity_reg; ReMoE, which LibMoE has no code of, balances by its penalty.
        expect(coefficients.balance).toBe(name === 'remoe' ? undefined : 0.01);
        expect(coefficients.routerZ).toBeUndefined();
        expect(logits!.shape[1]).toBe(outputs);
      });
      if (name === 'xmoe') expect(made.namedParameters().get('projection')!.shape).toEqual([33, dModel]);
    });

  it("can be had as LibMoE's code computes it, where the router has that", () => {
    for (const name of names) {
      const { model } = loadRecipe(fileOf('154m', name));
      const router = model?.moe?.router?.name;
      if (router === undefined || !routerDefinition(router).compat?.includes('libmoe')) continue;
      // The header of tc-moe.yaml says why it needs more.
      const more = name === 'tc-moe' ? { router: { balance: 'global' } } : {};
      expect(
        loadRecipe(fileOf('154m', name), { model: { moe: { compat: 'libmoe', ...more } } }),
      ).toBeDefined();
    }
    expect(() => loadRecipe(fileOf('154m', 'tc-moe'), { model: { moe: { compat: 'libmoe' } } })).toThrow(
      /set balance to step, time, layers_time, global or none/,
    );
  });

  describe('at toy size', () => {
    const corpus = path.join(folder, 'corpus.jsonl');
    const tokenizer = path.join(folder, 'first', 'tokenizer', 'tokenizer.json');
    const source = { files: corpus };
    const changes = {
      data: { train: source, heldOut: { validation: source }, cache: path.join(folder, 'cache'), workers: 0 },
    };

    beforeAll(async () => {
      setThreads(1);
      const words = 'one two three four five six seven eight nine ten eleven twelve'.split(' ');
      const lines = Array.from({ length: 80 }, (_, i) =>
        Array.from({ length: 40 }, (_, j) => words[(i * 5 + j * j) % 12]).join(' '),
      );
      writeFileSync(corpus, lines.map((text) => JSON.stringify({ text })).join('\n'));
      const recipe = loadRecipe(fileOf('154m', 'smoe'));
      const first = loadRecipe(
        fileOf('154m', 'smoe'),
        merged(merged(recipe.smoke!, changes), { tokenizer: { train: { vocabularySize: 60 } } }),
      );
      const prepared = await prepareData(first, path.join(folder, 'first'), { log: () => {} });
      prepared.dataset.close();
    });

    for (const size of sizes)
      for (const name of names)
        it(`${size}/${name} runs from end to end`, async () => {
          const { smoke } = loadRecipe(fileOf(size, name));
          const out = path.join(folder, `${size}-${name}`);
          const result = await runRecipe(fileOf(size, name), merged(merged(smoke!, changes), { tokenizer }), {
            out,
            status: null,
          });
          expect(result.training).toMatchObject({ step: 4, tokens: 4 * 4 * 16, completed: true });
          expect(result.name).toBe(`language-${size}-${name}`);
          expect(Object.keys(result.evaluation!.results)).toEqual(['validation']);
          const { config } = readConfig(result.checkpoint!);
          expect(config.moe?.router.name).toBe(name === 'dense' ? undefined : name);
          expect(result.parameters).toBeLessThan(40_000);
        });
  });

  it('smokes by itself, with data that the package names', () => {
    const { smoke } = loadRecipe(fileOf('660m', 'shared-v3'));
    const recipe = loadRecipe(fileOf('660m', 'shared-v3'), smoke);
    expect(recipe.data.train).toEqual({ dataset: 'sotu', split: 'heldOut' });
    expect(recipe.data.heldOut).toEqual({ validation: { dataset: 'sotu', split: 'heldOut' } });
    expect(recipe.model).toMatchObject({ layers: 2, moe: { experts: 6, shared: { hidden: 16 } } });
  });
});
