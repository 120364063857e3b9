import { describe, expect, it } from 'vitest';
import { maskedCapacityOf } from '../../ts/moe/dispatch/capacity.ts';
import {
  type AssignmentRouting,
  capacityOf,
  Experts,
  ForwardContext,
  libmoeStd,
  ModuleExperts,
  MoeLayer,
  type MoeLayerOptions,
  Router,
  type Routing,
} from '../../ts/moe/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { FeedForward } from '../../ts/nn/feed-forward.ts';
import { scale } from '../../ts/tensor/elementwise.ts';
import { scope, synchronise, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { reshape, slice } from '../../ts/tensor/shape.ts';
import { leaveToCollector } from '../collected.ts';
import { slope } from './golden-logits.ts';

leaveToCollector();

const wave = (n: number, salt = 0): number[] => Array.from({ length: n }, (_, i) => Math.sin(1.7 * i + salt));
const tokens = (count: number, width = 6, salt = 0): Tensor =>
  tensor(wave(count * width, salt), [count, width], { dtype: 'f64' });

function newLayer(changes: Partial<MoeLayerOptions> = {}): MoeLayer {
  return new MoeLayer({
    router: { name: 'smoe', balanceCoefficient: 0.1, zCoefficient: 0.05 },
    experts: 4,
    topK: 2,
    dModel: 6,
    expert: { hidden: 5, activation: 'silu', gated: true, bias: true },
    dtype: 'f64',
    ...changes,
  });
}

/** Gives what it was made with. */
class Fixed extends Router {
  override readonly width = 6;
  readonly #give: (tokens: Tensor) => Routing | AssignmentRouting;
  constructor(give: (tokens: Tensor) => Routing | AssignmentRouting) {
    super();
    this.#give = give;
  }
  route(x: Tensor): Routing | AssignmentRouting {
    return this.#give(x);
  }
}

const weighing = (normalise: boolean) => ({
  name: 'sigmoid',
  normalise,
  balanceCoefficient: 0.1,
  zCoefficient: 0.05,
});

const ids = (values: number[], k: number): Tensor => tensor(Int32Array.from(values), [values.length / k, k]);
const weighted = (values: number[], k: number): Tensor =>
  tensor(values, [values.length / k, k], { dtype: 'f64' });

/** Σ over the kept choices of weight · expert(token), one token and one expert at a time. */
function direct(layer: MoeLayer, x: Tensor, choices: number[], weights: number[]): number[] {
  const experts = layer.experts as Experts;
  const k = choices.length / x.shape[0]!;
  const out = new Array<number>(x.size).fill(0);
  choices.forEach((e, slot) => {
    if (e < 0) return;
    const t = Math.floor(slot / k);
    scope(() => {
      using one = expertOf(experts, e);
      const y = one.forward(slice(x, 0, t, t + 1)).toArray();
      y.forEach((v, i) => {
        out[t * y.length + i]! += weights[slot]! * v;
      });
    });
  });
  return out;
}

function expertOf(experts: Experts, e: number): FeedForward {
  const { width, hidden, activation, gated } = experts;
  const one = new FeedForward(width, {
    hidden,
    activation,
    gated,
    bias: experts.upBias !== undefined,
    dtype: experts.up.dtype,
  });
  for (const [name, target] of one.namedParameters()) {
    const all = experts.namedParameters().get(name)!.toArray();
    target.write(all.slice(e * target.size, (e + 1) * target.size));
  }
  return one;
}

const near = (actual: readonly number[], expected: readonly number[], digits = 10) => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => {
    expect(x, `element ${i}`).toBeCloseTo(expected[i]!, digits);
  });
};

