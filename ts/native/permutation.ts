import type { Handle } from './tensors.ts';

/** native/binding/permutation.cpp; `policy` is the position in the enum of native/ops/permutation.h. */
export interface PermutationNative {
  dispatchPlan(
    experts: Handle,
    capacity: Handle | undefined,
    weights: Handle | undefined,
    policy: number,
    slotMajor: boolean,
    seed: number,
    rows: Handle,
    offsets: Handle,
    inverse: Handle,
    dropped: Handle,
  ): void;
}
