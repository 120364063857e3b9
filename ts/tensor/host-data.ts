import { fail } from '../native/index.ts';
import { type Dtype, type HostArray, hostArray } from './dtype.ts';

/** Numbers, or arrays of arrays of one length. */
export type NestedNumbers = number | readonly NestedNumbers[];

const ranges: Partial<Record<Dtype, readonly [number, number]>> = {
  i32: [-(2 ** 31), 2 ** 31 - 1],
  i64: [-(2 ** 63), 2 ** 63 - 1024], // the greatest that a number can hold
  u8: [0, 255],
  bool: [0, 1],
};

/** Numbers in the element type of a tensor that is not of 16 bits. @throws ERR_LIBMOE_ARGUMENT naming the first that does not fit */
export function convertedTo(dtype: Dtype, data: HostArray | readonly number[]): HostArray {
  const out = hostArray(dtype, data.length);
  const range = ranges[dtype];
  for (let i = 0; i < data.length; i += 1) {
    const given: unknown = data[i];
    const value = typeof given === 'bigint' || typeof given === 'boolean' ? Number(given) : given;
    if (typeof value !== 'number') return refuse(dtype, i, given);
    if (range && !(Number.isInteger(value) && value >= range[0] && value <= range[1])) {
      return refuse(dtype, i, given);
    }
    out[i] = out instanceof BigInt64Array ? BigInt(given as number) : value;
  }
  return out;
}

function refuse(dtype: Dtype, index: number, value: unknown): never {
  const range = ranges[dtype];
  const wanted = range ? `whole numbers from ${range[0]} to ${range[1]}` : 'numbers';
  const came = typeof value === 'number' ? String(value) : `${typeof value} ${JSON.stringify(value)}`;
  return fail('ERR_LIBMOE_ARGUMENT', `${dtype} elements are ${wanted}, got ${came} at position ${index}`);
}

/** Nested arrays in a row, and their shape; typed arrays as they are. @throws ERR_LIBMOE_SHAPE for ragged ones, ERR_LIBMOE_ARGUMENT */
export function flattened(data: NestedNumbers | HostArray): {
  flat: readonly number[] | HostArray;
  dims: readonly number[];
} {
  if (typeof data === 'number') return { flat: [data], dims: [] };
  if (ArrayBuffer.isView(data)) return { flat: data, dims: [data.length] };
  if (!Array.isArray(data)) {
    return fail(
      'ERR_LIBMOE_ARGUMENT',
      `expected numbers, arrays of them or a typed array, got ${typeof data}`,
    );
  }
  if (!data.some(Array.isArray)) return { flat: data as readonly number[], dims: [data.length] };
  const dims: number[] = [];
  for (let part: NestedNumbers | undefined = data; Array.isArray(part); part = part[0])
    dims.push(part.length);
  const flat: number[] = [];
  const collect = (part: NestedNumbers, axis: number): void => {
    if (Array.isArray(part) !== axis < dims.length || (Array.isArray(part) && part.length !== dims[axis])) {
      const came = Array.isArray(part) ? `${part.length} elements` : 'no array';
      fail(
        'ERR_LIBMOE_SHAPE',
        `nested arrays must be as long as the first of their depth: expected [${dims.join(', ')}], got ${came} at depth ${axis}`,
      );
    }
    if (Array.isArray(part)) for (const item of part) collect(item, axis + 1);
    else flat.push(part as number);
  };
  collect(data, 0);
  return { flat, dims };
}
