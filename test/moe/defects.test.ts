// The defects of LibMoE (spec/algorithms.md §8; docs/defects.md says where each one is proved): those that no other test of their subject covers.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LanguageModel } from '../../ts/models/language/index.ts';
import {
  createRouter,
  ForwardContext,
  MoeLayer,
  type Router,
  routerDefinition,
  routerNames,
} from '../../ts/moe/index.ts';
import { packageRoot } from '../../ts/native/index.ts';
import { gate } from '../../ts/tensor/gating.ts';
import { noGrad, scope, tensor } from '../../ts/tensor/index.ts';
import { optimizer, schedule, train } from '../../ts/training/index.ts';
import { leaveToCollector } from '../collected.ts';
import { tinyConfig } from '../models/tiny.ts';
import { ToyData } from '../training/toy.ts';
import { goldenLogits, oneHot, routerWith } from './golden-logits.ts';
import { near, rowsOf, waves } from './routers/plain-numbers.ts';
import { made, read } from './routers/routed.ts';

leaveToCollector();

const vision = { flavour: 'vision-language' };
const parameters = (router: Router): string[] => [...router.namedParameters().keys()].sort();

describe('MoE++', () => {
  it('#2: gating residual and copy experts work, and a fresh router has all that a trained one saved', () => {
    using own = made('moe++', { experts: 4, topK: 2, layer: 1, layers: 2 });
    expect(parameters(own)).toEqual(['constants', 'mixing', 'residual', 'weight']);
    expect(own.namedParameters().get('weight')!.shape).toEqual([4 + 1 + 1 + 6, 5]);
    using libmoe = made('moe++', { experts: 4, topK: 2, layer: 1, layers: 2, compat: 'libmoe' }, vision);
    expect(parameters(libmoe)).toEqual(['constants', 'mixing', 'weight']);
    expect(libmoe.namedParameters().get('weight')!.shape).toEqual([4 + 1 + 1, 5]);
    // No toggling between training and evaluation: the second router is filled before its first pass.
    using loaded = made('moe++', {
      experts: 4,
      topK: 2,
      layer: 1,
      layers: 2,
      values: { seed: 9, name: 'x' },
    });
    const before = read(own, waves(6), { training: false });
    expect(read(loaded, waves(6), { training: false })).not.toEqual(before);
    loaded.loadStateDict(own.stateDict());
    expect(read(loaded, waves(6), { training: false })).toEqual(before);
  });

  it('#3: the layer of language models can be built, and runs its 74 outputs', async () => {
    using layer = new MoeLayer({ router: 'moe++', experts: 66, topK: 8, dModel: 6, expert: { hidden: 2 } });
    using context = new ForwardContext({ training: true });
    noGrad(() =>
      scope(() => {
        const out = layer.forward(tensor(waves(9, 6), [9, 6]), context);
        expect(out.toArray().every(Number.isFinite)).toBe(true);
      }),
    );
    const { counts } = await context.records[0]!.read();
    expect(counts.length).toBe(74);
    expect(counts.reduce((a, c) => a + c, 0)).toBe(9 * 8);
  });
});

describe('TC-MoE', () => {
  it('#6: no z-loss for a coefficient of 0, and losses are recorded without their coefficients', () => {
    const logits = goldenLogits(15).map((x, i) => (i === 3 * 15 + 12 ? 14 : x));
    for (const [compat, balance] of [
      ['fixed', 1.062716],
      ['libmoe', 0.177119],
    ] as const) {
      using router = routerWith(
        'tc-moe',
        logits,
        { experts: 6, topK: 3, compat },
        { ...vision, zCoefficient: 0 },
        15,
      );
      const { losses, coefficients } = read(router, () => oneHot(6));
      expect(Object.keys(losses).sort()).toEqual(['balance', 'reward']);
      expect(losses.balance).toBeCloseTo(balance, 6);
      expect(coefficients.balance).toBe(0.01);
    }
  });

  it("#7: language models balance it, with both of LibMoE's recipes' sizes", () => {
    for (const balance of ['standard', 'switch', 'step', 'time', 'layers_time', 'global'] as const) {
      using router = made('tc-moe', { experts: 66, topK: 8 }, { balance });
      const { losses } = read(router, waves(12));
      expect(Number.isFinite(losses.balance)).toBe(true);
    }
  });
});

