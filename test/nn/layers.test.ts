import { describe, expect, it } from 'vitest';
import { Experts } from '../../ts/moe/experts.ts';
import {
  activate,
  activationNames,
  Embedding,
  FeedForward,
  LayerNorm,
  Linear,
  RmsNorm,
  Rotary,
  SelfAttention,
} from '../../ts/nn/index.ts';
import { linear } from '../../ts/tensor/gemm.ts';
import { full, noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { dispatchPlan } from '../../ts/tensor/permutation.ts';
import { randn } from '../../ts/tensor/random.ts';
import { leaveToCollector } from '../collected.ts';
import { gradientCheck } from '../ops/gradient-check.ts';

leaveToCollector();

const near = (got: ArrayLike<number>, wanted: ArrayLike<number>, tolerance = 1e-5): void => {
  expect(got.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++)
    expect(Math.abs(got[i]! - wanted[i]!)).toBeLessThanOrEqual(tolerance);
};

const rows = (x: Tensor): number[][] => {
  const width = x.shape.at(-1)!;
  const flat = x.toArray();
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
};
const product = (x: number[][], w: number[][], bias?: number[]): number[][] =>
  x.map((row) => w.map((line, j) => line.reduce((sum, v, k) => sum + v * row[k]!, bias?.[j] ?? 0)));

describe('layers', () => {
  it('Linear computes x Wᵀ + b', () => {
    using layer = new Linear(5, 3, { values: { seed: 3, name: 'l' } });
    scope(() => {
      const x = randn([7, 5], { seed: 1 });
      near(layer.forward(x).toArray(), product(rows(x), rows(layer.weight), layer.bias!.toArray()).flat());
    });
    expect(() => scope(() => layer.forward(randn([2, 4], { seed: 1 })))).toThrow(
      /Linear expects \[\.\.\., 5\], got \[2, 4\]/,
    );
    expect(() => new Linear(0, 3)).toThrow(/ERR_LIBMOE_ARGUMENT.*inputs must be a positive integer/);
  });

  it('Embedding looks rows up', () => {
    using layer = new Embedding(4, 3);
    scope(() => {
      const out = layer.forward(tensor([2, 0], [2], { dtype: 'i32' }));
      const table = rows(layer.weight);
      expect(rows(out)).toEqual([table[2], table[0]]);
    });
  });

  it('norms start as identities on normalised input', () => {
    using layerNorm = new LayerNorm(4, { eps: 0 });
    using rmsNorm = new RmsNorm(4, { eps: 0 });
    scope(() => {
      const x = tensor([1, 2, 3, 4], [1, 4]);
      const std = Math.sqrt(1.25);
      near(
        layerNorm.forward(x).toArray(),
        [-1.5, -0.5, 0.5, 1.5].map((v) => v / std),
      );
      const rms = Math.sqrt(7.5);
      near(
        rmsNorm.forward(x).toArray(),
        [1, 2, 3, 4].map((v) => v / rms),
      );
    });
  });

  it('FeedForward, gated and not, is down(act(up x))', () => {
    const silu = (v: number): number => v / (1 + Math.exp(-v));
    for (const gated of [false, true]) {
      using layer = new FeedForward(4, { hidden: 6, activation: gated ? 'silu' : 'relu', gated, bias: true });
      scope(() => {
        const x = randn([5, 4], { seed: 2 });
        const up = product(rows(x), rows(layer.up), layer.upBias!.toArray());
        const hidden = up.map((row) =>
          Array.from({ length: 6 }, (_, i) => (gated ? silu(row[i]!) * row[i + 6]! : Math.max(0, row[i]!))),
        );
        near(layer.forward(x).toArray(), product(hidden, rows(layer.down), layer.downBias!.toArray()).flat());
      });
    }
  });

  it('knows every activation and refuses others', () => {
    scope(() => {
      const x = tensor([-1, 0, 2], [3]);
      for (const name of activationNames)
        if (name !== 'clampedSwiglu') expect(activate(x, name).shape).toEqual([3]);
      expect(() => activate(x, 'clampedSwiglu')).toThrow(/ERR_LIBMOE_ARGUMENT.*for gated layers/);
      near(activate(x, 'identity').toArray(), [-1, 0, 2], 0);
      expect(() => activate(x, 'tanhh' as 'relu')).toThrow(/ERR_LIBMOE_ARGUMENT.*unknown activation/);
    });
  });

  it('the clamped SwiGLU of a dense layer is that of an expert, and its gradients those of central differences', () => {
    const size = { hidden: 6, activation: 'clampedSwiglu', gated: true, bias: true } as const;
    using layer = new FeedForward(4, { ...size, dtype: 'f64' });
    using experts = new Experts(1, 4, { ...size, dtype: 'f64' });
    for (const [name, value] of experts.stateDict()) value.write(layer.stateDict().get(name)!.toArray());
    scope(() => {
      const x = tensor(
        Float64Array.from({ length: 20 }, (_, i) => 30 * Math.sin(5 * i)),
        [5, 4],
        { requiresGrad: true },
      );
      noGrad(() => {
        const ones = full([5, 1], 1, { dtype: 'f64' });
        const plan = dispatchPlan(tensor(new Int32Array(5), [5, 1]), { experts: 1 });
        near(layer.forward(x).toArray(), experts.forward(x, plan, ones).toArray());
        const projected = linear(x, layer.up, layer.upBias).toArray();
        expect([Math.max(...projected) > 7, Math.min(...projected) < -7]).toEqual([true, true]);
      });
      gradientCheck((input) => layer.forward(input!), [x]);
      for (const [, parameter] of layer.namedParameters()) {
        parameter.grad?.dispose();
        parameter.grad = undefined;
      }
    });
    expect(() => new FeedForward(4, { ...size, gated: false })).toThrow(/clampedSwiglu needs gated: true/);
    expect(() => new Experts(1, 4, { ...size, gated: false })).toThrow(/clampedSwiglu needs gated: true/);
  });

  it('SelfAttention agrees with the plain formula: grouped heads, rotary, window, packed sequences', () => {
    const width = 8;
    const headDim = 6;
    using layer = new SelfAttention(width, {
      heads: 4,
      keyValueHeads: 2,
      headDim,
      bias: true,
      outputBias: true,
      window: 3,
    });
    const rotary = new Rotary({ dims: 4, base: 100 });
    const lengths = [5, 2];
    scope(() => {
      const x = randn([7, width], { seed: 5 });
      rotary.reserve(8, x);
      const positions = [0, 1, 2, 3, 4, 0, 1];
      const got = layer.forward(x, {
        positions: tensor(positions, [7], { dtype: 'i32' }),
        sequenceOffsets: tensor([0, 5, 7], [3], { dtype: 'i32' }),
        rotary,
      });
      const project = (part: Linear): number[][] => product(rows(x), rows(part.weight), part.bias!.toArray());
      const head = (values: number[][], token: number, index: number, turn: boolean): number[] => {
        const v = values[token]!.slice(index * headDim, (index + 1) * headDim);
        if (!turn) return v;
        const out = [...v];
        for (let j = 0; j < 2; j++) {
          const angle = positions[token]! * 100 ** ((-2 * j) / 4);
          out[j] = v[j]! * Math.cos(angle) - v[j + 2]! * Math.sin(angle);
          out[j + 2] = v[j + 2]! * Math.cos(angle) + v[j]! * Math.sin(angle);
        }
        return out;
      };
      const [query, key, value] = [project(layer.query), project(layer.key), project(layer.value)] as const;
      const mixed: number[][] = [];
      let start = 0;
      for (const length of lengths) {
        for (let t = start; t < start + length; t++) {
          const row: number[] = [];
          for (let h = 0; h < 4; h++) {
            const group = Math.floor(h / 2);
            const q = head(query, t, h, true);
            const seen = Array.from({ length: t - start + 1 }, (_, i) => start + i).filter((s) => s > t - 3);
            const scores = seen.map(
              (s) => head(key, s, group, true).reduce((sum, k, i) => sum + k * q[i]!, 0) / Math.sqrt(headDim),
            );
            const weights = scores.map((s) => Math.exp(s - Math.max(...scores)));
            const total = weights.reduce((a, b) => a + b, 0);
            for (let c = 0; c < headDim; c++) {
              row.push(
                seen.reduce((sum, s, i) => sum + (weights[i]! / total) * head(value, s, group, false)[c]!, 0),
              );
            }
          }
          mixed.push(row);
        }
        start += length;
      }
      near(got.toArray(), product(mixed, rows(layer.output.weight), layer.output.bias!.toArray()).flat());
    });
    rotary.dispose();
    expect(
      () => new SelfAttention(8, { heads: 3, keyValueHeads: 2, headDim: 4, bias: false, outputBias: false }),
    ).toThrow(/multiple of keyValueHeads/);
  });
});
