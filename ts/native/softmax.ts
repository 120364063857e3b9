import type { Handle } from './tensors.ts';

/** native/binding/softmax.cpp, over the last dimension. */
export interface SoftmaxNative {
  softmax(x: Handle, y: Handle, logarithm: boolean): void;
  softmaxBackward(y: Handle, dy: Handle, dx: Handle, logarithm: boolean): void;
}
