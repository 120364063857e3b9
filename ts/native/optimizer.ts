import type { Handle } from './tensors.ts';

type Handles = readonly Handle[];

/** native/binding/optimizer.cpp. `masters`: empty, or one handle per parameter (the parameter's own where it needs none). */
export interface OptimizerNative {
  /** options: [learningRate, beta1, beta2, epsilon, gradientScale, step]. */
  adamw(
    parameters: Handles,
    gradients: Handles,
    firstMoments: Handles,
    secondMoments: Handles,
    masters: Handles,
    weightDecays: readonly number[],
    options: readonly number[],
  ): void;
  /** options: [learningRate, momentum, gradientScale, nesterov as 0 or 1]; `momenta` may be empty. */
  sgd(
    parameters: Handles,
    gradients: Handles,
    momenta: Handles,
    masters: Handles,
    weightDecays: readonly number[],
    options: readonly number[],
  ): void;
  globalNorm(tensors: Handles): number;
  nonFinite(tensors: Handles): number;
}
