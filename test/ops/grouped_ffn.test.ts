import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type ExpertActivation, expertActivations, groupedFfn } from '../../ts/tensor/grouped_ffn.ts';
import { type Dtype, scope, synchronise, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { type DispatchPlan, dispatchPlan } from '../../ts/tensor/permutation.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, values, withThreads } from './values.ts';

interface Case {
  tokens: number;
  d: number;
  hidden: number;
  experts: number;
  topK: number;
  gated: boolean;
  activation: ExpertActivation;
  bias: boolean;
  /** Expert of each choice, −1 for none; pseudo-random when absent. */
  choices?: number[];
  /** Standard deviation of x, to reach the limits of clamped_swiglu. */
  spread?: number;
}

function erf(x: number): number {
  let term = x;
  let sum = x;
  if (Math.abs(x) > 5) return Math.sign(x);
  for (let n = 1; n < 120; n += 1) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
const activations: Record<ExpertActivation, (x: number) => number> = {
  identity: (x) => x,
  relu: (x) => Math.max(x, 0),
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu_erf: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
  clamped_swiglu: (x) => Math.min(x, 7) / (1 + Math.exp(-1.702 * Math.min(x, 7))),
};
/** What the up rows of a gated layer multiply the activation by. */
const factor = (activation: ExpertActivation, up: number): number =>
  activation === 'clamped_swiglu' ? Math.min(Math.max(up, -7), 7) + 1 : up;

function choicesOf(c: Case): number[] {
  const noise = values(c.tokens * c.topK, 77);
  return c.choices ?? Array.from(noise, (v) => Math.floor(Math.abs(v) * 1000) % c.experts);
}

interface Layer {
  x: Tensor;
  plan: DispatchPlan;
  weights: Tensor;
  up: Tensor;
  upBias: Tensor | undefined;
  down: Tensor;
  downBias: Tensor | undefined;
}

function build(c: Case, dtype: Dtype, requiresGrad = false): Layer {
  const full = c.gated ? 2 * c.hidden : c.hidden;
  const scaled = (shape: number[], seed: number, factor: number) =>
    tensor(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ).map((v) => v * factor),
      shape,
      { dtype, requiresGrad },
    );
  return {
    x: scaled([c.tokens, c.d], 1, c.spread ?? 1),
    plan: dispatchPlan(tensor(Int32Array.from(choicesOf(c)), [c.tokens, c.topK]), { experts: c.experts }),
    weights: sample([c.tokens, c.topK], 2, dtype === 'f64' ? 'f64' : 'f32', requiresGrad),
    up: scaled([c.experts, full, c.d], 3, 1 / Math.sqrt(c.d)),
    upBias: c.bias ? scaled([c.experts, full], 4, 0.3) : undefined,
    down: scaled([c.experts, c.d, c.hidden], 5, 1 / Math.sqrt(c.hidden)),
    downBias: c.bias ? scaled([c.experts, c.d], 6, 0.3) : undefined,
  };
}
const run = (l: Layer, c: Case, recompute = false): Tensor =>
  groupedFfn(
    l.x,
    l.plan,
    l.weights,
    { up: l.up, upBias: l.upBias, down: l.down, downBias: l.downBias },
    { activation: c.activation, gated: c.gated, recompute },
  );

/** The definition, choice by choice, knowing nothing of the plan but which choices it kept. */
function reference(l: Layer, c: Case): number[] {
  const { d, hidden, gated } = c;
  const full = gated ? 2 * hidden : hidden;
  const [x, w, up, down] = [l.x.toArray(), l.weights.toArray(), l.up.toArray(), l.down.toArray()];
  const [upBias, downBias, kept] = [l.upBias?.toArray(), l.downBias?.toArray(), l.plan.inverse.toArray()];
  const act = activations[c.activation];
  const out = new Array<number>(c.tokens * d).fill(0);
  choicesOf(c).forEach((e, slot) => {
    if (kept[slot]! < 0) return;
    const t = Math.floor(slot / c.topK);
    const z = Array.from({ length: full }, (_, f) => {
      let sum = upBias?.[e * full + f] ?? 0;
      for (let i = 0; i < d; i += 1) sum += x[t * d + i]! * up[(e * full + f) * d + i]!;
      return sum;
    });
    const a = Array.from(
      { length: hidden },
      (_, f) => act(z[f]!) * (gated ? factor(c.activation, z[hidden + f]!) : 1),
    );
    for (let i = 0; i < d; i += 1) {
      let sum = downBias?.[e * d + i] ?? 0;
      for (let f = 0; f < hidden; f += 1) sum += a[f]! * down[(e * d + i) * hidden + f]!;
      out[t * d + i]! += w[slot]! * sum;
    }
  });
  return out;
}

const base: Case = {
  tokens: 9,
  d: 10,
  hidden: 7,
  experts: 4,
  topK: 2,
  gated: true,
  activation: 'silu',
  bias: true,
};
const cases: Record<string, Case> = {
  'gated with biases': base,
  'ungated without biases': { ...base, gated: false, bias: false, activation: 'relu' },
  'one token': { ...base, tokens: 1 },
  'every expert for every token': {
    ...base,
    topK: 4,
    choices: Array.from({ length: 36 }, (_, i) => (i * 3) % 4),
  },
  'all tokens to one expert': { ...base, tokens: 40, topK: 1, choices: new Array<number>(40).fill(2) },
  'dropped choices, and tokens with none': {
    ...base,
    tokens: 4,
    choices: [-1, -1, 0, -1, -1, 3, 1, 1],
  },
  'nobody chosen at all': { ...base, tokens: 2, choices: [-1, -1, -1, -1] },
  'an expert twice in one token': { ...base, tokens: 3, choices: [1, 1, 2, 2, 0, 0] },
  'one expert': { ...base, experts: 1, tokens: 30 },
  'sizes beyond one tile and one piece of K': {
    ...base,
    tokens: 70,
    d: 401,
    hidden: 37,
    experts: 3,
  },
  'hidden beyond one piece of K': { ...base, tokens: 20, d: 33, hidden: 395, experts: 2, gated: false },
};

describe('groupedFfn', () => {
  for (const [name, c] of Object.entries(cases))
    it(`is the definition: ${name}`, () => {
      for (const [dtype, tolerance] of [
        ['f64', 1e-13],
        ['f32', 1e-5],
        ['bf16', 2e-2],
      ] as const)
        scope(() => {
          const l = build(c, dtype);
          const out = run(l, c);
          expect(out.shape).toEqual([c.tokens, c.d]);
          expect(out.dtype).toBe(dtype);
          expect(distance(out.toArray(), reference(l, c)), dtype).toBeLessThan(tolerance);
        });
    });

  it('knows every activation, gated and not', () => {
    for (const activation of expertActivations)
      for (const gated of activation === 'clamped_swiglu' ? [true] : [true, false])
        scope(() => {
          const c = { ...base, activation, gated, tokens: 5 };
          const l = build(c, 'f64');
          expect(distance(run(l, c).toArray(), reference(l, c)), `${activation} ${gated}`).toBeLessThan(
            1e-12,
          );
        });
  });

  it('clamps gate and up of clamped_swiglu, on whole and on ragged vectors', () => {
    for (const [dtype, tolerance] of [
      ['f64', 1e-12],
      ['f32', 1e-5],
      ['bf16', 3e-2],
    ] as const)
      for (const sizes of [
        { d: 12, hidden: 1 },
        { d: 33, hidden: 19 },
        { d: 8, hidden: 64 },
      ])
        scope(() => {
          const c: Case = { ...base, ...sizes, tokens: 23, activation: 'clamped_swiglu', spread: 12 };
          const l = build(c, dtype);
          expect(distance(run(l, c).toArray(), reference(l, c)), dtype).toBeLessThan(tolerance);
          const unclamped = { ...c, activation: 'quick_gelu' as const };
          expect(distance(run(l, c).toArray(), reference(l, unclamped))).toBeGreaterThan(0.1);
        });
  });

  it('keeps a NaN, and has clamped_swiglu for gated experts only', () => {
    scope(() => {
      const c: Case = { ...base, activation: 'clamped_swiglu' };
      const l = build(c, 'f32');
      const poisoned = l.x.toArray();
      poisoned[0] = Number.NaN;
      l.x.write(poisoned);
      expect(run(l, c).toArray().slice(0, c.d).every(Number.isNaN)).toBe(true);
      expect(() => run(build({ ...c, gated: false }, 'f32'), { ...c, gated: false })).toThrow(
        /ERR_LIBMOE_ARGUMENT.*clamped_swiglu is for gated experts/,
      );
    });
  });

  it('honours what a capacity dropped', () => {
    scope(() => {
      const c = { ...base, tokens: 20 };
      const l = build(c, 'f64');
      const experts = tensor(Int32Array.from(choicesOf(c)), [c.tokens, c.topK]);
      const full: Layer = { ...l, plan: dispatchPlan(experts, { experts: c.experts, capacity: 3 }) };
      expect(full.plan.kept()).toBeLessThan(40);
      expect(distance(run(full, c).toArray(), reference(full, c))).toBeLessThan(1e-13);
    });
  });

  it('gives a token the same bits alone, in a batch and for any number of threads', () => {
    for (const dtype of ['f32', 'bf16'] as const)
      scope(() => {
        const c: Case = { ...base, tokens: 83, d: 450, hidden: 50, experts: 5, topK: 3 };
        const l = build(c, dtype);
        const all = run(l, c);
        for (const threads of [1, 2])
          expect(sameBits(withThreads(threads, () => run(l, c)).readSync(), all.readSync())).toBe(true);
        const choices = choicesOf(c);
        for (const t of [0, 14, 82]) {
          const alone: Case = { ...c, tokens: 1, choices: choices.slice(t * 3, t * 3 + 3) };
          const small: Layer = {
            ...l,
            x: view(l.x, [1, c.d], t * c.d),
            weights: view(l.weights, [1, 3], t * 3),
            plan: dispatchPlan(tensor(Int32Array.from(alone.choices!), [1, 3]), { experts: 5 }),
          };
          expect(
            sameBits(run(small, alone).readSync(), view(all, [1, c.d], t * c.d).readSync()),
            `${dtype} token ${t}`,
          ).toBe(true);
        }
      });
  });
});

const gradientInputs = (l: Layer): Tensor[] =>
  [l.x, l.weights, l.up, l.down, l.upBias, l.downBias].filter((t) => t !== undefined);

function checkGradients(c: Case, recompute: boolean): void {
  scope(() => {
    const l = build(c, 'f64', true);
    gradientCheck(() => run(l, c, recompute), gradientInputs(l), { tolerance: 2e-6 });
  });
}

/** The gradients of all inputs after one backward pass, as raw elements. */
function gradients(c: Case, dtype: Dtype, recompute = false) {
  return scope(() => {
    const l = build(c, dtype, true);
    run(l, c, recompute).backward(sample([c.tokens, c.d], 8, dtype));
    return gradientInputs(l).map((t) => {
      const g = t.grad!;
      const read = { dtype: g.dtype, raw: g.readSync(), numbers: g.toArray() };
      g.dispose();
      return read;
    });
  });
}

describe('groupedFfn backward', () => {
  const small: Case = { ...base, tokens: 6, d: 5, hidden: 4, experts: 3 };
  for (const gated of [true, false])
    for (const bias of [true, false])
      it(`has the gradients of central differences (${gated ? 'gated' : 'ungated'}, ${bias ? 'biases' : 'no biases'})`, () => {
        checkGradients({ ...small, gated, bias }, false);
        checkGradients({ ...small, gated, bias }, true);
      });

  it('has them for every smooth activation', () => {
    for (const activation of ['identity', 'gelu_erf', 'gelu_tanh', 'quick_gelu'] as const)
      checkGradients({ ...small, tokens: 3, activation, gated: activation !== 'gelu_erf' }, false);
  });

  it('has them for clamped_swiglu within and beyond its limits', () => {
    checkGradients({ ...small, tokens: 3, activation: 'clamped_swiglu' }, false);
    checkGradients({ ...small, tokens: 8, hidden: 9, activation: 'clamped_swiglu', spread: 12 }, true);
  });

  it('has them with dropped, repeated and empty experts', () => {
    checkGradients({ ...small, tokens: 4, choices: [-1, -1, 0, 0, 2, -1, 0, 2] }, false);
    checkGradients({ ...small, tokens: 2, choices: [-1, -1, -1, -1] }, false);
    checkGradients({ ...small, tokens: 3, topK: 3, choices: [0, 1, 2, 2, 1, 0, 1, 1, 1] }, true);
  });

  it('agrees in f32 and bf16 with f64, and keeps weight gradients in f32', () => {
    const c: Case = { ...base, tokens: 90, d: 65, hidden: 33, experts: 3 };
    const exact = gradients(c, 'f64');
    for (const [dtype, tolerance] of [
      ['f32', 2e-5],
      ['bf16', 4e-2],
    ] as const)
      gradients(c, dtype).forEach((g, i) => {
        expect(g.dtype).toBe('f32');
        expect(distance(g.numbers, exact[i]!.numbers), `${dtype}, input ${i}`).toBeLessThan(tolerance);
      });
  });

  it('has the same bits for any number of threads, and when z is computed again', () => {
    const c: Case = { ...base, tokens: 300, d: 70, hidden: 45, experts: 3 };
    for (const dtype of ['f32', 'bf16'] as const) {
      const one = withThreads(1, () => gradients(c, dtype));
      const two = withThreads(2, () => gradients(c, dtype));
      const again = gradients(c, dtype, true);
      one.forEach((g, i) => {
        expect(sameBits(g.raw, two[i]!.raw), `${dtype}, input ${i}, threads`).toBe(true);
        expect(sameBits(g.raw, again[i]!.raw), `${dtype}, input ${i}, recompute`).toBe(true);
      });
    }
  });

  it('adds to gradients that are there', () => {
    scope(() => {
      const l = build(base, 'f64', true);
      const start = sample([base.tokens, base.d], 8);
      run(l, base).backward(start);
      const once = gradientInputs(l).map((t) => t.grad!.toArray());
      run(l, base).backward(start);
      gradientInputs(l).forEach((t, i) => {
        expect(
          distance(
            t.grad!.toArray(),
            once[i]!.map((v) => 2 * v),
          ),
        ).toBeLessThan(1e-13);
        t.grad!.dispose();
      });
    });
  });
});

describe('groupedFfn arguments', () => {
  const code = (change: (l: Layer) => Partial<Layer>, options: Partial<Case> = {}) => {
    try {
      scope(() => {
        const l = build(base, 'f64');
        run({ ...l, ...change(l) }, { ...base, ...options });
        synchronise(); // a device tells of a broken plan when it is waited for
      });
    } catch (e) {
      return codeOf(e);
    }
    return undefined;
  };

  it('are checked', () => {
    expect(code(() => ({ up: sample([4, 14, 11]) }))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => ({ up: sample([4, 7, 10]), upBias: undefined }))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => ({ down: sample([3, 10, 7]) }))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => ({ downBias: sample([4, 9]) }))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => ({ weights: sample([9, 3]) }))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => ({ weights: sample([9, 2], 1, 'f32') }))).toBe('ERR_LIBMOE_DTYPE');
    expect(code(() => ({ down: sample([4, 10, 7], 1, 'f32') }))).toBe('ERR_LIBMOE_DTYPE');
    expect(code(() => ({}), { activation: 'swish' as ExpertActivation })).toBe('ERR_LIBMOE_ARGUMENT');
    expect(
      code((l) => {
        l.up.dispose();
        return {};
      }),
    ).toBe('ERR_LIBMOE_DISPOSED');
  });

  it('a plan that contradicts itself is refused', () => {
    const broken = (name: 'rows' | 'offsets' | 'inverse', index: number, value: number) =>
      code((l) => {
        const data = l.plan[name].readSync() as Int32Array;
        data[index] = value;
        return { plan: { ...l.plan, [name]: tensor(data, l.plan[name].shape) } };
      });
    expect(broken('rows', 0, 1000)).toBe('ERR_LIBMOE_ARGUMENT');
    expect(broken('rows', 0, -1)).toBe('ERR_LIBMOE_ARGUMENT');
    expect(broken('offsets', 4, 1000)).toBe('ERR_LIBMOE_ARGUMENT');
    expect(broken('offsets', 1, 17)).toBe('ERR_LIBMOE_ARGUMENT');
    expect(broken('inverse', 0, 99)).toBe('ERR_LIBMOE_ARGUMENT');
  });
});