describe('X-MoE', () => {
  it('#8: embeddings are never left as they were found in memory, and there is no dead gate', () => {
    for (const compat of ['fixed', 'libmoe', 'original'] as const)
      for (const init of [undefined, 'linear', { std: 0.5 }]) {
        using router = made('xmoe', { experts: 6, topK: 3, compat }, { ...vision, ...(init && { init }) });
        expect(parameters(router)).toEqual(
          compat === 'libmoe' ? ['embeddings', 'projection'] : ['embeddings', 'logTemperature', 'projection'],
        );
        const embeddings = router.namedParameters().get('embeddings')!;
        const norms = rowsOf(embeddings.toArray(), embeddings.shape[1]!).map((row) => Math.hypot(...row));
        near(norms, new Array(6).fill(compat === 'original' ? 1 : 1.5), 9);
      }
    using fixed = made('xmoe', { experts: 6, topK: 3 });
    using libmoe = made('xmoe', { experts: 6, topK: 3, compat: 'libmoe' });
    expect(fixed.namedParameters().get('embeddings')!.shape).toEqual([6, 16]);
    expect(libmoe.namedParameters().get('embeddings')!.shape).toEqual([6, 3]);
  });

  it('#9: 66 experts, top 8: libmoe weighs all alike and pushes nothing, fixed does; both take `standard`', () => {
    const spread = (compat: 'fixed' | 'libmoe') => {
      using router = made('xmoe', { experts: 66, topK: 8, width: 32, compat });
      const { weights, losses } = read(router, waves(20, 32));
      return {
        weights: Math.max(...weights) - Math.min(...weights),
        losses,
      };
    };
    const [libmoe, fixed] = [spread('libmoe'), spread('fixed')];
    expect(libmoe.weights).toBeLessThan(0.05);
    expect(fixed.weights).toBeGreaterThan(0.2);
    for (const { losses } of [libmoe, fixed]) expect(losses.balance).toBeGreaterThan(0.9);
    // The entropy of p taken as logits hardly differs from that of an even router.
    using even = made('xmoe', { experts: 16, topK: 2, compat: 'libmoe' }, { balance: 'global' });
    expect(read(even, waves(20)).losses.balance! + Math.log(16)).toBeLessThan(0.02);
  });
});

describe('SharedE-V3', () => {
  it('#10: libmoe has no bias that could move and ignores 2.5; fixed and original move it', () => {
    const told = { counts: [4, 6, 5, 4, 3, 2], tokens: 12, step: 1, totalSteps: 0, layers: new Map() };
    for (const compat of ['fixed', 'libmoe', 'original'] as const) {
      using router = made('shared-v3', { experts: 6, topK: 2, compat });
      router.afterStep?.(told);
      const bias = router.namedBuffers().get('selectionBias')?.toArray();
      if (compat === 'libmoe') expect(bias).toBeUndefined();
      else near(bias!, [0, -0.001, -0.001, 0, 0.001, 0.001], 9);
      const { weights } = read(router, waves(1));
      expect(weights[0]! + weights[1]!).toBeCloseTo(compat === 'original' ? 2.5 : 1, 9);
    }
  });

  it('#12: groups that are not kept stay out when all biased scores are negative; evaluation moves no bias', () => {
    const logits = goldenLogits(8);
    using router = routerWith(
      'shared-v3',
      logits,
      { experts: 8, topK: 3 },
      { groups: { count: 4, kept: 2 } },
    );
    const choose = () => read(router, () => oneHot(6), { training: false });
    const without = choose();
    const bias = router.namedBuffers().get('selectionBias')!;
    // The same for all experts: a mask of 0 would now win against the kept groups.
    bias.write(new Array(8).fill(-5));
    expect(choose()).toEqual(without);
    expect(bias.toArray()).toEqual(new Array(8).fill(-5));
    // Weights are those of the unbiased scores of the chosen themselves.
    const s = rowsOf(logits, 8).map((row) => row.map((x) => 1 / (1 + Math.exp(-x))));
    near(
      without.weights,
      rowsOf(without.experts, 3).flatMap((chosen, t) => {
        const total = chosen.reduce((a, e) => a + s[t]![e]!, 0);
        return chosen.map((e) => s[t]![e]! / total);
      }),
    );
  });
});

