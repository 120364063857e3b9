import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { binaryRaw, expandRaw, filled, repeatedAxes } from './broadcast.ts';
import { gradientDtype } from './dtype.ts';
import { elements, emptyLike, type Tensor, view } from './tensor.ts';

/** One axis or several, negative ones counted from the end; default all. */
export type Axes = number | readonly number[];

/** What becomes of the axes that are reduced. */
export interface ReductionOptions {
  /** Keep reduced axes with size 1. Default false. */
  keepDims?: boolean;
}

type Kind = 'sum' | 'mean' | 'max';
const kinds: readonly Kind[] = ['sum', 'mean', 'max'];

function maskOf(x: Tensor, axes: Axes | undefined): number {
  if (axes === undefined) return 2 ** x.rank - 1;
  let mask = 0;
  for (const axis of typeof axes === 'number' ? [axes] : axes) {
    const at = axis < 0 ? axis + x.rank : axis;
    if (!Number.isInteger(axis) || at < 0 || at >= x.rank)
      fail('ERR_LIBMOE_ARGUMENT', `axis ${axis} does not exist in a tensor of shape [${x.shape.join(', ')}]`);
    mask |= 1 << at;
  }
  return mask;
}

/** f(x) over the axes in `mask`, in a new tensor of `shape`; not recorded. */
function reduceRaw(kind: Kind, x: Tensor, mask: number, shape: readonly number[]): Tensor {
  return filled(shape, x, (y) => native().reduce(kinds.indexOf(kind), x.handle, mask, y));
}

/** Shapes of the result with reduced axes kept at size 1, and left out. */
function shapesOf(x: Tensor, mask: number): { kept: number[]; dropped: number[] } {
  return {
    kept: x.shape.map((size, i) => (mask & (1 << i) ? 1 : size)),
    dropped: x.shape.filter((_, i) => !(mask & (1 << i))),
  };
}

function reduction(kind: Kind, x: Tensor, axes: Axes | undefined, options: ReductionOptions): Tensor {
  const mask = maskOf(x, axes);
  const { kept, dropped } = shapesOf(x, mask);
  const y = reduceRaw(kind, x, mask, options.keepDims ? kept : dropped);
  record({
    name: kind,
    inputs: [x],
    outputs: [y],
    saved: kind === 'max' ? [x, y] : [],
    backward: ([dy]) => {
      const g = view(dy!, kept);
      if (kind === 'sum') return [expandRaw(g, x.shape)];
      if (kind === 'mean') {
        const scaled = emptyLike(g);
        native().affine(g.handle, scaled.handle, elements(kept) / x.size, 0);
        return [expandRaw(scaled, x.shape)];
      }
      // The places that hold the maximum share its gradient equally.
      const winners = binaryRaw('equal', x, view(y, kept));
      const share = binaryRaw('divide', g, reduceRaw('sum', winners, mask, kept));
      return [binaryRaw('multiply', winners, share)];
    },
  });
  return y;
}

/** Sum over `axes` (default all). f32, bf16 (summed in f32), f64. The sum over an empty axis is 0. */
export function sum(x: Tensor, axes?: Axes, options: ReductionOptions = {}): Tensor {
  return reduction('sum', x, axes, options);
}

/** Mean over `axes` (default all). Throws ERR_LIBMOE_SHAPE where there is nothing to average. */
export function mean(x: Tensor, axes?: Axes, options: ReductionOptions = {}): Tensor {
  return reduction('mean', x, axes, options);
}

/** Maximum over `axes` (default all); a NaN wins. Equal maxima share the gradient. Throws ERR_LIBMOE_SHAPE for an empty axis. */
export function max(x: Tensor, axes?: Axes, options: ReductionOptions = {}): Tensor {
  return reduction('max', x, axes, options);
}

/** Sums `x` over the axes that broadcasting `shape` to x.shape repeats: the transpose of a broadcast. Throws ERR_LIBMOE_SHAPE. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const mask = repeatedAxes(x.shape, shape);
  if (mask === undefined)
    fail('ERR_LIBMOE_SHAPE', `sumTo: [${x.shape.join(', ')}] is not a broadcast of [${shape.join(', ')}]`);
  const y = reduceRaw('sum', x, mask, shape);
  const kept = x.shape.map((size, i) => (mask & (1 << i) ? 1 : size));
  record({
    name: 'sumTo',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => [expandRaw(view(dy!, kept), x.shape)],
  });
  return y;
}

function lastAxis(name: string, x: Tensor): { rows: number; n: number; shape: readonly number[] } {
  if (x.rank === 0) fail('ERR_LIBMOE_SHAPE', `${name} expects at least one axis, got a scalar`);
  const shape = x.shape.slice(0, -1);
  return { rows: elements(shape), n: x.shape[x.rank - 1]!, shape };
}

/** A new tensor of `shape` that `fill` sees as [rows]. */
function byRows(
  shape: readonly number[],
  rows: number,
  like: Pick<Tensor, 'dtype' | 'device'>,
  fill: (handle: number) => void,
): Tensor {
  const y = filled([rows], like, fill);
  if (shape.length === 1) return y;
  const shaped = view(y, shape);
  y.dispose();
  return shaped;
}

/**
 * Index of the largest element along the last axis, i32 [...]: the lowest one on ties, the first NaN if there is one. Not differentiable.
 * Throws ERR_LIBMOE_SHAPE when that axis is empty.
 */
export function argmax(x: Tensor): Tensor {
  const { rows, n, shape } = lastAxis('argmax', x);
  using rowsOfX = view(x, [rows, n]);
  const y = byRows(shape, rows, { dtype: 'i32', device: x.device }, (out) =>
    native().argmax(rowsOfX.handle, out),
  );
  return y;
}

/** log Σ exp along the last axis, [...] in f32 (f64 for f64), safe for large values; −∞ for an empty axis. */
export function logSumExp(x: Tensor): Tensor {
  const { rows, n, shape } = lastAxis('logSumExp', x);
  using rowsOfX = view(x, [rows, n]);
  const y = byRows(shape, rows, { dtype: gradientDtype(x.dtype), device: x.device }, (out) =>
    native().logSumExp(rowsOfX.handle, out),
  );
  record({
    name: 'logSumExp',
    inputs: [x],
    outputs: [y],
    saved: [x, y],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().logSumExpBackward(
        view(x, [rows, n]).handle,
        view(y, [rows]).handle,
        view(dy!, [rows]).handle,
        view(dx, [rows, n]).handle,
      );
      return [dx];
    },
  });
  return y;
}
