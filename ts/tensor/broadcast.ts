import { fail, native } from '../native/index.ts';
import { empty, type Tensor, view } from './tensor.ts';

/** Order of native/ops/elementwise.h. */
const binaries = [
  'add',
  'subtract',
  'multiply',
  'divide',
  'maximum',
  'minimum',
  'greater',
  'greaterEqual',
  'equal',
] as const;
export type BinaryName = (typeof binaries)[number];

/** Row-major strides in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i -= 1) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

/** The common shape of `a` and `b` under NumPy's rules. Throws ERR_LIBMOE_SHAPE. */
export function broadcastShape(name: string, a: readonly number[], b: readonly number[]): readonly number[] {
  if (a.length === b.length && a.every((size, i) => size === b[i])) return a;
  const rank = Math.max(a.length, b.length);
  const shape: number[] = [];
  for (let i = 0; i < rank; i += 1) {
    const sa = a[i - rank + a.length] ?? 1;
    const sb = b[i - rank + b.length] ?? 1;
    if (sa !== sb && sa !== 1 && sb !== 1)
      fail('ERR_LIBMOE_SHAPE', `${name} cannot broadcast [${a.join(', ')}] with [${b.join(', ')}]`);
    shape.push(sa === 1 ? sb : sa);
  }
  return shape;
}

/** The axes of `full` along which `shape` is repeated, as bits; undefined when `shape` does not broadcast to `full`. */
export function repeatedAxes(full: readonly number[], shape: readonly number[]): number | undefined {
  const missing = full.length - shape.length;
  if (missing < 0) return undefined;
  let mask = 0;
  for (let i = 0; i < full.length; i += 1) {
    const size = i < missing ? 1 : shape[i - missing]!;
    if (size === full[i]) continue;
    if (size !== 1) return undefined;
    mask |= 1 << i;
  }
  return mask;
}

/** A new tensor filled by `fill`, freed again when that throws. */
export function filled(
  shape: readonly number[],
  like: Pick<Tensor, 'dtype' | 'device'>,
  fill: (handle: number) => void,
): Tensor {
  const y = empty(shape, { dtype: like.dtype, device: like.device });
  try {
    fill(y.handle);
  } catch (error) {
    y.dispose();
    throw error;
  }
  return y;
}

/** f(a, b) with broadcasting into the tensor of a handle. */
export const binaryInto = (name: BinaryName, a: Tensor, b: Tensor, y: number): void =>
  native().binary(binaries.indexOf(name), a.handle, b.handle, y);

/** f(a, b) with broadcasting, not recorded; comparisons give 1 or 0 in the operands' dtype. */
export const binaryRaw = (name: BinaryName, a: Tensor, b: Tensor): Tensor =>
  filled(broadcastShape(name, a.shape, b.shape), a, (y) => binaryInto(name, a, b, y));

/** `x` repeated to `shape`, any dtype, not recorded; `x` itself when it has that shape. Throws ERR_LIBMOE_SHAPE. */
export function expandRaw(x: Tensor, shape: readonly number[]): Tensor {
  const mask = repeatedAxes(shape, x.shape);
  if (mask === undefined)
    fail('ERR_LIBMOE_SHAPE', `[${x.shape.join(', ')}] cannot be repeated to [${shape.join(', ')}]`);
  if (mask === 0 && shape.length === x.rank) return x;
  const own = stridesOf(x.shape);
  const missing = shape.length - x.rank;
  const from = shape.map((_, i) => (i < missing || mask & (1 << i) ? 0 : own[i - missing]!));
  return filled(shape, x, (y) => native().copyStrided(x.handle, y, shape, from, 0, stridesOf(shape), 0));
}

/** `x` summed over the axes along which `shape` was repeated, not recorded; `x` itself where nothing was. Throws ERR_LIBMOE_SHAPE. */
export function unbroadcast(x: Tensor, shape: readonly number[]): Tensor {
  const mask = repeatedAxes(x.shape, shape);
  if (mask === undefined)
    fail('ERR_LIBMOE_SHAPE', `[${x.shape.join(', ')}] is not a broadcast of [${shape.join(', ')}]`);
  if (mask === 0) return x.rank === shape.length ? x : view(x, shape);
  return filled(shape, x, (y) => native().reduce(0, x.handle, mask, y));
}
