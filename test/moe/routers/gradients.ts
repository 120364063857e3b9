import { expect } from 'vitest';
import type { Router, Routing } from '../../../ts/moe/index.ts';
import { add, multiply } from '../../../ts/tensor/elementwise.ts';
import { noGrad, parameter, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { sum } from '../../../ts/tensor/reduction.ts';
import { slope } from '../golden-logits.ts';
import { dot, rowsOf } from './plain-numbers.ts';
import { type PassOptions, pass, tokensOf } from './routed.ts';

/** A sum of everything differentiable, every element with another factor. */
function objective(routing: Routing, losses: Map<string, { value: Tensor }>): Tensor {
  const parts = [routing.weights, routing.extra, routing.logits, ...[...losses.values()].map((l) => l.value)];
  let total: Tensor | undefined;
  for (const t of parts) {
    if (!t) continue;
    const factors = tensor(
      Array.from({ length: t.size }, (_, i) => Math.sin(i + 1)),
      t.shape,
      { dtype: t.dtype },
    );
    const part = sum(multiply(t, factors));
    total = total ? add(total, part) : part;
  }
  return total!;
}

/**
 * Backward against finite differences in f64, of tokens and every parameter. Where a gradient is on purpose not the slope of what the router
 * computes, `adjust` makes of it what the slope should be.
 */
export function checkGradients(
  router: Router,
  values: readonly number[],
  {
    adjust,
    ...options
  }: PassOptions & { adjust?: (name: string, gradient: number[], parameter: Tensor) => number[] } = {},
): void {
  using tokens = parameter(tokensOf(values, router.width));
  const parameters = [['tokens', tokens] as const, ...router.namedParameters()];
  const taught = pass(router, tokens, options, (routing, losses) => {
    const total = objective(routing, losses);
    if (total.requiresGrad || router.parameterCount() > 0) total.backward();
    return total.item();
  });
  const gradients = parameters.map(([, t]) => t.grad?.toArray() ?? new Array<number>(t.size).fill(0));
  router.zeroGrad();
  tokens.grad?.dispose();
  const value = () =>
    noGrad(() => pass(router, tokens, options, (routing, losses) => objective(routing, losses).item()));
  expect(value(), 'without a graph').toBe(taught);
  for (const [i, [name, t]] of parameters.entries()) {
    const gradient = adjust?.(name, gradients[i]!, t) ?? gradients[i]!;
    for (let at = 0; at < t.size; at += Math.max(1, Math.floor(t.size / 8))) {
      const numeric = slope(t, at, value);
      const exact = gradient[at]!;
      expect(Math.abs(exact - numeric), `${name}[${at}]: ${exact}, numerically ${numeric}`).toBeLessThan(
        5e-8 * Math.max(1, Math.abs(numeric)),
      );
    }
  }
}

/** The part of a gradient that does not point along its row: all there is where a pass rescales rows and takes no gradient of that. */
export const acrossRows = (gradient: readonly number[], parameter: Tensor): number[] => {
  const width = parameter.shape[1]!;
  const rows = rowsOf(parameter.toArray(), width);
  return rowsOf(gradient, width).flatMap((g, i) => {
    const along = dot(g, rows[i]!) / dot(rows[i]!, rows[i]!);
    return g.map((v, j) => v - along * rows[i]![j]!);
  });
};