describe('all routers', () => {
  it('#15: the std that is asked for is the std of the matrix, in every router that takes one', () => {
    const tried: string[] = [];
    for (const name of routerNames()) {
      const options = (routerDefinition(name).options as { shape?: object }).shape ?? {};
      if (!('init' in options)) continue;
      tried.push(name);
      for (const std of [0.004, 0.3]) {
        using router = createRouter(
          name,
          { init: { std }, ...('flavour' in options && vision) },
          {
            width: 60,
            experts: 40,
            topK: 2,
            layer: 0,
            layers: 1,
            compat: 'fixed',
            shared: true,
          },
        );
        const matrix = router.namedParameters().get(name === 'xmoe' ? 'projection' : 'weight')!;
        const values = matrix.toArray();
        const found = Math.sqrt(values.reduce((a, v) => a + v * v, 0) / values.length);
        expect(found / std, name).toBeGreaterThan(0.9);
        expect(found / std, name).toBeLessThan(1.1);
      }
    }
    expect(tried.length).toBeGreaterThanOrEqual(12);
  });

  it.each(['sigmoid', 'shared-v2', 'shared-v3', 'tc-moe', 'xmoe'])(
    '#15: libmoe ignores the std that is asked for in vision-language layers of %s',
    (name) => {
      const place = { width: 60, experts: 40, topK: 2, layer: 0, layers: 1, compat: 'libmoe' } as const;
      const matrix = (init?: object): number[] => {
        using router = createRouter(name, { ...vision, ...(init && { init }) }, { ...place, shared: true });
        return router
          .namedParameters()
          .get(name === 'xmoe' ? 'projection' : 'weight')!
          .toArray();
      };
      const values = matrix({ std: 0.3 });
      expect(values).toEqual(matrix());
      const found = Math.sqrt(values.reduce((a, v) => a + v * v, 0) / values.length);
      // X-MoE's projection starts as any linear layer: U(±1/√width).
      expect(found / (name === 'xmoe' ? (3 * 60) ** -0.5 : 0.02)).toBeCloseTo(1, 1);
    },
  );

  it('#18: the z-loss of a bf16 layer is that of its logits in full precision', () => {
    scope(() => {
      const values = waves(40, 8);
      using context = new ForwardContext({ training: true });
      using layer = new MoeLayer({
        router: { name: 'smoe', ...vision, init: { std: 2 } },
        experts: 6,
        topK: 2,
        dModel: 8,
        expert: { hidden: 3 },
        dtype: 'bf16',
      });
      const x = tensor(values, [40, 8], { dtype: 'bf16' });
      noGrad(() => void layer.forward(x, context));
      const w = rowsOf(layer.router.namedParameters().get('weight')!.toArray(), 8);
      const exact =
        rowsOf(x.toArray(), 8).reduce((sum, row) => {
          const logits = w.map((r) => r.reduce((a, v, i) => a + v * row[i]!, 0));
          return sum + Math.log(logits.reduce((a, l) => a + Math.exp(l), 0)) ** 2;
        }, 0) / 40;
      const z = context.losses().find(({ name }) => name === 'routerZ')!.value;
      expect(z.dtype).toBe('f32');
      expect(Math.abs(z.item() / exact - 1)).toBeLessThan(1e-5);
    });
  });

  it('#20, #21: a layer gives one tensor, whatever its router, and losses by the context', () => {
    for (const name of routerNames()) {
      using layer = new MoeLayer({
        router: name,
        experts: 4,
        topK: 2,
        dModel: 6,
        expert: { hidden: 3 },
        ...(routerDefinition(name).sharedExpert && { shared: { hidden: 3 } }),
      });
      scope(() => {
        const tokenIds = tensor(Int32Array.from([1, 2, 3]));
        using context = new ForwardContext({ training: true, tokenIds });
        expect(noGrad(() => layer.forward(tensor(waves(3, 6), [3, 6]), context)).shape).toEqual([3, 6]);
      });
    }
  });

  it('#22: a hyper router that was loaded routes as the one that was saved, in evaluation too', () => {
    for (const compat of ['fixed', 'libmoe', 'original'] as const) {
      using saved = made('hyper', { experts: 6, topK: 2, compat });
      using loaded = made('hyper', { experts: 6, topK: 2, compat, values: { seed: 5, name: 'other' } });
      const route = (router: Router) => read(router, waves(7), { training: false });
      expect(route(loaded)).not.toEqual(route(saved));
      loaded.loadStateDict(saved.stateDict());
      expect(route(loaded)).toEqual(route(saved));
    }
  });

  it("#23: libmoe's cosine loss is one number, and its bias is in the weights; fixed has it in neither", () => {
    using libmoe = made('cosine', { experts: 5, topK: 2, compat: 'libmoe' });
    const x = waves(6);
    const before = read(libmoe, x);
    const bias = libmoe.namedParameters().get('bias')!;
    // Far more for the second choice: same experts, another weight.
    const [first, second] = before.experts;
    bias.write(
      bias.toArray().map((b, e) => (e === first || e === second ? b + 5 + (e === second ? 0.05 : 0) : b)),
    );
    const after = read(libmoe, x);
    expect(after.weights.slice(0, 2)).not.toEqual(before.weights.slice(0, 2));
    expect(typeof before.losses.balance).toBe('number');
    using fixed = made('cosine', { experts: 5, topK: 2 });
    expect(parameters(fixed)).toEqual(['weight']);
  });

  it('#39: the same weight gradients in every run, and ids out of range are refused', () => {
    const gradients = () => {
      using layer = new MoeLayer({ router: 'smoe', experts: 5, topK: 2, dModel: 8, expert: { hidden: 6 } });
      scope(() => {
        const out = layer.forward(tensor(waves(300, 8), [300, 8]));
        out.backward(tensor(waves(300, 8).map(Math.cos), [300, 8]));
      });
      const all = layer.parameters().map((p) => p.grad!.toArray());
      for (const p of layer.parameters()) p.grad!.dispose();
      return all;
    };
    expect(gradients()).toEqual(gradients());
    scope(() => {
      const experts = tensor(Int32Array.from([0, 7]), [1, 2]);
      expect(() => gate(tensor([1, 2, 3], [1, 3]), { topK: 2, experts })).toThrow(/ERR_LIBMOE_ARGUMENT.*7/);
    });
  });

  it('#41: losses are summed over layers, and logged as their mean', async () => {
    using model = new LanguageModel({
      ...tinyConfig,
      vocabularySize: 64,
      moe: { experts: 4, topK: 2, router: { name: 'smoe', balanceCoefficient: 0.25 }, expert: { hidden: 8 } },
    });
    const adam = optimizer(model.namedParameters(), { name: 'adamw' });
    for await (const { loss, crossEntropy, balanceLoss } of train(model, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'constant', learningRate: 1e-3 }, 1),
      steps: 1,
    })) {
      expect(balanceLoss).toBeGreaterThan(0.9);
      expect(loss - crossEntropy).toBeCloseTo(3 * 0.25 * balanceLoss, 4);
    }
    adam.dispose();
  });

  it('#42: step mode grows with every token’s own certainty, however balanced the batch is', () => {
    // Six tokens, each sure of another expert: perfectly balanced.
    const sure = Array.from({ length: 36 }, (_, i) => (i % 7 === 0 ? 8 : 0));
    const loss = (balance: string, logits: number[]) => {
      using router = routerWith('smoe', logits, { experts: 6, topK: 1 }, { balance });
      return read(router, () => oneHot(6)).losses.balance!;
    };
    const even = new Array<number>(36).fill(0);
    expect(loss('global', sure)).toBeCloseTo(-Math.log(6), 9);
    expect(loss('step', even)).toBeCloseTo(-Math.log(6), 9);
    expect(loss('step', sure)).toBeGreaterThan(-0.1);
  });
});

