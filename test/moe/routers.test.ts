import { describe, expect, it } from 'vitest';
import { createRouter, ForwardContext, MoeLayer, type Routing, type TopKRouter } from '../../ts/moe/index.ts';
import { scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { leaveToCollector } from '../collected.ts';
import { goldenLogits, oneHot, routerWith, slope } from './golden-logits.ts';

leaveToCollector();

const smoeChoices = [2, 3, 1, 0, 1, 2, 5, 0, 4, 4, 3, 5, 2, 3, 1, 1, 2, 0];
const smoeWeights = [
  0.436971, 0.342197, 0.220832, 0.487079, 0.398509, 0.114412, 0.54066, 0.352784, 0.106556, 0.555343, 0.239507,
  0.205151, 0.502572, 0.41129, 0.086138, 0.628719, 0.237315, 0.133966,
];
const sigmoidWeights = [
  0.349609, 0.338155, 0.312236, 0.373162, 0.362913, 0.263925, 0.404218, 0.367292, 0.22849, 0.371112, 0.320619,
  0.308269, 0.390309, 0.37837, 0.231321, 0.396397, 0.330129, 0.273474,
];

/** Routes the golden tokens and reads everything. */
function route(router: TopKRouter, offsets?: number[], training = true) {
  return scope(() => {
    const tokens = oneHot(router.width);
    using context = new ForwardContext({
      training,
      ...(offsets && { sequenceOffsets: tensor(Int32Array.from(offsets)) }),
    });
    const routing = router.route(tokens, context.routing(0)) as Routing;
    for (const loss of routing.losses ?? []) context.addRoutingLoss('0', loss);
    const losses = new Map(
      context.losses().map((l) => [l.name, { value: l.value.item(), coefficient: l.coefficient }]),
    );
    return {
      experts: routing.experts.toArray(),
      weights: routing.weights.toArray(),
      losses,
      aux: [...losses.values()].reduce((a, { value, coefficient }) => a + coefficient * value, 0),
    };
  });
}

const near = (actual: readonly number[], expected: readonly number[]) =>
  actual.forEach((x, i) => {
    expect(x, `element ${i}`).toBeCloseTo(expected[i]!, 5);
  });

describe('golden vectors of the vision-language layers', () => {
  it('SMoE as LibMoE computes it', () => {
    using router = routerWith(
      'smoe',
      goldenLogits(6),
      { experts: 6, topK: 3, compat: 'libmoe' },
      { flavour: 'vision-language' },
    );
    const { experts, weights, losses, aux } = route(router);
    expect(experts).toEqual(smoeChoices);
    near(weights, smoeWeights);
    expect(losses.get('balance')!.value).toBeCloseTo(1.040468, 6);
    expect(losses.get('routerZ')!.value).toBeCloseTo(6.836032, 6);
    expect(aux).toBeCloseTo(0.01724071, 8);
  });

  it('σ-MoE: same choices and losses, its own weights', () => {
    using router = routerWith(
      'sigmoid',
      goldenLogits(6),
      { experts: 6, topK: 3, compat: 'libmoe' },
      { flavour: 'vision-language' },
    );
    const { experts, weights, losses } = route(router);
    expect(experts).toEqual(smoeChoices);
    near(weights, sigmoidWeights);
    expect(losses.get('balance')!.value).toBeCloseTo(1.040468, 6);
    expect(losses.get('routerZ')!.value).toBeCloseTo(6.836032, 6);
  });

  it('5 experts, top 2 (the routed part of SharedE-V2 and V3)', () => {
    const place = { experts: 5, topK: 2, compat: 'libmoe' } as const;
    using soft = routerWith('smoe', goldenLogits(5), place, { flavour: 'vision-language' });
    const { experts, weights, losses } = route(soft);
    expect(experts).toEqual([2, 3, 0, 1, 0, 4, 4, 3, 2, 3, 1, 2]);
    near(
      weights,
      [
        0.560818, 0.439182, 0.550007, 0.449993, 0.768023, 0.231977, 0.698676, 0.301324, 0.549943, 0.450057,
        0.725975, 0.274025,
      ],
    );
    expect(losses.get('balance')!.value).toBeCloseTo(1.044847, 6);
    expect(losses.get('routerZ')!.value).toBeCloseTo(6.137573, 5);
    using sigmoid = routerWith('sigmoid', goldenLogits(5), place, { flavour: 'vision-language' });
    near(
      route(sigmoid).weights,
      [
        0.508326, 0.491674, 0.506962, 0.493038, 0.616488, 0.383512, 0.536497, 0.463503, 0.507766, 0.492234,
        0.545607, 0.454393,
      ],
    );
  });
});

describe('golden vectors of the language-model regularisers', () => {
  const logits = [...goldenLogits(6), ...goldenLogits(6, 6, 0.5)];
  const regulariser = (name: string, balance: string, offsets = [0, 6, 12]) => {
    using router = routerWith(name, logits, { experts: 6, topK: 2 }, { balance, balanceCoefficient: 1 });
    return route(router, offsets);
  };

  it('chooses as LibMoE', () => {
    const { experts, losses } = regulariser('smoe', 'standard');
    expect(experts.slice(0, 12)).toEqual([2, 3, 0, 1, 5, 0, 4, 3, 2, 3, 1, 2]);
    expect(experts.slice(12)).toEqual([2, 1, 0, 1, 5, 4, 3, 4, 2, 1, 1, 0]);
    expect([...losses.keys()]).toEqual(['balance']);
  });

  it.each([
    ['smoe', 'standard', 1.058774],
    ['sigmoid', 'standard', 1.035484],
    ['smoe', 'global', -1.773809],
    ['smoe', 'time', -1.771877],
    ['smoe', 'layers_time', -1.771877],
    ['smoe', 'step', -1.241092],
    ['sigmoid', 'global', -1.773809],
    ['sigmoid', 'step', -1.241092],
  ])('%s %s', (name, balance, value) => {
    expect(regulariser(name, balance).losses.get('balance')!.value).toBeCloseTo(value, 6);
  });

  it('has the gradient of every loss and of the weights (finite differences, f64)', () => {
    for (const name of ['smoe', 'sigmoid'])
      for (const balance of ['standard', 'switch', 'global', 'time', 'layers_time', 'step']) {
        using router = routerWith(
          name,
          logits,
          { experts: 6, topK: 2 },
          { balance, balanceCoefficient: 1, zCoefficient: 0.3 },
        );
        const factors = Array.from({ length: 24 }, (_, i) => Math.sin(i + 1));
        /** The weights and every loss, each with the factor it has in the objective. */
        const terms = <T>(use: (all: [Tensor, number[]][]) => T): T =>
          scope(() => {
            const sequenceOffsets = tensor(Int32Array.from([0, 6, 12]));
            using context = new ForwardContext({ training: true, sequenceOffsets });
            const routing = router.route(oneHot(12), context.routing(0)) as Routing;
            for (const loss of routing.losses ?? []) context.addRoutingLoss('0', loss);
            const losses = context
              .losses()
              .map(({ value, coefficient }): [Tensor, number[]] => [value, [coefficient]]);
            return use([[routing.weights, factors], ...losses]);
          });
        const objective = () =>
          terms((all) =>
            all.reduce((sum, [t, f]) => sum + t.toArray().reduce((a, x, i) => a + x * f[i]!, 0), 0),
          );
        const gradient = new Array<number>(router.weight.size).fill(0);
        for (let term = 0; term < 3; term += 1)
          terms((all) => {
            const [t, f] = all[term]!;
            t.backward(tensor(f, t.shape, { dtype: 'f64' }));
            router.weight.grad!.toArray().forEach((g, i) => {
              gradient[i]! += g;
            });
            router.zeroGrad();
          });
        for (const at of [0, 7, 23, 40, 71]) {
          const numeric = slope(router.weight, at, objective);
          expect(gradient[at]!, `${name} ${balance} ${at}`).toBeCloseTo(numeric, 7);
        }
      }
  });
});

describe('fidelity', () => {
  it('fixed counts every choice, libmoe the first', () => {
    const balance = (compat: 'fixed' | 'libmoe') => {
      using router = routerWith(
        'smoe',
        goldenLogits(6),
        { experts: 6, topK: 3, compat },
        { flavour: 'vision-language' },
      );
      return route(router).losses.get('balance')!.value;
    };
    expect(balance('libmoe')).toBeCloseTo(1.040468, 6);
    expect(balance('fixed')).not.toBeCloseTo(1.040468, 2);
    // By hand: 6 · Σ f P with f = [3, 4, 4, 3, 2, 2] / 18.
    const logits = goldenLogits(6);
    const counts = [3, 4, 4, 3, 2, 2];
    let expected = 0;
    for (let t = 0; t < 6; t += 1) {
      const e = logits.slice(t * 6, t * 6 + 6).map(Math.exp);
      const z = e.reduce((a, b) => a + b, 0);
      expected += e.reduce((a, x, i) => a + (((x / z) * counts[i]!) / 18) * (6 / 6), 0);
    }
    expect(balance('fixed')).toBeCloseTo(expected, 9);
  });

  it('original SMoE balances over the batch', () => {
    const logits = [...goldenLogits(6), ...goldenLogits(6, 6, 0.5)];
    using router = routerWith('smoe', logits, { experts: 6, topK: 2, compat: 'original' });
    expect(route(router, [0, 6, 12]).losses.get('balance')!.value).toBeCloseTo(
      route(router).losses.get('balance')!.value,
      12,
    );
    using fixed = routerWith('smoe', logits, { experts: 6, topK: 2 });
    expect(route(fixed, [0, 6, 12]).losses.get('balance')!.value).not.toBeCloseTo(
      route(fixed).losses.get('balance')!.value,
      3,
    );
  });

  it('original σ-MoE leaves the scores as they are and drops whole experts', () => {
    const options = { expertDropout: 0.4, zCoefficient: 0 };
    using router = routerWith(
      'sigmoid',
      goldenLogits(6),
      { experts: 6, topK: 3, compat: 'original' },
      options,
    );
    const scores = goldenLogits(6).map((x) => 1 / (1 + Math.exp(-x)));
    const calm = route(router, undefined, false);
    near(
      calm.weights,
      calm.experts.map((e, i) => scores[Math.floor(i / 3) * 6 + e]!),
    );
    const seen = new Set<string>();
    for (let step = 0; step < 8; step += 1)
      scope(() => {
        const context = new ForwardContext({ training: true, step });
        const { experts } = router.route(oneHot(6), context.routing(0)) as Routing;
        seen.add(experts.toArray().join());
      });
    expect(seen.size).toBeGreaterThan(2);
  });

  it('leaves the weights unnormalised when told to', () => {
    const place = { experts: 6, topK: 3 };
    using smoe = routerWith('smoe', goldenLogits(6), place, { normalise: false });
    using sigmoid = routerWith('sigmoid', goldenLogits(6), place, { normalise: false });
    const logits = goldenLogits(6);
    const rows = Array.from({ length: logits.length / 6 }, (_, t) => logits.slice(6 * t, 6 * t + 6));
    const [soft, single] = [route(smoe), route(sigmoid)];
    expect(single.experts).toEqual(soft.experts);
    const total = rows.map((row) => row.reduce((sum, x) => sum + Math.exp(x), 0));
    const chosen = soft.experts.map((expert, slot) => rows[Math.floor(slot / 3)]![expert]!);
    near(
      soft.weights,
      chosen.map((x, slot) => Math.exp(x) / total[Math.floor(slot / 3)]!),
    );
    near(
      single.weights,
      chosen.map((x) => 1 / (1 + Math.exp(-x))),
    );
    expect(() => routerWith('smoe', logits, place, { normalise: true, activationAfterTopK: true })).toThrow(
      /ERR_LIBMOE_CONFIG.*activationAfterTopK or normalise/,
    );
  });

  it('starts every layer alike only in libmoe', () => {
    const first = (compat: 'fixed' | 'libmoe', layer: number) => {
      using router = createRouter(
        'smoe',
        { flavour: 'vision-language' },
        { width: 8, experts: 4, topK: 2, layer, layers: 2, compat },
      ) as TopKRouter;
      return router.weight.toArray();
    };
    expect(first('libmoe', 0)).toEqual(first('libmoe', 1));
    expect(first('fixed', 0)).not.toEqual(first('fixed', 1));
    expect(first('fixed', 1)).toEqual(first('fixed', 1));
  });

  it('starts from the seed and name of `values` in a layer by itself', () => {
    const start = (values?: { seed: number; name: string }) => {
      using layer = new MoeLayer({
        router: 'smoe',
        experts: 4,
        topK: 2,
        dModel: 8,
        expert: { hidden: 6 },
        layer: 3,
        ...(values && { values }),
      });
      return (layer.router as TopKRouter).weight.toArray();
    };
    expect(start()).toEqual(start({ seed: 42, name: '' }));
    expect(start({ seed: 1, name: '' })).not.toEqual(start());
    expect(start({ seed: 42, name: 'a' })).not.toEqual(start({ seed: 42, name: 'b' }));
  });

  it("starts with the flavour's standard deviation", () => {
    const std = (name: string, compat: 'fixed' | 'libmoe', options: object) => {
      const place = { width: 512, experts: 66, topK: 8, layer: 3, layers: 16, compat };
      using router = createRouter(name, options, place) as TopKRouter;
      const values = router.weight.toArray();
      return Math.sqrt(values.reduce((a, x) => a + x * x, 0) / values.length);
    };
    expect(std('smoe', 'fixed', {})).toBeCloseTo(0.015625, 3);
    expect(std('smoe', 'fixed', { flavour: 'vision-language' })).toBeCloseTo(0.02, 3);
    expect(std('sigmoid', 'fixed', { flavour: 'vision-language', init: { std: 0.1 } })).toBeCloseTo(0.1, 2);
    expect(std('sigmoid', 'libmoe', { flavour: 'vision-language', init: { std: 0.1 } })).toBeCloseTo(0.02, 3);
    expect(std('smoe', 'fixed', { init: 'linear' })).toBeCloseTo(1 / Math.sqrt(3 * 512), 3);
  });
});

describe('what any router promises', () => {
  it('ignores masked tokens everywhere', () => {
    scope(() => {
      using router = routerWith(
        'smoe',
        goldenLogits(6),
        { experts: 6, topK: 3 },
        { flavour: 'vision-language' },
      );
      const mask = tensor([1, 1, 1, 1, 0, 0], [6], { dtype: 'bool' });
      using masked = new ForwardContext({ training: true, tokenMask: mask });
      const routing = router.route(oneHot(6), masked.routing(0)) as Routing;
      expect(routing.experts.toArray().slice(12)).toEqual([-1, -1, -1, -1, -1, -1]);
      using four = routerWith(
        'smoe',
        goldenLogits(6, 4),
        { experts: 6, topK: 3 },
        { flavour: 'vision-language' },
      );
      const values = (r: Routing) => (r.losses ?? []).map((l) => ('value' in l ? l.value.item() : 0));
      using whole = new ForwardContext({ training: true });
      const short = four.route(oneHot(4), whole.routing(0)) as Routing;
      values(short).forEach((v, i) => {
        expect(values(routing)[i]).toBeCloseTo(v, 12);
      });
    });
  });

  it('leaves single scores out in training only, weights staying those of the full scores', () => {
    scope(() => {
      using router = routerWith('smoe', goldenLogits(6), { experts: 6, topK: 2 }, { expertDropout: 0.5 });
      const at = (training: boolean, step: number) => {
        using context = new ForwardContext({ training, step });
        return (router.route(oneHot(6), context.routing(0)) as Routing).experts.toArray();
      };
      expect(at(true, 1)).not.toEqual(at(false, 1));
      expect(at(true, 1)).toEqual(at(true, 1));
      expect(at(true, 1)).not.toEqual(at(true, 2));
    });
  });

  it('is used by name in a layer, and its losses follow a schedule', () => {
    scope(() => {
      using layer = new MoeLayer({
        router: { name: 'sigmoid', balanceCoefficient: (step: number) => 0.1 * step, zCoefficient: 0.5 },
        experts: 4,
        topK: 2,
        dModel: 8,
        expert: { hidden: 6, activation: 'relu' },
      });
      using context = new ForwardContext({ training: true, step: 3 });
      layer.forward(
        tensor(
          Array.from({ length: 40 }, (_, i) => Math.sin(i)),
          [5, 8],
        ),
        context,
      );
      expect(context.losses().map(({ name, layer, coefficient }) => [name, layer, coefficient])).toEqual([
        ['balance', '0', expect.closeTo(0.3, 9)],
        ['routerZ', '0', 0.5],
      ]);
    });
  });
});
