import { fail } from '../native/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { nonFinite } from '../tensor/optimizer.ts';
import type { LossTerm } from './micro-step.ts';

/**
 * Throws ERR_LIBMOE_NOT_FINITE when the loss or the norm of the gradients is NaN or infinite, naming the step and where it began. Called
 * before anything is updated, so that parameters, optimizer and routers are as they were before the step.
 */
export function assertFinite(
  step: number,
  crossEntropy: number,
  terms: readonly LossTerm[],
  gradNorm: number,
  parameters: ReadonlyMap<string, Tensor>,
): void {
  if (
    Number.isFinite(gradNorm) &&
    Number.isFinite(crossEntropy) &&
    terms.every((term) => Number.isFinite(term.value))
  ) {
    return;
  }
  const where = locate(crossEntropy, terms, gradNorm, parameters);
  fail(
    'ERR_LIBMOE_NOT_FINITE',
    `step ${step}: ${where}. Nothing of this step was applied; lower the learning rate, clip gradients, or resume from a checkpoint`,
  );
}

function locate(
  crossEntropy: number,
  terms: readonly LossTerm[],
  gradNorm: number,
  parameters: ReadonlyMap<string, Tensor>,
): string {
  const names = [...parameters.keys()];
  const tensors = [...parameters.values()];
  const parameter = nonFinite(tensors);
  if (parameter >= 0) return `parameter ${names[parameter]} holds a NaN or an infinity already`;
  const term = terms.find(({ value }) => !Number.isFinite(value));
  if (term) return `the ${term.name} loss of layer ${term.layer} is ${term.value}`;
  if (!Number.isFinite(crossEntropy))
    return `the cross entropy is ${crossEntropy} although all parameters are finite`;
  // Gradients run from the last layer to the first, so what is wrong began at the last parameter that shows it.
  const withGradient = names.filter((name) => parameters.get(name)!.grad);
  for (const name of withGradient.reverse()) {
    if (nonFinite([parameters.get(name)!.grad!]) === 0)
      return `the loss is finite, but the gradient of ${name} is not`;
  }
  return `the norm of the gradients is ${gradNorm}: their squares overflow`;
}
