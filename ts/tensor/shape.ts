import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { expandRaw, filled, stridesOf, unbroadcast } from './broadcast.ts';
import { elements, empty, full, type Tensor, view, zeros } from './tensor.ts';

const text = (shape: readonly number[]): string => `[${shape.join(', ')}]`;

/** A non-negative axis of `x`; negative ones count from the end. */
function axisOf(name: string, x: Tensor, axis: number): number {
  const at = axis < 0 ? axis + x.rank : axis;
  if (!Number.isInteger(axis) || at < 0 || at >= x.rank)
    fail('ERR_LIBMOE_ARGUMENT', `${name}: axis ${axis} does not exist in a tensor of shape ${text(x.shape)}`);
  return at;
}

const withSize = (shape: readonly number[], axis: number, size: number): number[] =>
  shape.map((s, i) => (i === axis ? size : s));

/** Copies the block of `shape` that begins at `fromStart` in `x` to `toStart` in `y`. */
function copyBlock(
  x: Tensor,
  fromStart: readonly number[],
  y: Tensor,
  toStart: readonly number[],
  shape: readonly number[],
): void {
  if (elements(shape) === 0) return;
  const from = stridesOf(x.shape);
  const to = stridesOf(y.shape);
  const offset = (strides: readonly number[], start: readonly number[]) =>
    start.reduce((sum, s, i) => sum + s * strides[i]!, 0);
  native().copyStrided(x.handle, y.handle, shape, from, offset(from, fromStart), to, offset(to, toStart));
}

const startAt = (rank: number, axis: number, position: number): number[] =>
  Array.from({ length: rank }, (_, i) => (i === axis ? position : 0));

/** A copy of `size` elements of `x` from `start` on along `axis`, not recorded. */
function sliceRaw(x: Tensor, axis: number, start: number, size: number): Tensor {
  const shape = withSize(x.shape, axis, size);
  const y = empty(shape, { dtype: x.dtype, device: x.device });
  copyBlock(x, startAt(x.rank, axis, start), y, startAt(x.rank, axis, 0), shape);
  return y;
}

/** The same elements in another shape, sharing storage; one size may be −1 and is inferred. Throws ERR_LIBMOE_SHAPE. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const open = shape.indexOf(-1);
  const known = elements(shape.filter((s) => s !== -1));
  const dims = open < 0 ? [...shape] : withSize(shape, open, known === 0 ? 0 : x.size / known);
  if (elements(dims) !== x.size || dims.some((s) => !Number.isInteger(s) || s < 0))
    fail(
      'ERR_LIBMOE_SHAPE',
      `cannot reshape ${text(x.shape)} to ${text(shape)}: the counts of elements differ`,
    );
  const y = view(x, dims);
  record({
    name: 'reshape',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => [view(dy!, x.shape)],
  });
  return y;
}

function permuteRaw(x: Tensor, order: readonly number[]): Tensor {
  const own = stridesOf(x.shape);
  const shape = order.map((axis) => x.shape[axis]!);
  return filled(shape, x, (y) =>
    native().copyStrided(
      x.handle,
      y,
      shape,
      order.map((axis) => own[axis]!),
      0,
      stridesOf(shape),
      0,
    ),
  );
}

/** Axis i of the result is axis order[i] of `x`; a copy, any dtype. Throws ERR_LIBMOE_ARGUMENT unless `order` names every axis once. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const axes = order.map((axis) => axisOf('permute', x, axis));
  if (axes.length !== x.rank || new Set(axes).size !== x.rank)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `permute: order must name each of the ${x.rank} axes once, got ${text(order)}`,
    );
  const y = permuteRaw(x, axes);
  const inverse = axes.map((_, i) => axes.indexOf(i));
  record({
    name: 'permute',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => [permuteRaw(dy!, inverse)],
  });
  return y;
}

/** Exchanges two axes (default the last two); a copy. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const i = axisOf('transpose', x, a);
  const j = axisOf('transpose', x, b);
  return permute(
    x,
    x.shape.map((_, axis) => (axis === i ? j : axis === j ? i : axis)),
  );
}

/** Joins tensors along `axis`; other sizes and the dtype must agree. Throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE, ERR_LIBMOE_ARGUMENT for none. */
export function cat(xs: readonly Tensor[], axis = 0): Tensor {
  const first = xs[0];
  if (!first) return fail('ERR_LIBMOE_ARGUMENT', 'cat expects at least one tensor');
  const at = axisOf('cat', first, axis);
  for (const x of xs) {
    if (x.rank !== first.rank || x.shape.some((s, i) => i !== at && s !== first.shape[i]))
      fail(
        'ERR_LIBMOE_SHAPE',
        `cat along axis ${at} expects shapes like ${text(first.shape)}, got ${text(x.shape)}`,
      );
    if (x.dtype !== first.dtype)
      fail('ERR_LIBMOE_DTYPE', `cat expects one dtype, got ${first.dtype} and ${x.dtype}`);
  }
  const sizes = xs.map((x) => x.shape[at]!);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0));
  const shape = withSize(
    first.shape,
    at,
    sizes.reduce((a, b) => a + b, 0),
  );
  const y = empty(shape, { dtype: first.dtype, device: first.device });
  try {
    xs.forEach((x, i) => {
      copyBlock(x, startAt(x.rank, at, 0), y, startAt(x.rank, at, starts[i]!), x.shape);
    });
  } catch (error) {
    y.dispose();
    throw error;
  }
  record({
    name: 'cat',
    inputs: xs,
    outputs: [y],
    backward: ([dy], sink) =>
      sizes.map((size, i) => (sink.needs(i) ? sliceRaw(dy!, at, starts[i]!, size) : undefined)),
  });
  return y;
}

