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
    factor: Handle | undefined,
  ): void;
  /** options: [learningRate, momentum, gradientScale, nesterov as 0 or 1]; `momenta` may be empty. */
  sgd(
    parameters: Handles,
    gradients: Handles,
    momenta: Handles,
    masters: Handles,
    weightDecays: readonly number[],
    options: readonly number[],
    factor: Handle | undefined,
  ): void;
  /** norm f64 [1]. */
  globalNorm(tensors: Handles, norm: Handle): void;
  /** norm and factor f64 [1]. */
  clipFactor(norm: Handle, losses: Handles, limit: number, factor: Handle): void;
  nonFinite(tensors: Handles): number;
}
