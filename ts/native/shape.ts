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
  gatherRows(x: Handle, index: Handle, y: Handle): void;
  scatterAddRows(x: Handle, index: Handle, y: Handle): void;
}
