import type { Handle } from './tensors.ts';

/** native/binding/shape.cpp. Strides and offsets in elements. */
export interface ShapeNative {
  copyStrided(
    x: Handle,
    y: Handle,
    shape: readonly number[],
    fromStrides: readonly number[],
    fromOffset: number,
    toStrides: readonly number[],
    toOffset: number,
  ): void;
  /** y from the elements of a file of `size` bytes, the first at byte `offset`, one stride per axis of y. */
  readFile(
    y: Handle,
    path: string,
    size: number,
    offset: number,
    dtype: number,
    strides: readonly number[],
  ): void;
  gatherRows(x: Handle, index: Handle, y: Handle): void;
  scatterAddRows(x: Handle, index: Handle, y: Handle): void;
}
