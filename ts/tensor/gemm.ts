import { fail, native } from '../native/index.ts';
import { type GradSink, record } from './autograd.ts';
import { isFloat } from './dtype.ts';
import { empty, emptyLike, type Tensor } from './tensor.ts';

/** How the operands of {@link matmul} are stored. */
export interface MatmulOptions {
  /** `a` is stored [k, m]. */
  transposeA?: boolean;
  /** `b` is stored [n, k]. */
  transposeB?: boolean;
}

const text = (t: Tensor): string => `[${t.shape.join(', ')}]`;

/** One product of the backward pass: `left * right`, written to wherever the gradient of `input` belongs. */
function gradient(
  sink: GradSink,
  input: number,
  like: Tensor,
  batched: boolean,
  left: readonly [Tensor, boolean],
  right: readonly [Tensor, boolean],
): Tensor | undefined {
  if (!sink.needs(input)) return undefined;
  // A computed input gets its gradient in its own dtype, a leaf straight into its accumulator.
  const place = like.node ? undefined : sink.into(input);
  const out = place?.tensor ?? emptyLike(like);
  native().gemm(
    left[0].handle,
    right[0].handle,
    null,
    out.handle,
    left[1],
    right[1],
    place?.accumulate ?? false,
    batched,
  );
  return place ? undefined : out;
}

/**
 * Matrix product: `a` [m, k] times `b` [k, n], or a batch of products [batch, m, k] times [batch, k, n]; either may be stored transposed.
 * Differentiable. f32, f64, or bf16 accumulated in f32 and rounded once.
 *
 * @throws ERR_LIBMOE_SHAPE when ranks, batch or inner dimensions differ; ERR_LIBMOE_DTYPE for mixed or integer types.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false } = options;
  if ((a.rank !== 2 && a.rank !== 3) || a.rank !== b.rank) {
    fail(
      'ERR_LIBMOE_SHAPE',
      `matmul expects two matrices or two batches of matrices, got ${text(a)} and ${text(b)}`,
    );
  }
  if (!isFloat(a.dtype) || a.dtype === 'f16')
    fail('ERR_LIBMOE_DTYPE', `matmul expects f32, bf16 or f64, got ${a.dtype}; cast() it`);
  const batched = a.rank === 3;
  const m = a.shape.at(transposeA ? -1 : -2)!;
  const n = b.shape.at(transposeB ? -2 : -1)!;
  const c = empty([...a.shape.slice(0, -2), m, n], { dtype: a.dtype, device: a.device });
  native().gemm(a.handle, b.handle, null, c.handle, transposeA, transposeB, false, batched);
  record({
    name: 'matmul',
    inputs: [a, b],
    outputs: [c],
    saved: [a, b],
    backward([dc], sink) {
      if (!dc) return;
      return [
        transposeA
          ? gradient(sink, 0, a, batched, [b, transposeB], [dc, true])
          : gradient(sink, 0, a, batched, [dc, false], [b, !transposeB]),
        transposeB
          ? gradient(sink, 1, b, batched, [dc, true], [a, transposeA])
          : gradient(sink, 1, b, batched, [a, !transposeA], [dc, false]),
      ];
    },
  });
  return c;
}

/**
 * `x` [..., in] times the transpose of `weight` [out, in], plus `bias` [out]. Differentiable; the weight's gradient is summed over rows in
 * f32 straight in its accumulator.
 *
 * @throws ERR_LIBMOE_SHAPE when sizes differ; ERR_LIBMOE_DTYPE for mixed or integer types.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const [out = 0, inner = 0] = weight.shape;
  if (weight.rank !== 2 || x.rank < 1 || x.shape.at(-1) !== inner) {
    fail(
      'ERR_LIBMOE_SHAPE',
      `linear expects x [..., in] and weight [out, in], got ${text(x)} and ${text(weight)}`,
    );
  }
  if (!isFloat(x.dtype) || x.dtype === 'f16')
    fail('ERR_LIBMOE_DTYPE', `linear expects f32, bf16 or f64, got ${x.dtype}; cast() it`);
  const y = empty([...x.shape.slice(0, -1), out], { dtype: x.dtype, device: x.device });
  native().gemm(x.handle, weight.handle, bias?.handle ?? null, y.handle, false, true, false, false);
  record({
    name: 'linear',
    inputs: [x, weight, bias],
    outputs: [y],
    saved: [x, weight],
    backward([dy], sink) {
      if (!dy) return;
      let dx: Tensor | undefined;
      if (sink.needs(0)) {
        dx = emptyLike(x);
        native().gemm(dy.handle, weight.handle, null, dx.handle, false, false, false, false);
      }
      const dw = sink.into(1);
      if (dw) native().gemm(dy.handle, x.handle, null, dw.tensor.handle, true, false, dw.accumulate, false);
      const db = sink.into(2);
      if (db) native().columnSums(dy.handle, db.tensor.handle, db.accumulate);
      return [dx];
    },
  });
  return y;
}
