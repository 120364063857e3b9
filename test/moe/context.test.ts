import { describe, expect, it } from 'vitest';
import {
  checkpointed,
  ForwardContext,
  MoeLayer,
  mergeSummaries,
  Router,
  type Routing,
  type RoutingContext,
} from '../../ts/moe/index.ts';
import { add, multiply, scale } from '../../ts/tensor/elementwise.ts';
import { gate } from '../../ts/tensor/gating.ts';
import { linear } from '../../ts/tensor/gemm.ts';
import { memory, noGrad, parameter, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { sum } from '../../ts/tensor/reduction.ts';
import { leaveToCollector } from '../collected.ts';

leaveToCollector();

const wave = (n: number, salt = 0): number[] => Array.from({ length: n }, (_, i) => Math.sin(1.7 * i + salt));
const newLayer = (layer: number, balance: string): MoeLayer =>
  new MoeLayer({
    router: { name: 'smoe', balance, balanceCoefficient: 0.5, zCoefficient: 0.1, expertDropout: 0.2 },
    experts: 4,
    topK: 2,
    dModel: 6,
    layer,
    expert: { hidden: 5, activation: 'silu' },
    dtype: 'f64',
    values: { seed: 1, name: `layer${layer}` },
  });

/** The layers one after the other, each run twice; the objective with all losses, its gradients, and what was collected. */
async function pass(layers: MoeLayer[], recompute: boolean) {
  using x = parameter(tensor(wave(42), [7, 6], { dtype: 'f64' }));
  const sequenceOffsets = [0, 3, 7];
  using context = new ForwardContext({ training: true, step: 2, seed: 7 });
  const total = scope(() => {
    const inner = context.with({ sequenceOffsets: tensor(Int32Array.from(sequenceOffsets)) });
    let h: Tensor = x;
    for (const layer of layers) {
      const twice = (c: ForwardContext, input: Tensor): Tensor =>
        add(layer.forward(layer.forward(input, c), c), input);
      h = recompute ? checkpointed(inner, (c, input) => scope(() => twice(c, input!)), [h]) : twice(inner, h);
    }
    let objective = sum(multiply(h, h));
    for (const { value, coefficient } of context.losses())
      objective = add(objective, scale(value, coefficient));
    const value = objective.item();
    objective.backward();
    return value;
  });
  const gradients = [...layers.flatMap((l) => l.parameters()), x].map((p) => p.grad!.toArray());
  for (const layer of layers) layer.zeroGrad();
  x.grad!.dispose();
  const losses = noGrad(() =>
    scope(() => context.losses().map(({ name, layer, value }) => `${name} ${layer} ${value.item()}`)),
  );
  const records = await Promise.all(context.records.map((r) => r.read()));
  return { total, gradients, losses, records };
}

describe('ForwardContext', () => {
  it.each(['standard', 'global', 'layers_time'])(
    'collects the same with recomputation as without (%s)',
    async (balance) => {
      using a = newLayer(0, balance);
      using b = newLayer(1, balance);
      const plain = await pass([a, b], false);
      const again = await pass([a, b], true);
      expect(again).toEqual(plain);
      expect(plain.records.map(({ layer, call }) => `${layer}.${call}`)).toEqual([
        '0.0',
        '0.1',
        '1.0',
        '1.1',
      ]);
      const names = plain.losses.map((l) => l.split(' ').slice(0, 2).join(' '));
      // Entropies of means wait for all calls of a layer; the others are one per call.
      const perLayer = balance === 'standard' ? 2 : 1;
      for (const layer of ['0', '1'])
        expect(names.filter((n) => n === `balance ${layer}`).length).toBe(perLayer);
      expect(names.filter((n) => n === 'routerZ 0').length).toBe(2);
    },
  );

  it('leaves nothing behind', async () => {
    using layer = newLayer(0, 'global');
    const before = memory().tensors;
    await pass([layer], false);
    expect(memory().tensors - before).toBe(0);
    await pass([layer], true);
    expect(memory().tensors - before).toBe(0);
  });

  it('works without recording, and through a checkpoint under noGrad', () => {
    using layer = newLayer(0, 'standard');
    scope(() => {
      using context = new ForwardContext();
      const x = tensor(wave(12), [2, 6], { dtype: 'f64' });
      const y = noGrad(() => checkpointed(context, (c, input) => layer.forward(input!, c), [x]));
      using other = new ForwardContext();
      expect(y.toArray()).toEqual(layer.forward(x, other).toArray());
      expect(context.records.length).toBe(1);
      expect(context.losses()).toEqual([]);
    });
  });

  it('hands logits to the next layer, also across a recomputed part, with their gradient', () => {
    class Residual extends Router {
      override readonly width = 6;
      weight: Tensor;
      seen: string[] = [];
      constructor(salt: number) {
        super();
        this.weight = parameter(tensor(wave(24, salt), [4, 6], { dtype: 'f64' }));
      }
      route(tokens: Tensor, context: RoutingContext): Routing {
        const own = linear(tokens, this.weight);
        const logits = context.previousLogits ? add(own, context.previousLogits) : own;
        this.seen.push(context.previousLogits ? 'previous' : 'first');
        const { experts, weights } = gate(logits, { topK: 2, experts: context.replayed });
        return { experts, weights, logits };
      }
    }
    const run = (recompute: boolean) => {
      const options = { experts: 4, topK: 2, expert: { hidden: 5 }, dtype: 'f64' } as const;
      using first = new MoeLayer({ ...options, router: new Residual(0), layer: 0 });
      using second = new MoeLayer({ ...options, router: new Residual(1), layer: 1 });
      return scope(() => {
        using context = new ForwardContext({ training: true });
        let h = tensor(wave(18), [3, 6], { dtype: 'f64' });
        for (const layer of [first, second, first])
          h = recompute
            ? checkpointed(context, (c, x) => layer.forward(x!, c), [h])
            : layer.forward(h, context);
        sum(multiply(h, h)).backward();
        const router = first.router as Residual;
        // The second time the first layer runs it comes after the last one: a new pass through the tower.
        expect(router.seen.slice(0, 2)).toEqual(['first', 'first']);
        expect((second.router as Residual).seen[0]).toBe('previous');
        const gradients = [first, second].map((l) => l.router.parameters()[0]!.grad!.toArray());
        first.zeroGrad();
        second.zeroGrad();
        return gradients;
      });
    };
    expect(run(true)).toEqual(run(false));
  });

  it('replays choices even when the router would choose otherwise', () => {
    class Moody extends Router {
      override readonly width = 6;
      weight: Tensor = parameter(tensor(wave(24), [4, 6], { dtype: 'f64' }));
      turns = 0;
      chosen: string[] = [];
      route(tokens: Tensor, context: RoutingContext): Routing {
        this.turns += 1;
        const logits = scale(linear(tokens, this.weight), this.turns % 2 === 1 ? 1 : -1);
        const { experts, weights } = gate(logits, { topK: 1, weights: 'scores', experts: context.replayed });
        this.chosen.push(experts.toArray().join());
        return { experts, weights, logits };
      }
    }
    const router = new Moody();
    using layer = new MoeLayer({ router, experts: 4, topK: 1, expert: { hidden: 5 }, dtype: 'f64' });
    scope(() => {
      using context = new ForwardContext({ training: true });
      const x = tensor(wave(30), [5, 6], { dtype: 'f64' });
      sum(checkpointed(context, (c, input) => layer.forward(input!, c), [x])).backward();
      layer.zeroGrad();
    });
    expect(router.turns).toBe(2);
    expect(router.chosen[1]).toBe(router.chosen[0]);
  });

  it('gives every name, layer, call and step its own random numbers', () => {
    const seeds = new Set<number>();
    for (const step of [0, 1])
      for (const layer of [0, 1]) {
        const context = new ForwardContext({ step, seed: 3 });
        for (let call = 0; call < 2; call += 1) {
          const routing = context.routing(layer);
          for (const name of ['a', 'b']) seeds.add(routing.random(name));
        }
      }
    expect(seeds.size).toBe(16);
    const again = new ForwardContext({ step: 1, seed: 3 }).routing(1);
    expect(seeds.has(again.random('b'))).toBe(true);
    expect(Number.isSafeInteger(again.random('b'))).toBe(true);
  });

  it('evaluates schedules and refuses losses that are no numbers', () => {
    scope(() => {
      using context = new ForwardContext({ step: 4 });
      context.addLoss('own', '0', tensor(2), (step) => step / 8);
      for (const [kind, steps] of [
        ['linear', 16],
        ['cosine', 8],
        ['linear', 2],
      ] as const)
        context.addLoss('own', '0', tensor(2), { kind, from: 1, to: 3, steps });
      expect(context.losses().map(({ coefficient }) => coefficient)).toEqual([0.5, 1.5, 2, 3]);
      expect(() => context.addLoss('own', '0', tensor([1, 2]), 1)).toThrow(/ERR_LIBMOE_SHAPE.*one number/);
      expect(() => context.addLoss('own', '0', tensor(2), Number.NaN)).toThrow(/ERR_LIBMOE_ARGUMENT.*finite/);
    });
  });
});

describe('mergeSummaries', () => {
  it('adds counts and weighs means by tokens', () => {
    const one = {
      layer: 'a',
      call: 0,
      tokens: 1,
      counts: [1, 0],
      firstCounts: [1, 0],
      probabilities: [0.8, 0.2],
      entropy: 1,
      weightEntropy: 0,
      margin: 0.5,
      probabilityMargin: 0.6,
      dropped: 1,
    };
    const three = {
      ...one,
      call: 1,
      tokens: 3,
      counts: [1, 2],
      probabilities: [0.4, 0.6],
      entropy: 2,
      dropped: 0,
    };
    const merged = mergeSummaries([one, three, { ...one, layer: 'b' }]);
    expect(merged.get('a')).toMatchObject({
      tokens: 4,
      counts: [2, 2],
      entropy: 1.75,
      margin: 0.5,
      dropped: 1,
    });
    expect(merged.get('a')!.probabilities[0]).toBeCloseTo(0.5, 12);
    expect(merged.get('b')).toMatchObject({ tokens: 1, counts: [1, 0] });
  });
});
