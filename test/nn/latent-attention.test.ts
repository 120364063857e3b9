import { describe, expect, it } from 'vitest';
import {
  type AttentionStep,
  LatentAttention,
  type Linear,
  latentScoreFactor,
  Rotary,
} from '../../ts/nn/index.ts';
import { multiply } from '../../ts/tensor/elementwise.ts';
import { noGrad, parameter, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';
import { sum } from '../../ts/tensor/reduction.ts';
import { leaveToCollector } from '../collected.ts';
import { slope } from '../moe/golden-logits.ts';

leaveToCollector();

const sizes = {
  heads: 2,
  keyValueRank: 5,
  contentDim: 3,
  rotaryDim: 4,
  valueDim: 6,
  scoreFactor: 1.3,
} as const;
const width = 7;
const offsets = [0, 4, 9];
const made = (more: { queryRank?: number; window?: number; bias?: boolean }): LatentAttention => {
  const { bias = false, ...rest } = more;
  const layer = new LatentAttention(width, { ...sizes, ...rest, bias, outputBias: bias, dtype: 'f64' });
  for (const [name, value] of layer.namedParameters())
    if (/Norm/.test(name)) value.write(value.toArray().map((_, i) => 1 + 0.3 * Math.sin(i)));
  return layer;
};

/** Runs `use` on a step of the packed sequences. */
function placed<T>(rotary: Rotary, use: (step: AttentionStep) => T): T {
  return scope(() => {
    const like = { device: 'cpu', dtype: 'f64' } as const;
    rotary.reserve(8, like);
    const positions = tensor(Int32Array.from([0, 1, 2, 3, 0, 1, 2, 3, 4]));
    return use({ positions, sequenceOffsets: tensor(Int32Array.from(offsets)), rotary });
  });
}

type Rows = number[][];
const rowsOf = (x: Tensor): Rows => {
  const values = x.toArray();
  const size = x.shape.at(-1)!;
  return Array.from({ length: values.length / size }, (_, i) => values.slice(i * size, (i + 1) * size));
};
const through = (x: Rows, { weight, bias }: Linear): Rows => {
  const matrix = rowsOf(weight);
  const added = bias?.toArray();
  return x.map((row) => matrix.map((line, j) => line.reduce((s, v, k) => s + v * row[k]!, added?.[j] ?? 0)));
};
const normed = (x: Rows, weight: Tensor): Rows => {
  const factors = weight.toArray();
  return x.map((row) => {
    const size = Math.sqrt(row.reduce((s, v) => s + v * v, 0) / row.length + 1e-6);
    return row.map((v, i) => (v / size) * factors[i]!);
  });
};
/** Pairs are neighbours here; the first `rotaryDim` channels turn. */
const turned = (head: number[], position: number): number[] =>
  head.map((value, i) => {
    if (i >= sizes.rotaryDim) return value;
    const angle = position * 100 ** (-(2 * Math.floor(i / 2)) / sizes.rotaryDim);
    const partner = i % 2 === 0 ? -head[i + 1]! : head[i - 1]!;
    return value * Math.cos(angle) + partner * Math.sin(angle);
  });

/** The formulas of arXiv 2405.04434 (37–47), token by token. */
function plainly(layer: LatentAttention, x: Rows, window = Number.POSITIVE_INFINITY): Rows {
  const { heads, rotaryDim, contentDim, valueDim, scoreFactor } = sizes;
  const wide = rotaryDim + contentDim;
  const positionOf = (token: number): number => (token < offsets[1]! ? token : token - offsets[1]!);
  const source = layer.queryDown ? normed(through(x, layer.queryDown), layer.queryNorm!.weight) : x;
  const query = through(source, layer.query);
  const latent = normed(through(x, layer.keyValueDown), layer.keyValueNorm.weight);
  const [content, value] = [through(latent, layer.key), through(latent, layer.value)];
  const common = through(x, layer.rotaryKey).map((row, token) => turned(row, positionOf(token)));
  const mixed = x.map((_, token) =>
    Array.from({ length: heads }, (_, head) => {
      const q = turned(query[token]!.slice(head * wide, (head + 1) * wide), positionOf(token));
      const first = Math.max(token - positionOf(token), token - window + 1);
      const seen = Array.from({ length: token - first + 1 }, (_, i) => first + i);
      const weights = seen.map((other) => {
        const k = [...common[other]!, ...content[other]!.slice(head * contentDim, (head + 1) * contentDim)];
        return Math.exp((q.reduce((s, v, i) => s + v * k[i]!, 0) * scoreFactor) / Math.sqrt(wide));
      });
      const total = weights.reduce((a, b) => a + b);
      return Array.from({ length: valueDim }, (_, i) =>
        seen.reduce((s, other, at) => s + (weights[at]! / total) * value[other]![head * valueDim + i]!, 0),
      );
    }).flat(),
  );
  return through(mixed, layer.output);
}

describe('latent attention', () => {
  const forms: [string, Parameters<typeof made>[0]][] = [
    ['queries from the input', {}],
    ['queries from a latent, biases', { queryRank: 4, bias: true }],
    ['a window', { queryRank: 4, window: 3 }],
  ];
  it.each(forms)('is the formula: %s', (_, form) => {
    using layer = made(form);
    using x = randn([9, width], { seed: 5, dtype: 'f64' });
    const rotary = new Rotary({ dims: sizes.rotaryDim, base: 100, interleaved: true });
    const got = placed(rotary, (step) => noGrad(() => layer.forward(x, step).toArray()));
    const wanted = plainly(layer, rowsOf(x), form.window).flat();
    for (const [i, value] of got.entries()) expect(Math.abs(value - wanted[i]!)).toBeLessThan(1e-12);
    rotary.dispose();
  });

  it.each(forms)('has the gradients of finite differences: %s', (_, form) => {
    using layer = made(form);
    using x = parameter(randn([9, width], { seed: 6, dtype: 'f64' }));
    using factors = randn([9, width], { seed: 7, dtype: 'f64' });
    const rotary = new Rotary({ dims: sizes.rotaryDim, base: 100, interleaved: true });
    const objective = (step: AttentionStep): Tensor => sum(multiply(layer.forward(x, step), factors));
    placed(rotary, (step) => objective(step).backward());
    const value = (): number => placed(rotary, (step) => noGrad(() => objective(step).item()));
    const parameters = [['x', x] as const, ...layer.namedParameters()];
    expect(parameters.length).toBe(8 + (form.queryRank ? 2 : 0) + (form.bias ? 4 : 0));
    for (const [name, p] of parameters) {
      const gradient = p.grad!.toArray();
      expect(gradient.some((g) => Math.abs(g) > 1e-4)).toBe(true);
      const step = Math.max(1, Math.floor(p.size / 9));
      for (let at = 0; at < p.size; at += step)
        expect(Math.abs(slope(p, at, value) - gradient[at]!), `${name}[${at}]`).toBeLessThan(1e-7);
    }
    layer.zeroGrad();
    x.grad?.dispose();
    rotary.dispose();
  });

  it('multiplies scores by the square of what yarn adds for all channels', () => {
    const yarn = { kind: 'yarn', factor: 40, originalPositions: 4096, betaFast: 32, betaSlow: 1 } as const;
    expect(latentScoreFactor({ ...yarn, truncate: true, mscaleAllDims: 1 })).toBeCloseTo(1.873854, 5);
    expect(latentScoreFactor({ ...yarn, truncate: true })).toBe(1);
    expect(latentScoreFactor({ kind: 'linear', factor: 4 })).toBe(1);
    expect(latentScoreFactor(undefined)).toBe(1);
  });

  it('refuses sizes that are no counts', () => {
    expect(
      () => new LatentAttention(8, { ...sizes, keyValueRank: 0, bias: false, outputBias: false }),
    ).toThrow(/ERR_LIBMOE_ARGUMENT.*keyValueRank must be a positive integer, got 0/);
  });
});
