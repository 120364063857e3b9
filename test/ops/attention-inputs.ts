import { type Dtype, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { sample } from './values.ts';

/** One call of attention: the lengths of its sequences, and sizes. */
export interface Case {
  lengths: readonly number[];
  queryHeads: number;
  heads: number;
  width: number;
  valueWidth?: number;
  causal?: boolean;
  window?: number;
}

/** How far each dtype may be from the definition. */
export const tolerances = [
  ['f64', 1e-14],
  ['f32', 2e-6],
  ['bf16', 8e-3],
] as const;

export const i32 = (data: readonly number[], shape?: readonly number[]): Tensor =>
  tensor(Int32Array.from(data), shape);

export const offsetsOf = (lengths: readonly number[]): number[] => {
  const offsets = [0];
  for (const n of lengths) offsets.push(offsets.at(-1)! + n);
  return offsets;
};

/** q, k and v. */
export function inputs(c: Case, dtype: Dtype, requiresGrad = false): [Tensor, Tensor, Tensor] {
  const tokens = c.lengths.reduce((a, b) => a + b, 0);
  return [
    sample([tokens, c.queryHeads, c.width], 1, dtype, requiresGrad),
    sample([tokens, c.heads, c.width], 2, dtype, requiresGrad),
    sample([tokens, c.heads, c.valueWidth ?? c.width], 3, dtype, requiresGrad),
  ];
}
