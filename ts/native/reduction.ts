import type { Handle } from './tensors.ts';

/** native/binding/reduction.cpp. */
export interface ReductionNative {
  /** f: 0 sum, 1 mean, 2 max; bit i of `axes` reduces axis i. */
  reduce(f: number, x: Handle, axes: number, y: Handle): void;
  argmax(x: Handle, y: Handle): void;
  logSumExp(x: Handle, y: Handle): void;
  logSumExpBackward(x: Handle, y: Handle, dy: Handle, dx: Handle): void;
}
