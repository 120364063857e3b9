import type { Handle } from './tensors.ts';

/** native/binding/norm.cpp; tensors without a rows-times-width shape are seen as [product of the others, last dimension]. */
export interface NormNative {
  norm(
    x: Handle,
    weight: Handle,
    bias: Handle | undefined,
    y: Handle,
    mean: Handle | undefined,
    inverse: Handle,
    epsilon: number,
  ): void;
  normBackward(
    x: Handle,
    weight: Handle,
    dy: Handle,
    mean: Handle | undefined,
    inverse: Handle,
    dx: Handle | undefined,
    dweight: Handle | undefined,
    accumulateWeight: boolean,
    dbias: Handle | undefined,
    accumulateBias: boolean,
  ): void;
  inverseNorms(x: Handle, floor: number, plus: number, y: Handle): void;
  inverseNormsBackward(x: Handle, floor: number, y: Handle, dy: Handle, dx: Handle): void;
}
