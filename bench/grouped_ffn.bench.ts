import { type ExpertActivation, groupedFfn } from '../ts/tensor/grouped_ffn.ts';
import { bytesPerElement, type Dtype, noGrad, scope, type Tensor, tensor } from '../ts/tensor/index.ts';
import { dispatchPlan } from '../ts/tensor/permutation.ts';
import type { BenchCase } from './case.ts';

/** The shapes of the specification's CPU tables: T tokens, model size d, expert size f, E experts, k of them per token. */
interface Shape {
  name: string;
  tokens: number;
  d: number;
  f: number;
  experts: number;
  topK: number;
  gated: boolean;
  activation: ExpertActivation;
}

const swiglu = { gated: true, activation: 'silu' } as const;
const shapes: Shape[] = [
  { name: 'A', tokens: 4096, d: 512, f: 1024, experts: 8, topK: 2, ...swiglu },
  { name: 'B', tokens: 2048, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
  { name: 'C512', tokens: 4096, d: 512, f: 128, experts: 66, topK: 8, gated: false, activation: 'relu' },
  { name: 'D', tokens: 64, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
];

/** A small generator, so that every run routes alike. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function uniformChoices({ tokens, experts, topK }: Shape): Int32Array {
  const next = random(7);
  const all = Array.from({ length: experts }, (_, e) => e);
  const out = new Int32Array(tokens * topK);
  for (let t = 0; t < tokens; t += 1)
    for (let j = 0; j < topK; j += 1) {
      const other = j + Math.floor(next() * (experts - j));
      [all[j], all[other]] = [all[other]!, all[j]!];
      out[t * topK + j] = all[j]!;
    }
  return out;
}

function noise(shape: number[], scale: number, dtype: Dtype, seed: number, requiresGrad: boolean): Tensor {
  const next = random(seed);
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i += 1) data[i] = (next() * 2 - 1) * 1.7 * scale;
  return tensor(data, shape, { dtype, requiresGrad });
}

function layerCase(shape: Shape, dtype: Dtype, pass: 'forward' | 'train'): BenchCase {
  const { tokens, d, f, experts, topK, gated, activation } = shape;
  const full = gated ? 2 * f : f;
  const weightCount = experts * d * (full + f);
  const forward = 2 * tokens * topK * d * (full + f);
  return {
    name: `grouped_ffn/${shape.name}/${dtype}/${pass}`,
    flops: pass === 'train' ? 3 * forward : forward,
    // Weights and x read, out written; training reads the weights again and writes their f32 gradients.
    bytes:
      pass === 'train'
        ? (2 * weightCount + 4 * tokens * d) * bytesPerElement(dtype) + 4 * weightCount
        : (weightCount + 2 * tokens * d) * bytesPerElement(dtype),
    setup() {
      const train = pass === 'train';
      const x = noise([tokens, d], 1, dtype, 1, train);
      const up = noise([experts, full, d], 1 / Math.sqrt(d), dtype, 2, train);
      const down = noise([experts, d, f], 1 / Math.sqrt(f), dtype, 3, train);
      const weights = tensor(new Float32Array(tokens * topK).fill(1 / topK), [tokens, topK], {
        requiresGrad: train,
      });
      const start = noise([tokens, d], 1, dtype, 4, false);
      const choices = tensor(uniformChoices(shape), [tokens, topK]);
      // The sort of the choices is part of the layer, and of what is timed.
      const layer = () => {
        const plan = dispatchPlan(choices, { experts });
        return groupedFfn(x, plan, weights, { up, down }, { activation, gated });
      };
      const leaves = [x, up, down, weights];
      return {
        run() {
          if (!train) return noGrad(() => scope(() => void layer()));
          scope(() => layer().backward(start));
          for (const leaf of leaves) {
            leaf.grad?.dispose();
            leaf.grad = undefined;
          }
        },
        dispose() {
          for (const t of [...leaves, start, choices]) t.dispose();
        },
      };
    },
    peer: {
      script: 'moe_layer.py',
      request: { tokens, d, f, experts, topK, gated, activation, dtype, pass },
    },
  };
}

export const cases: BenchCase[] = shapes.flatMap((shape) =>
  (['f32', 'bf16'] as const).flatMap((dtype) =>
    (['forward', 'train'] as const).map((pass) => layerCase(shape, dtype, pass)),
  ),
);
