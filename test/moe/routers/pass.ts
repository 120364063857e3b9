import { expect } from 'vitest';
import {
  type AnyRouting,
  createRouter,
  ForwardContext,
  type ForwardOptions,
  type Router,
  type RouterPlace,
  type Routing,
  type RoutingContext,
  withSlots,
} from '../../../ts/moe/index.ts';
import { add, multiply } from '../../../ts/tensor/elementwise.ts';
import { parameter, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { sum } from '../../../ts/tensor/reduction.ts';
import { slope } from '../golden-logits.ts';

/** The same width and layers for every router of these tests. */
export function made(
  name: string,
  place: Partial<RouterPlace> & { experts: number; topK: number },
  options: object = {},
): Router {
  const full = {
    width: 5,
    layer: 0,
    layers: 1,
    compat: 'fixed',
    shared: true,
    dtype: 'f64',
    ...place,
  } as const;
  return createRouter(name, options, full);
}

/** `count` tokens of `width` numbers between −2 and 2. */
export const waves = (count: number, width = 5): number[] =>
  Array.from({ length: count * width }, (_, i) => 2 * Math.sin(1.7 * i + 0.3));

export const tokensOf = (values: readonly number[], width = 5): Tensor =>
  tensor([...values], [values.length / width, width], { dtype: 'f64' });

type Options = ForwardOptions & { layer?: number; before?: (context: ForwardContext) => void };

/** Routes and hands everything to `use`, inside a scope. */
export function pass<T>(
  router: Router,
  tokens: Tensor | (() => Tensor),
  { layer = 0, before, ...options }: Options,
  use: (
    routing: Routing,
    losses: Map<string, { value: Tensor; coefficient: number }>,
    given: RoutingContext,
  ) => T,
): T {
  return scope(() => {
    using context = new ForwardContext(options);
    before?.(context);
    const given = context.routing(layer);
    const x = typeof tokens === 'function' ? tokens() : tokens;
    const routing = withSlots(router.route(x, given) as AnyRouting, x.shape[0]!);
    for (const loss of routing.losses ?? []) context.addRoutingLoss(String(layer), loss);
    return use(routing, new Map(context.losses().map((l) => [l.name, l])), given);
  });
}

/** Everything a pass gives, as numbers. */
export function read(router: Router, tokens: Tensor | (() => Tensor), options: Options = { training: true }) {
  return pass(router, tokens, options, (routing, losses) => ({
    experts: routing.experts.toArray(),
    weights: routing.weights.toArray(),
    choices: routing.choices?.toArray(),
    extra: routing.extra?.toArray(),
    capacity: routing.capacity,
    counts: routing.statistics?.counts.toArray(),
    losses: Object.fromEntries([...losses].map(([name, l]) => [name, l.value.item()])),
    coefficients: Object.fromEntries([...losses].map(([name, l]) => [name, l.coefficient])),
  }));
}

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

/** Finite differences in f64 against backward, of tokens and every parameter except those named. */
export function checkGradients(
  router: Router,
  values: readonly number[],
  options: Options,
  width = 5,
  except: readonly string[] = [],
): void {
  const tokens = parameter(tokensOf(values, width));
  try {
    const parameters = new Map(
      [['tokens', tokens] as const, ...router.namedParameters()].filter(([name]) => !except.includes(name)),
    );
    pass(router, tokens, options, (routing, losses) => {
      const total = objective(routing, losses);
      if (total.requiresGrad || router.parameterCount() > 0) total.backward();
    });
    const gradients = new Map(
      [...parameters].map(([name, t]) => [name, t.grad?.toArray() ?? new Array<number>(t.size).fill(0)]),
    );
    router.zeroGrad();
    tokens.grad?.dispose();
    const value = () => pass(router, tokens, options, (routing, losses) => objective(routing, losses).item());
    for (const [name, t] of parameters)
      for (let at = 0; at < t.size; at += Math.max(1, Math.floor(t.size / 7))) {
        const numeric = slope(t, at, value);
        const exact = gradients.get(name)![at]!;
        expect(Math.abs(exact - numeric), `${name}[${at}]: ${exact}, numerically ${numeric}`).toBeLessThan(
          1e-6 * Math.max(1, Math.abs(numeric)),
        );
      }
  } finally {
    tokens.dispose();
  }
}

/** Row by row: exp(x) / Σ exp(x). */
export function softmaxOf(row: readonly number[]): number[] {
  const top = Math.max(...row);
  const e = row.map((x) => Math.exp(x - top));
  const z = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / z);
}

export const rowsOf = (values: readonly number[], width: number): number[][] =>
  Array.from({ length: values.length / width }, (_, r) => values.slice(r * width, (r + 1) * width));

/** Indices of the k largest, ties to the lower one. */
export const best = (row: readonly number[], k: number): number[] =>
  row
    .map((_, i) => i)
    .sort((a, b) => row[b]! - row[a]! || a - b)
    .slice(0, k);

export function near(actual: readonly number[], expected: readonly number[], digits = 9): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => {
    expect(x, `element ${i}`).toBeCloseTo(expected[i]!, digits);
  });
}

/** tokens Wᵀ in plain numbers. */
export const product = (x: readonly number[], w: readonly number[], width: number): number[] =>
  rowsOf(x, width).flatMap((t) => rowsOf(w, width).map((r) => r.reduce((a, v, i) => a + v * t[i]!, 0)));
