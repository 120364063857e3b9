import { fail, type Handle, native } from '../native/index.ts';
import type { TapeNode } from './autograd.ts';
import { runBackward } from './autograd.ts';
import { defaultDevice } from './default-device.ts';
import {
  type DeviceName,
  type Dtype,
  dtypeCode,
  dtypeOf,
  type HostArray,
  hostArray,
  parseDevice,
} from './dtype.ts';
import { convertedTo, flattened, type NestedNumbers } from './host-data.ts';
import { currentOwner, type Owned, type Owner } from './lifetime.ts';
import { readLater } from './read.ts';

/** What a new tensor is made of, and where. */
export interface TensorOptions {
  /** Default f32. */
  dtype?: Dtype;
  /** Default: {@link defaultDevice}. */
  device?: DeviceName;
  requiresGrad?: boolean;
}

// Only the safety net: scopes, `using` and dispose() free at once, this when a forgotten tensor is garbage.
const forgotten = new FinalizationRegistry<Handle>((handle) => native().collected(handle));

/**
 * A contiguous, row-major, multi-dimensional array on one device. Owns one reference to native storage; views share storage.
 * Freed by the scope it was made in, by `using`, by {@link dispose}, or at the latest by the garbage collector.
 */
export class Tensor implements Owned {
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly device: DeviceName;
  /** Leaves with true collect `grad` in {@link backward}. */
  requiresGrad = false;
  /** Gradient of a leaf: its shape, f32 (f64 for f64). */
  grad: Tensor | undefined;
  /** Called when the gradient of this leaf is complete during a backward pass. */
  onGradReady: ((leaf: Tensor) => void) | undefined;
  /** The recorded operation that made this tensor, and which of its outputs it is. */
  node: TapeNode | undefined;
  outputIndex = 0;

  #handle: Handle;
  #references = 1;
  #disposed = false;
  #owner: Owner | undefined;

