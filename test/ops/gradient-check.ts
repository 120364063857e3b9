import { expect } from 'vitest';
import { noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';

/** Fixed weights without pattern, so that no gradient component cancels. */
function weights(n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => Math.sin(12.9898 * (i + 1)) + 0.3 * Math.cos(4.7 * i));
}

function weightedSum(y: Tensor): number {
  const w = weights(y.size);
  return y.toArray().reduce((sum, v, i) => sum + v * w[i]!, 0);
}

/**
 * Compares the gradients that backward gives for sum(fn(inputs) · fixed weights) with central differences, for every element of every input
 * with requiresGrad. Inputs are f64. `tolerance` is relative to the largest difference quotient of the input (at least 1).
 */
export function gradientCheck(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: Tensor[],
  options: { tolerance?: number } = {},
): void {
  const { tolerance = 1e-6 } = options;
  scope(() => {
    const y = fn(...inputs);
    y.backward(tensor(weights(y.size), y.shape));
  });
  for (const [index, input] of inputs.entries()) {
    if (!input.requiresGrad) continue;
    expect(input.dtype, 'gradient checks run in f64').toBe('f64');
    const values = Float64Array.from(input.toArray());
    const actual = input.grad?.toArray() ?? [];
    expect(actual.length, `gradient of input ${index}`).toBe(values.length);
    const expected = Array.from(values, (value, i) => {
      const step = 1e-5 * Math.max(1, Math.abs(value));
      const at = (v: number) => {
        values[i] = v;
        input.write(values);
        return noGrad(() => scope(() => weightedSum(fn(...inputs))));
      };
      const slope = (at(value + step) - at(value - step)) / (2 * step);
      at(value);
      return slope;
    });
    const largest = Math.max(1, ...expected.map(Math.abs));
    const errors = expected.map((e, i) => {
      const error = Math.abs(actual[i]! - e);
      return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
    });
    const worst = errors.reduce((w, error, i) => (error > errors[w]! ? i : w), 0);
    expect(
      errors[worst] ?? 0,
      `input ${index}, element ${worst}: ${actual[worst]} against ${expected[worst]}`,
    ).toBeLessThan(tolerance * largest);
    input.grad?.dispose();
    input.grad = undefined;
  }
}