describe('docs/defects.md', () => {
  const text = readFileSync(join(packageRoot, 'docs', 'defects.md'), 'utf8');
  const rows = text.split('\n').filter((line) => /^\| \d/.test(line));

  it('has every defect of the register once', () => {
    const numbers = rows.map((row) => Number(/^\| (\d+) \|/.exec(row)?.[1]));
    expect(numbers).toEqual(Array.from({ length: 42 }, (_, i) => i + 1));
  });

  it('points at tests that exist', () => {
    const wrong: string[] = [];
    let pointers = 0;
    for (const row of rows) {
      for (const [, file, titles] of row.matchAll(/`(test\/[^`]+\.test\.ts)`((?:,? "[^"]+")*)/g)) {
        const source = readFileSync(join(packageRoot, file!), 'utf8');
        for (const [, title] of titles!.matchAll(/"([^"]+)"/g)) {
          pointers += 1;
          if (!source.includes(title!)) wrong.push(`${file}: ${title}`);
        }
      }
      const state = row.split('|')[3]!.trim();
      if (/^(fixed|by construction)/.test(state) && !/`test\//.test(row) && !/docs\//.test(row))
        wrong.push(row);
    }
    expect(wrong).toEqual([]);
    expect(pointers).toBeGreaterThan(30);
  });
});