describe('MoeLayer', () => {
  it('is the weighted sum of the chosen experts', () => {
    scope(() => {
      using layer = newLayer();
      using context = new ForwardContext({ trace: true });
      const x = tokens(7);
      const out = layer.forward(x, context);
      const { choices, weights } = context.records[0]!.trace!;
      near(out.toArray(), direct(layer, x, choices.toArray(), weights.toArray()));
    });
  });

  it('gives the same with modules as experts', () => {
    scope(() => {
      using layer = newLayer();
      const modules = [0, 1, 2, 3].map((e) => expertOf(layer.experts as Experts, e));
      using other = newLayer({ experts: modules, router: layer.router });
      expect(other.experts).toBeInstanceOf(ModuleExperts);
      const x = tokens(7);
      near(other.forward(x).toArray(), layer.forward(x).toArray());
      const gradient = (of: MoeLayer) => {
        const y = of.forward(x, new ForwardContext({ training: true }));
        y.backward(tensor(wave(y.size, 2), y.shape, { dtype: 'f64' }));
        const g = of.router.parameters()[0]!.grad!.toArray();
        of.zeroGrad();
        return g;
      };
      near(gradient(other), gradient(layer));
    });
  });

  it.each(['packed', 'modules'])(
    'multiplies the inputs of %s experts by the weights when told to',
    (kind) => {
      scope(() => {
        using packed = newLayer();
        const each = [0, 1, 2, 3].map((e) => expertOf(packed.experts as Experts, e));
        using layer = newLayer({
          weighted: 'inputs',
          router: packed.router,
          experts: kind === 'packed' ? (packed.experts as Experts) : each,
        });
        using context = new ForwardContext({ trace: true });
        const x = tokens(7);
        const out = layer.forward(x, context).toArray();
        const trace = context.records[0]!.trace!;
        const weights = trace.weights.toArray();
        const wanted = new Array<number>(x.size).fill(0);
        trace.choices.toArray().forEach((expert, slot) => {
          const token = Math.floor(slot / 2);
          const one = scale(slice(x, 0, token, token + 1), weights[slot]!);
          const values = each[expert]!.forward(one).toArray();
          values.forEach((value, i) => {
            wanted[token * 6 + i]! += value;
          });
        });
        near(out, wanted);
        for (const expert of each) expert.dispose();
      });
    },
  );

  it('multiplies the shared block by a sigmoid of the token', () => {
    scope(() => {
      using layer = newLayer({ shared: { hidden: 3, sigmoidGate: true } });
      using plain = newLayer({ router: layer.router, experts: layer.experts as Experts });
      expect(layer.sharedGate!.weight.shape).toEqual([1, 6]);
      const x = tokens(5);
      const [with_, without] = [layer.forward(x).toArray(), plain.forward(x).toArray()];
      const always = layer.shared!.forward(x).toArray();
      const logits = layer.sharedGate!.forward(x).toArray();
      const wanted = without.map((y, i) => y + always[i]! / (1 + Math.exp(-logits[Math.floor(i / 6)]!)));
      near(with_, wanted);
    });
  });

  const forms: [string, Partial<MoeLayerOptions>][] = [
    [
      'with drops and a shared half',
      {
        shared: { hidden: 3 },
        sharedMix: 'half',
        routedScaling: 1.7,
        capacityFactor: 1,
        dropPolicy: 'probability',
      },
    ],
    [
      'with weighted inputs and a gated shared block',
      { shared: { hidden: 3, sigmoidGate: true }, weighted: 'inputs' },
    ],
    ['with one weighted input', { topK: 1, weighted: 'inputs', capacityFactor: 1, router: weighing(false) }],
  ];
  it.each(forms)('has the gradient of its output and losses %s (finite differences, f64)', (_, changes) => {
    using layer = newLayer(changes);
    const x = tokens(9, 6, 0.4);
    const run = (backward: boolean): number =>
      scope(() => {
        using context = new ForwardContext({
          training: true,
          sequenceOffsets: tensor(Int32Array.from([0, 4, 9])),
        });
        const y = layer.forward(x, context);
        const factors = wave(y.size, 3);
        const losses = context.losses();
        const value = y.toArray().reduce((a, v, i) => a + v * factors[i]!, 0);
        const total = losses.reduce((a, l) => a + l.coefficient * l.value.item(), value);
        if (backward) y.backward(tensor(factors, y.shape, { dtype: 'f64' }));
        return total;
      });
    const backwardOfLoss = (i: number): void =>
      scope(() => {
        using context = new ForwardContext({
          training: true,
          sequenceOffsets: tensor(Int32Array.from([0, 4, 9])),
        });
        layer.forward(x, context);
        const { value, coefficient } = context.losses()[i]!;
        value.backward(tensor([coefficient], [], { dtype: 'f64' }));
      });
    x.requiresGrad = true;
    run(true);
    backwardOfLoss(0);
    backwardOfLoss(1);
    for (const [name, p] of [...layer.namedParameters(), ['x', x] as const]) {
      const gradient = p.grad!.toArray();
      for (const at of [0, Math.floor(p.size / 2), p.size - 1])
        expect(gradient[at], `${name} ${at}`).toBeCloseTo(
          slope(p, at, () => run(false)),
          6,
        );
    }
    x.grad!.dispose();
    x.dispose();
  });

  it('drops beyond the capacity', async () => {
    using layer = newLayer({ capacityFactor: 0.5, topK: 1 });
    layer.router.parameters()[0]!.write(new Array(24).fill(0)); // all logits equal: all tokens choose expert 0
    using x = tokens(8);
    using context = new ForwardContext();
    const rows = scope(() => layer.forward(x, context).toArray());
    expect(capacityOf(0.5, 1, 8, 4)).toBe(1);
    expect(rows.slice(0, 6).some((v) => v !== 0)).toBe(true);
    expect(rows.slice(6).every((v) => v === 0)).toBe(true);
    expect(await context.records[0]!.read()).toMatchObject({
      layer: '0',
      call: 0,
      tokens: 8,
      counts: [8, 0, 0, 0],
      dropped: 7,
    });
  });

  it.each([
    [1, 1, 1],
    [1, 4, 2],
    [5, 3, 3],
    [6, 1, 1],
    [70, 4, 2],
  ])('takes %i tokens, %i experts, top %i', (count, experts, topK) => {
    scope(() => {
      using layer = newLayer({ experts, topK });
      using context = new ForwardContext({ training: true, trace: true });
      const x = tokens(count);
      const out = layer.forward(x, context);
      const { choices, weights } = context.records[0]!.trace!;
      near(out.toArray(), direct(layer, x, choices.toArray(), weights.toArray()));
      expect(context.losses().every(({ value }) => Number.isFinite(value.item()))).toBe(true);
    });
  });

  it('carries signed weights, repeated experts, no expert, and outputs without computation', () => {
    scope(() => {
      const choices = [2, 2, -1, 0, 3, 1];
      const weights = [0.5, -0.25, 9, 1, -1, 2];
      const extra = tokens(2, 6, 5);
      using layer = newLayer({
        router: new Fixed(() => ({ experts: ids(choices, 3), weights: weighted(weights, 3), extra })),
        topK: 3,
      });
      const x = tokens(2);
      const expected = direct(layer, x, choices, weights).map((v, i) => v + extra.toArray()[i]!);
      near(layer.forward(x).toArray(), expected);
    });
  });

  it('carries assignment lists, with gradients of their weights', () => {
    scope(() => {
      const weight = tensor([0.5, 1, -1, 2], [4], { dtype: 'f64' });
      weight.requiresGrad = true;
      const give = (): AssignmentRouting => ({
        assignments: {
          token: tensor(Int32Array.from([2, 0, 2, 2])),
          expert: tensor(Int32Array.from([1, 3, 0, 2])),
          weight,
        },
      });
      using layer = newLayer({ router: new Fixed(give) });
      const x = tokens(3);
      const choices = [3, -1, -1, -1, -1, -1, 1, 0, 2];
      const weights = [1, 0, 0, 0, 0, 0, 0.5, -1, 2];
      const out = layer.forward(x);
      near(out.toArray(), direct(layer, x, choices, weights));
      const factors = wave(out.size);
      out.backward(tensor(factors, out.shape, { dtype: 'f64' }));
      const value = () =>
        scope(() =>
          layer
            .forward(x)
            .toArray()
            .reduce((a, v, i) => a + v * factors[i]!, 0),
        );
      const numeric = [0, 1, 2, 3].map((at) => slope(weight, at, value));
      near(weight.grad!.toArray(), numeric, 7);
      weight.grad!.dispose();
    });
  });

  it('routes through a transform', () => {
    scope(() => {
      const dropFirst = (r: Routing): Routing => ({
        ...r,
        experts: reshape(slice(r.experts, 1, 1, 2), [r.experts.shape[0]!, 1]),
        weights: slice(r.weights, 1, 1, 2),
      });
      using layer = newLayer({ routingTransform: dropFirst });
      using context = new ForwardContext({ trace: true });
      const x = tokens(4);
      const out = layer.forward(x, context);
      const { choices, weights } = context.records[0]!.trace!;
      expect(choices.shape).toEqual([4, 1]);
      near(out.toArray(), direct(layer, x, choices.toArray(), weights.toArray()));
    });
  });

  it('runs in bf16 with f32 routing', () => {
    scope(() => {
      using layer = newLayer({ dtype: 'bf16', expert: { hidden: 5, activation: 'relu' } });
      using context = new ForwardContext({ training: true, trace: true });
      const x = tensor(wave(24), [4, 6], { dtype: 'bf16' });
      const out = layer.forward(x, context);
      expect([out.dtype, context.records[0]!.trace!.weights.dtype]).toEqual(['bf16', 'f32']);
      out.backward(tensor(wave(24), [4, 6], { dtype: 'bf16' }));
      expect(
        layer.parameters().every((p) => p.grad?.dtype === 'f32' && p.grad.toArray().every(Number.isFinite)),
      ).toBe(true);
      layer.zeroGrad();
    });
  });

  it('says clearly what does not fit', () => {
    const attempt = (fn: () => unknown): string =>
      scope(() => {
        try {
          fn();
          synchronise(); // a device learns of a NaN when it is waited for
          return 'accepted';
        } catch (error) {
          return `${codeOf(error)} ${(error as Error).message}`;
        }
      });
    using layer = newLayer({ layer: 3 });
    expect(attempt(() => layer.forward(tokens(4, 5)))).toMatch(
      /ERR_LIBMOE_SHAPE.*layer 3 expects \[tokens, 6\], got \[4, 5\].*dModel/,
    );
    expect(attempt(() => layer.forward(tokens(0)))).toMatch(/ERR_LIBMOE_SHAPE.*at least one token/);
    const bad = wave(24);
    bad[13] = Number.NaN;
    expect(attempt(() => layer.forward(tensor(bad, [4, 6], { dtype: 'f64' })))).toMatch(
      /ERR_LIBMOE_NOT_FINITE.*token 2/,
    );
    expect(attempt(() => newLayer({ topK: 5 }))).toMatch(/ERR_LIBMOE_ARGUMENT.*topK.*4 \(experts\), got 5/);
    expect(attempt(() => newLayer({ sharedMix: 'half' }))).toMatch(/ERR_LIBMOE_ARGUMENT.*shared/);
    expect(attempt(() => new MoeLayer({ experts: 4, topK: 2, expert: { hidden: 5 } }))).toMatch(
      /ERR_LIBMOE_ARGUMENT.*dModel/,
    );
    expect(attempt(() => new MoeLayer({ experts: 4, topK: 2, dModel: 6 }))).toMatch(
      /ERR_LIBMOE_ARGUMENT.*expert/,
    );
    expect(attempt(() => newLayer({ compat: 'exact' as 'fixed' }))).toMatch(
      /ERR_LIBMOE_CONFIG.*compat "exact"/,
    );
    expect(
      attempt(() =>
        newLayer({ router: new Fixed(() => ({ experts: ids([7], 1), weights: weighted([1], 1) })) }).forward(
          tokens(1),
        ),
      ),
    ).toMatch(/ERR_LIBMOE_ARGUMENT.*(got 7|from -1 to 3; the value)/);
  });
});

