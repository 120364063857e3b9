import type { Handle } from './tensors.ts';

/** native/binding/random.cpp. */
export interface RandomNative {
  randomUniform(y: Handle, seed: number, stream: number, low: number, high: number): void;
  randomUniformRows(y: Handle, streams: Handle, seed: number, low: number, high: number): void;
  randomNormal(y: Handle, seed: number, stream: number, mean: number, std: number): void;
  randomTruncatedNormal(y: Handle, seed: number, stream: number, std: number, bound: number): void;
  randomBernoulli(y: Handle, seed: number, stream: number, probability: number): void;
  randomPermutation(y: Handle, seed: number, stream: number): void;
}
