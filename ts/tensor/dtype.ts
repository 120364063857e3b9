import { fail } from '../native/index.ts';

/** Element types; arithmetic runs on f32, bf16 (computed in f32) and f64, the others store and index. */
export type Dtype = 'f32' | 'bf16' | 'f64' | 'f16' | 'i32' | 'i64' | 'u8' | 'bool';
/** Where a tensor lives. */
export type DeviceName = 'cpu' | `cuda:${number}`;
/** What a tensor's raw elements look like in JavaScript; bf16 and f16 as their 16 bits. */
export type HostArray = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint16Array | Uint8Array;

const dtypes: readonly Dtype[] = ['f32', 'bf16', 'f64', 'f16', 'i32', 'i64', 'u8', 'bool']; // order of native/core/dtype.h
const bytes: Record<Dtype, number> = { f32: 4, bf16: 2, f64: 8, f16: 2, i32: 4, i64: 8, u8: 1, bool: 1 };

export function dtypeCode(dtype: Dtype): number {
  const code = dtypes.indexOf(dtype);
  if (code < 0) fail('ERR_LIBMOE_DTYPE', `expected one of ${dtypes.join(', ')}, got ${String(dtype)}`);
  return code;
}

/** Bytes of one element. */
export const bytesPerElement = (dtype: Dtype): number => bytes[dtype];

/** Whether elements are floating-point numbers. */
export const isFloat = (dtype: Dtype): boolean =>
  dtype === 'f32' || dtype === 'bf16' || dtype === 'f64' || dtype === 'f16';

/** The type gradients of a tensor accumulate in: f64 for f64, else f32. */
export const gradientDtype = (dtype: Dtype): Dtype => (dtype === 'f64' ? 'f64' : 'f32');

export function hostArray(dtype: Dtype, length: number): HostArray {
  switch (dtype) {
    case 'f32':
      return new Float32Array(length);
    case 'f64':
      return new Float64Array(length);
    case 'i32':
      return new Int32Array(length);
    case 'i64':
      return new BigInt64Array(length);
    case 'bf16':
    case 'f16':
      return new Uint16Array(length);
    default:
      return new Uint8Array(length);
  }
}

/** The element type that a typed array stands for; a Uint16Array could be bf16 or f16 and has to be named. */
export function dtypeOf(data: ArrayLike<number> | HostArray): Dtype | undefined {
  if (data instanceof Float32Array || Array.isArray(data)) return 'f32';
  if (data instanceof Float64Array) return 'f64';
  if (data instanceof Int32Array) return 'i32';
  if (data instanceof BigInt64Array) return 'i64';
  if (data instanceof Uint8Array) return 'u8';
  return undefined;
}

export function parseDevice(device: DeviceName): { kind: number; index: number } {
  if (device === 'cpu') return { kind: 0, index: 0 };
  const match = /^cuda:(\d{1,2})$/.exec(device);
  if (!match) fail('ERR_LIBMOE_DEVICE', `expected 'cpu' or 'cuda:<number>', got '${String(device)}'`);
  return { kind: 1, index: Number(match[1]) };
}