describe('initial values of experts', () => {
  it("have LibMoE's standard deviations", () => {
    const std = libmoeStd({ width: 512, hidden: 128, experts: 66, layers: 16 });
    expect(std.up).toBeCloseTo(0.015625, 9);
    expect(std.down).toBeCloseTo(0.0038466, 7);
    expect(std.router).toBeCloseTo(0.015625, 9);
    using experts = new Experts(66, 512, {
      hidden: 128,
      activation: 'relu',
      gated: false,
      bias: false,
      init: 'libmoe',
      layers: 16,
    });
    const measured = (t: Tensor) =>
      Math.sqrt((t.readSync() as Float32Array).reduce((a, x) => a + x * x, 0) / t.size);
    expect(measured(experts.up) / std.up).toBeCloseTo(1, 2);
    expect(measured(experts.down) / std.down).toBeCloseTo(1, 2);
  });

  it("are PyTorch's Linear by default, and depend on seed and name", () => {
    const make = (name: string) =>
      new Experts(2, 16, {
        hidden: 8,
        activation: 'relu',
        gated: false,
        bias: true,
        values: { seed: 1, name },
      });
    using a = make('a');
    using b = make('b');
    using again = make('a');
    expect(Math.max(...a.up.toArray().map(Math.abs))).toBeLessThanOrEqual(0.25);
    expect(Math.max(...a.downBias!.toArray().map(Math.abs))).toBeLessThanOrEqual(1 / Math.sqrt(8));
    expect(a.up.toArray()).toEqual(again.up.toArray());
    expect(a.up.toArray()).not.toEqual(b.up.toArray());
  });
});

