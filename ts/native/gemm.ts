import type { Handle } from './tensors.ts';

/** native/binding/gemm.cpp. */
export interface GemmNative {
  gemm(
    a: Handle,
    b: Handle,
    bias: Handle | null,
    c: Handle,
    transposeA: boolean,
    transposeB: boolean,
    accumulate: boolean,
    batched: boolean,
  ): void;
  columnSums(x: Handle, y: Handle, accumulate: boolean): void;
}
