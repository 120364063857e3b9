import { createRouter, type RouterPlace, type TopKRouter } from '../../ts/moe/index.ts';
import { type Tensor, tensor } from '../../ts/tensor/index.ts';

/** The logits behind the golden numbers of LibMoE's routers: [tokens, experts]. */
export const goldenLogits = (experts: number, tokens = 6, shift = 0): number[] =>
  Array.from({ length: tokens * experts }, (_, n) => {
    const t = Math.floor(n / experts);
    const i = n % experts;
    return 2 * Math.sin(1.3 * t + 0.7 * i + 0.1 * t * i + shift);
  });

/** A router whose logits for {@link oneHot} tokens are the given ones: its matrix is their transpose. */
export function routerWith(
  name: string,
  logits: readonly number[],
  place: Partial<RouterPlace> & { experts: number; topK: number },
  options: object = {},
  outputs = place.experts,
): TopKRouter {
  const tokens = logits.length / outputs;
  const full = { width: tokens, layer: 0, layers: 1, compat: 'fixed', dtype: 'f64', ...place } as const;
  const router = createRouter(name, options, full) as TopKRouter;
  router.weight.write(Array.from(logits, (_, n) => logits[(n % tokens) * outputs + Math.floor(n / tokens)]!));
  return router;
}

/** Token t is the t-th unit vector. */
export const oneHot = (tokens: number): Tensor =>
  tensor(
    Array.from({ length: tokens * tokens }, (_, n) => (n % (tokens + 1) === 0 ? 1 : 0)),
    [tokens, tokens],
    { dtype: 'f64' },
  );

/** Central difference of `f` at element `at` of `x`. */
export function slope(x: Tensor, at: number, f: () => number, h = 1e-5): number {
  const values = x.toArray();
  const moved = (by: number): number => {
    x.write(values.map((v, i) => (i === at ? v + by : v)));
    return f();
  };
  const difference = (moved(h) - moved(-h)) / (2 * h);
  x.write(values);
  return difference;
}