describe('capacityOf', () => {
  it('rounds up, but not for what is whole', () => {
    expect(capacityOf(1.25, 2, 10, 4)).toBe(7);
    expect(capacityOf(1.1, 1, 10, 1)).toBe(10);
    expect(capacityOf(1.1, 2, 100, 20)).toBe(11);
    expect(capacityOf(0.01, 1, 4, 4)).toBe(1);
    expect(() => capacityOf(0, 1, 4, 4)).toThrow(/capacityFactor/);
  });

  it('is the same for the tokens that a mask leaves, reckoned on the device', () => {
    const tokens = 40;
    for (const [factor, topK, experts] of [
      [1.25, 2, 4],
      [1.1, 1, 1],
      [1.1, 2, 20],
      [0.01, 1, 4],
      [9, 3, 7],
      [1, 2, 3],
    ] as const)
      for (const left of [0, 1, 10, 39, 40])
        scope(() => {
          const list = Array.from({ length: tokens }, (_, t) => ((t * 7) % tokens < left ? 1 : 0));
          const mask = tensor(list, [tokens], { dtype: 'bool' });
          expect(maskedCapacityOf(factor, topK, mask, experts).toArray(), `${factor} ${left}`).toEqual([
            capacityOf(factor, topK, Math.max(1, left), experts),
          ]);
        });
    using one = tensor([1], [1], { dtype: 'bool' });
    expect(() => maskedCapacityOf(0, 1, one, 4)).toThrow(/capacityFactor/);
  });
});
