import { describe, expect, it } from 'vitest';
import { ForwardContext, MoeLayer, type TopKRouter } from '../../../ts/moe/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { checkEdges, checkRefusal } from './edges.ts';
import { checkGradients } from './gradients.ts';
import { dot, near, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read, tokensOf } from './routed.ts';

const place = { width: 6, experts: 4, topK: 1 };
const alikeRows = Array.from({ length: 60 }, (_, i) => waves(1, 6, 1)[i % 6]!);
const plain = { capacityFactor: null, evaluationCapacityFactor: null };

describe('switch', () => {
  it('weighs the best expert by its probability and balances over the batch', () => {
    using router = made<TopKRouter>('switch', place, { init: { std: 1 } });
    const x = waves(8, 6, 1);
    const { experts, weights, losses, coefficients } = read(router, x);
    const matrix = rowsOf(router.weight.toArray(), 6);
    const p = rowsOf(x, 6).map((row) => softmaxOf(matrix.map((w) => dot(row, w))));
    const first = p.map((row) => row.indexOf(Math.max(...row)));
    expect(experts).toEqual(first);
    near(
      weights,
      p.map((row) => Math.max(...row)),
    );
    const balance = [0, 1, 2, 3].reduce(
      (sum, e) =>
        sum + (4 * (first.filter((i) => i === e).length / 8) * p.reduce((a, row) => a + row[e]!, 0)) / 8,
      0,
    );
    expect(losses.balance).toBeCloseTo(balance, 9);
    expect(coefficients.balance).toBe(0.01);
  });

  it('has another capacity in training than otherwise, and drops beyond it', async () => {
    using router = made<TopKRouter>('switch', place);
    const x = waves(10, 6, 1);
    expect(read(router, x).capacity).toBe(4); // ceil(1.25 · 10 / 4)
    expect(read(router, x, { training: false }).capacity).toBe(5); // 2 · 10 / 4
    using free = made('switch', place, plain);
    expect(read(free, x).capacity).toBeUndefined();
    using layer = new MoeLayer({
      router: { name: 'switch', capacityFactor: 1 },
      experts: 4,
      topK: 1,
      dModel: 6,
      expert: { hidden: 5 },
      dtype: 'f64',
    });
    using context = new ForwardContext({ training: true });
    // Ten equal tokens: one expert takes ceil(10 / 4).
    noGrad(() =>
      scope(() => {
        layer.forward(tokensOf(alikeRows, 6), context);
      }),
    );
    expect((await context.records[0]!.read()).dropped).toBe(7);
  });

  it('masked tokens make no room and take none', async () => {
    const mask = [1, 0, 1, 1, 0, 0, 1, 0, 1, 0];
    using router = made<TopKRouter>('switch', place);
    const capacity = scope(() => {
      using context = new ForwardContext({
        training: true,
        tokenMask: tensor(mask, [10], { dtype: 'bool' }),
      });
      const { capacity } = noGrad(() => router.route(tokensOf(waves(10, 6, 1), 6), context.routing(0)));
      return (capacity as Tensor).toArray();
    });
    expect(capacity).toEqual([2]); // ceil(1.25 · 5 / 4), not ceil(1.25 · 10 / 4) = 4
    // The layer's own capacity likewise: of five equal tokens one expert takes ceil(5 / 4).
    for (const name of ['smoe', { name: 'switch', ...plain }]) {
      using layer = new MoeLayer({
        router: name,
        experts: 4,
        topK: 1,
        dModel: 6,
        expert: { hidden: 5 },
        dtype: 'f64',
        capacityFactor: 1,
      });
      using tokenMask = tensor(mask, [10], { dtype: 'bool' });
      using context = new ForwardContext({ training: true, tokenMask });
      noGrad(() => scope(() => void layer.forward(tokensOf(alikeRows, 6), context)));
      expect(await context.records[0]!.read()).toMatchObject({ tokens: 5, dropped: 3 });
    }
  });

  it('jitters its input in training only', () => {
    using router = made<TopKRouter>('switch', place, { jitter: 0.2 });
    using calm = made<TopKRouter>('switch', place);
    calm.weight.write(router.weight.toArray());
    const x = waves(5, 6, 1);
    const logits = (r: TopKRouter, options: object) => read(r, x, options).logits;
    expect(logits(router, { training: false })).toEqual(logits(calm, {}));
    expect(logits(router, { step: 1 })).toEqual(logits(router, { step: 1 }));
    expect(logits(router, { step: 1 })).not.toEqual(logits(router, { step: 2 }));
    const bound = rowsOf(x, 6).flatMap((row) =>
      rowsOf(calm.weight.toArray(), 6).map((w) => 0.2 * row.reduce((a, v, i) => a + Math.abs(v * w[i]!), 0)),
    );
    const still = logits(calm, {});
    logits(router, { step: 1 }).forEach((l, i) => {
      expect(Math.abs(l - still[i]!)).toBeLessThanOrEqual(bound[i]! + 1e-12);
    });
  });

  it('has right gradients, with jitter and a z loss', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 3, 6]));
    for (const topK of [1, 2]) {
      using router = made(
        'switch',
        { ...place, topK },
        { jitter: 0.1, zCoefficient: 0.3, balanceCoefficient: 1, init: { std: 0.7 }, bias: true },
      );
      checkGradients(router, waves(6, 6, 1), { sequenceOffsets, seed: 3 });
    }
  });

  it('survives the edges, and refuses what it is not', () => {
    checkEdges('switch', { ...plain, jitter: 0.1 });
    checkRefusal('switch', ['libmoe']);
    expect(() => made('switch', { ...place, topK: 2, compat: 'original' })).toThrow(
      /ERR_LIBMOE_CONFIG.*topK 1/,
    );
    made('switch', { ...place, compat: 'original' }).dispose();
  });
});