  /** For the op files: wraps a native handle. Users call tensor(), zeros() … */
  constructor(handle: Handle, shape: readonly number[], dtype: Dtype, device: DeviceName) {
    this.#handle = handle;
    this.shape = shape;
    this.dtype = dtype;
    this.device = device;
    this.#owner = currentOwner();
    if (this.#owner) this.#owner.members.push(this);
    else forgotten.register(this, handle, this);
  }

  /** The native name of this tensor. Throws ERR_LIBMOE_DISPOSED. */
  get handle(): Handle {
    if (this.#references === 0) {
      fail(
        'ERR_LIBMOE_DISPOSED',
        `this tensor [${this.shape.join(', ')}] was freed; return it from its scope or keep() it`,
      );
    }
    return this.#handle;
  }

  get owner(): Owner | undefined {
    return this.#owner;
  }
  set owner(owner: Owner | undefined) {
    if (!owner && this.#owner && this.#references > 0) forgotten.register(this, this.#handle, this);
    else if (owner && !this.#owner) forgotten.unregister(this);
    this.#owner = owner;
  }

  get size(): number {
    return elements(this.shape);
  }
  get rank(): number {
    return this.shape.length;
  }
  get disposed(): boolean {
    return this.#disposed;
  }

  /** Another reference to the same storage: the tape holds what backward needs this way. Pair with {@link release}. */
  retain(): this {
    if (this.#references === 0) this.handle;
    this.#references += 1;
    return this;
  }

  /** Gives back a reference that {@link retain} took; storage goes with the last one. */
  release(): void {
    if (this.#references === 0) return;
    this.#references -= 1;
    if (this.#references > 0) return;
    if (!this.#owner) forgotten.unregister(this);
    native().release(this.#handle);
  }

  /** Whether there is storage: false once the last reference is gone. */
  get allocated(): boolean {
    return this.#references > 0;
  }

  /** For the tape: storage of undefined contents for a tensor that was freed, and one reference to it, which {@link release} gives back. */
  renew(): void {
    const { kind, index } = parseDevice(this.device);
    this.#handle = native().empty(this.shape, dtypeCode(this.dtype), kind, index);
    this.#references = 1;
    this.#owner = undefined;
    forgotten.register(this, this.#handle, this);
  }

  /** Frees the tensor (once; later calls do nothing). Storage goes when no view and no recorded operation needs it. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    // A disposed tensor that the tape still holds belongs to no scope any more: let the collector find it if backward never runs.
    if (this.#references > 1) this.owner = undefined;
    this.release();
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * The raw elements, waiting for the device; reads that are begun together wait once. bf16 and f16 come as their bits; {@link toArray} converts.
   */
  async read(): Promise<HostArray> {
    return readLater(this, hostArray(this.dtype, this.size));
  }

  /** As {@link read}, blocking. */
  readSync(): HostArray {
    const data = hostArray(this.dtype, this.size);
    native().download(this.handle, data);
    return data;
  }

  /** All elements as numbers, row-major, whatever the dtype (i64 beyond 2^53 loses digits). */
  toArray(): number[] {
    if (this.dtype === 'bf16' || this.dtype === 'f16') {
      const wide = newTensor(this.shape, { dtype: 'f32', device: this.device });
      try {
        native().cast(this.handle, wide.handle);
        return wide.toArray();
      } finally {
        wide.dispose();
      }
    }
    return Array.from(this.readSync() as ArrayLike<number | bigint>, Number);
  }

  /** The only element of a one-element tensor. */
  item(): number {
    if (this.size !== 1)
      fail('ERR_LIBMOE_SHAPE', `item() expects one element, got [${this.shape.join(', ')}]`);
    return this.toArray()[0]!;
  }

  /**
   * Overwrites all elements in place: raw bits of the dtype, or numbers to convert.
   * @throws ERR_LIBMOE_ARGUMENT for what is no number, or no whole number in the range of an integer dtype
   */
  write(data: HostArray | readonly number[]): void {
    if (data.length !== this.size) {
      fail(
        'ERR_LIBMOE_SHAPE',
        `write() expects ${this.size} elements for [${this.shape.join(', ')}], got ${data.length}`,
      );
    }
    const wanted = hostArray(this.dtype, 0).constructor;
    if (data.constructor === wanted) {
      native().upload(this.handle, data as HostArray);
    } else if (this.dtype === 'bf16' || this.dtype === 'f16') {
      using wide = newTensor(this.shape, { dtype: 'f32', device: this.device });
      wide.write(data);
      native().cast(wide.handle, this.handle);
    } else native().upload(this.handle, convertedTo(this.dtype, data));
  }

  /**
   * Computes the gradients of every leaf that this tensor depends on, adding to their `grad`. A tensor of more than one element needs the
   * gradient to start from (same shape). Frees what the recorded operations had saved: a graph can be walked once.
   */
  backward(gradient?: Tensor): void {
    runBackward([this], [gradient]);
  }

  toString(): string {
    return `Tensor(${this.dtype} [${this.shape.join(', ')}] on ${this.device})`;
  }
}

/** Number of elements of a shape. */
export function elements(shape: readonly number[]): number {
  let n = 1;
  for (const size of shape) n *= size;
  return n;
}

function newTensor(shape: readonly number[], options: TensorOptions): Tensor {
  const { dtype = 'f32', device = defaultDevice(), requiresGrad = false } = options;
  const { kind, index } = parseDevice(device);
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 0) {
      fail('ERR_LIBMOE_SHAPE', `dimensions must be non-negative integers, got [${shape.join(', ')}]`);
    }
  }
  const t = new Tensor(native().empty(shape, dtypeCode(dtype), kind, index), [...shape], dtype, device);
  t.requiresGrad = requiresGrad;
  return t;
}

/** A tensor with undefined contents. */
export const empty = (shape: readonly number[], options: TensorOptions = {}): Tensor =>
  newTensor(shape, options);

/** Undefined contents, with shape, device and (unless given) dtype of `like`. */
export const emptyLike = (like: Tensor, options: TensorOptions = {}): Tensor =>
  newTensor(like.shape, { dtype: like.dtype, device: like.device, ...options });

/** A tensor of zeros. */
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const t = newTensor(shape, options);
  native().clear(t.handle);
  return t;
}

/** A tensor whose elements all have one value. */
export function full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
  const t = newTensor(shape, options);
  native().fill(t.handle, value);
  return t;
}

/** A tensor of ones. */
export const ones = (shape: readonly number[], options: TensorOptions = {}): Tensor =>
  full(shape, 1, options);

/**
 * A tensor from host data. Without `shape` it has that of the nested arrays (a plain number: a scalar, shape []). The dtype is that of the
 * typed array, f32 for plain numbers, or `options.dtype`, converting.
 * @throws ERR_LIBMOE_SHAPE when the counts differ or nested arrays are ragged, ERR_LIBMOE_ARGUMENT for what is no number, or no whole number
 *   in the range of an integer dtype
 */
export function tensor(
  data: NestedNumbers | HostArray,
  shape?: readonly number[],
  options: TensorOptions = {},
): Tensor {
  const { flat, dims: own } = flattened(data);
  const dims = shape ?? own;
  const dtype = options.dtype ?? dtypeOf(flat as HostArray);
  if (!dtype) fail('ERR_LIBMOE_DTYPE', 'a Uint16Array may hold bf16 or f16: name one with { dtype }');
  if (elements(dims) !== flat.length) {
    fail(
      'ERR_LIBMOE_SHAPE',
      `shape [${dims.join(', ')}] has ${elements(dims)} elements, the data ${flat.length}`,
    );
  }
  const t = newTensor(dims, { ...options, dtype });
  try {
    t.write(flat);
  } catch (error) {
    t.dispose();
    throw error;
  }
  return t;
}

/**
 * The same storage seen with another shape, from `offset` elements on. Not differentiable: reshape and slice are. Writes show in both.
 */
export function view(source: Tensor, shape: readonly number[], offset = 0): Tensor {
  return new Tensor(native().view(source.handle, shape, offset), [...shape], source.dtype, source.device);
}