/** Elements start … end−1 along `axis`, a copy; negative positions count from the end, `end` defaults to it. Throws ERR_LIBMOE_ARGUMENT. */
export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  const at = axisOf('slice', x, axis);
  const length = x.shape[at]!;
  const from = start < 0 ? start + length : start;
  const to = end === undefined ? length : end < 0 ? end + length : end;
  if (!Number.isInteger(from) || !Number.isInteger(to) || from < 0 || to < from || to > length)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `slice: ${start} to ${end ?? 'end'} does not lie inside axis ${at} of ${text(x.shape)}`,
    );
  const y = sliceRaw(x, at, from, to - from);
  record({
    name: 'slice',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => {
      const dx = zeros(x.shape, { dtype: dy!.dtype, device: dy!.device });
      copyBlock(dy!, startAt(x.rank, at, 0), dx, startAt(x.rank, at, from), dy!.shape);
      return [dx];
    },
  });
  return y;
}

/** Cuts `axis` into pieces of the given sizes, which must add up to it. Throws ERR_LIBMOE_SHAPE. One recorded operation: no zeros are added up. */
export function split(x: Tensor, sizes: readonly number[], axis = 0): Tensor[] {
  const at = axisOf('split', x, axis);
  const total = sizes.reduce((a, b) => a + b, 0);
  if (total !== x.shape[at] || sizes.some((s) => !Number.isInteger(s) || s < 0))
    fail('ERR_LIBMOE_SHAPE', `split: sizes ${text(sizes)} must add up to axis ${at} of ${text(x.shape)}`);
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0));
  const pieces = sizes.map((size, i) => sliceRaw(x, at, starts[i]!, size));
  record({
    name: 'split',
    inputs: [x],
    outputs: pieces,
    backward: (gradients) => {
      const complete = gradients.every((g) => g !== undefined);
      const options = { dtype: x.dtype, device: x.device };
      const dx = complete ? empty(x.shape, options) : zeros(x.shape, options);
      gradients.forEach((g, i) => {
        if (g) copyBlock(g, startAt(x.rank, at, 0), dx, startAt(x.rank, at, starts[i]!), g.shape);
      });
      return [dx];
    },
  });
  return pieces;
}

function rowWidth(name: string, x: Tensor): number {
  if (x.rank === 0) fail('ERR_LIBMOE_SHAPE', `${name} expects at least one axis, got a scalar`);
  return elements(x.shape.slice(1));
}

/**
 * y[i…] = x[index[i…]]: x [rows, ...], index i32 [...] → [index.shape, x.shape without its first axis], any dtype.
 * Throws ERR_LIBMOE_ARGUMENT, naming it, for an index outside the rows.
 */
export function gatherRows(x: Tensor, index: Tensor): Tensor {
  const width = rowWidth('gatherRows', x);
  const n = index.size;
  const shape = [...index.shape, ...x.shape.slice(1)];
  using table = view(x, [x.shape[0]!, width]);
  using order = view(index, [n]);
  using flat = filled([n, width], x, (y) => native().gatherRows(table.handle, order.handle, y));
  const y = view(flat, shape);
  record({
    name: 'gatherRows',
    inputs: [x],
    outputs: [y],
    saved: [index],
    backward: ([dy]) => {
      const dx = zeros(x.shape, { dtype: x.dtype, device: x.device });
      native().scatterAddRows(
        view(dy!, [n, width]).handle,
        view(index, [n]).handle,
        view(dx, [x.shape[0]!, width]).handle,
      );
      return [dx];
    },
  });
  return y;
}

/**
 * base with rows[i…] added to row index[i…]; `base` is a tensor [m, ...] (left unchanged) or the shape of one of zeros. Duplicates are added in
 * ascending i, so the result never depends on threads. Throws ERR_LIBMOE_ARGUMENT, naming it, for an index outside [0, m).
 */
export function scatterAddRows(base: Tensor | readonly number[], index: Tensor, rows: Tensor): Tensor {
  const onto = 'handle' in base ? base : undefined;
  const shape = 'handle' in base ? base.shape : base;
  const n = index.size;
  if (shape.length === 0) fail('ERR_LIBMOE_SHAPE', 'scatterAddRows expects a base of at least one axis');
  const width = elements(shape.slice(1));
  const expected = [...index.shape, ...shape.slice(1)];
  if (expected.join() !== rows.shape.join())
    fail('ERR_LIBMOE_SHAPE', `scatterAddRows: rows must be ${text(expected)}, got ${text(rows.shape)}`);
  if (onto && onto.dtype !== rows.dtype)
    fail('ERR_LIBMOE_DTYPE', `scatterAddRows: base is ${onto.dtype}, rows are ${rows.dtype}`);
  using from = view(rows, [n, width]);
  using order = view(index, [n]);
  using sum = filled([shape[0]!, width], rows, (y) => {
    if (onto) {
      using flat = view(onto, [shape[0]!, width]);
      native().copy(y, flat.handle);
    } else native().clear(y);
    native().scatterAddRows(from.handle, order.handle, y);
  });
  const y = view(sum, shape);
  record({
    name: 'scatterAddRows',
    inputs: [onto, rows],
    outputs: [y],
    saved: [index],
    backward: ([dy], sink) => {
      if (!sink.needs(1)) return [dy];
      const drows = filled([n, width], dy!, (out) =>
        native().gatherRows(view(dy!, [shape[0]!, width]).handle, view(index, [n]).handle, out),
      );
      return [dy, view(drows, rows.shape)];
    },
  });
  return y;
}

/** `x` with [before, after] elements of `value` (default 0) around each axis; missing axes get none. Throws ERR_LIBMOE_ARGUMENT. */
export function pad(x: Tensor, widths: readonly (readonly [number, number])[], value = 0): Tensor {
  if (widths.length > x.rank || widths.flat().some((w) => !Number.isInteger(w) || w < 0))
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `pad expects up to ${x.rank} pairs of non-negative integers, got ${JSON.stringify(widths)}`,
    );
  const before = x.shape.map((_, i) => widths[i]?.[0] ?? 0);
  const shape = x.shape.map((s, i) => before[i]! + s + (widths[i]?.[1] ?? 0));
  const zero = x.shape.map(() => 0);
  const y = full(shape, value, { dtype: x.dtype, device: x.device });
  copyBlock(x, zero, y, before, x.shape);
  record({
    name: 'pad',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => {
      const dx = empty(x.shape, { dtype: dy!.dtype, device: dy!.device });
      copyBlock(dy!, before, dx, zero, x.shape);
      return [dx];
    },
  });
  return y;
}

/** `x` repeated to `shape` by broadcasting, a copy of any dtype. Throws ERR_LIBMOE_SHAPE. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  const copy = expandRaw(x, shape);
  const y = copy === x ? view(x, shape) : copy;
  record({
    name: 'expand',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => [unbroadcast(dy!, x.shape)],
  });
  return y;
}

/** `x` laid `times[i]` times along axis i, whole after whole (NumPy's tile); one count per axis. Throws ERR_LIBMOE_ARGUMENT. */
export function repeat(x: Tensor, times: readonly number[]): Tensor {
  if (times.length !== x.rank || times.some((t) => !Number.isInteger(t) || t < 0))
    fail('ERR_LIBMOE_ARGUMENT', `repeat expects ${x.rank} non-negative counts, got ${text(times)}`);
  // Axis by axis, outermost last: each step is [outer, 1, block] broadcast to [outer, times, block].
  let y = reshape(x, x.shape);
  for (let axis = x.rank - 1; axis >= 0; axis -= 1) {
    const count = times[axis]!;
    if (count === 1) continue;
    const outer = elements(x.shape.slice(0, axis));
    const block = elements(y.shape.slice(axis));
    using before = y;
    using flat = reshape(before, [outer, 1, block]);
    using wide = expand(flat, [outer, count, block]);
    y = reshape(wide, withSize(before.shape, axis, before.shape[axis]! * count));
  }
  return y;
}
