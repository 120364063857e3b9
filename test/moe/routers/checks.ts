import { expect } from 'vitest';
import {
  createRouter,
  ForwardContext,
  type ForwardOptions,
  MoeLayer,
  type Router,
  type RouterPlace,
  type Routing,
} from '../../../ts/moe/index.ts';
import { add, multiply, scale } from '../../../ts/tensor/elementwise.ts';
import { noGrad, parameter, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { sum } from '../../../ts/tensor/reduction.ts';
import { slope } from '../golden-logits.ts';

/** Numbers without pattern, the same every time. */
export const wave = (n: number, salt = 0): number[] =>
  Array.from({ length: n }, (_, i) => Math.sin(1.7 * i + 0.3 * Math.cos(2.9 * i + salt) + salt));

export const f64 = (values: readonly number[], shape: readonly number[]): Tensor =>
  tensor([...values], shape, { dtype: 'f64' });

export const softmaxOf = (row: readonly number[]): number[] => {
  const e = row.map((x) => Math.exp(x));
  const all = e.reduce((a, x) => a + x, 0);
  return e.map((x) => x / all);
};
export const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((s, x, i) => s + x * b[i]!, 0);
export const normOf = (a: readonly number[]): number => Math.sqrt(dot(a, a));
export const rowsOf = (flat: readonly number[], width: number): number[][] =>
  Array.from({ length: flat.length / width }, (_, r) => flat.slice(r * width, (r + 1) * width));
/** Indices of the k largest, best first. */
export const best = (row: readonly number[], k: number): number[] =>
  row
    .map((_, i) => i)
    .sort((a, b) => row[b]! - row[a]! || a - b)
    .slice(0, k);

/**
 * Softmax, top k, weights and losses from logits, one token at a time; with `bias`: choice by p + bias, weights a softmax over the chosen sums.
 * `balance(slots)` counts so many choices of each token.
 */
export function softmaxRouting(logits: number[][], k: number, bias?: number[]) {
  const p = logits.map(softmaxOf);
  const shifted = bias ? p.map((row) => row.map((v, i) => v + bias[i]!)) : p;
  const experts = shifted.map((row) => best(row, k));
  const weights = experts.flatMap((chosen, t) => {
    if (bias) return softmaxOf(chosen.map((e) => shifted[t]![e]!));
    const all = chosen.reduce((a, e) => a + p[t]![e]!, 0);
    return chosen.map((e) => p[t]![e]! / all);
  });
  const mean = (e: number) => p.reduce((a, row) => a + row[e]!, 0) / p.length;
  const balance = (slots: number) =>
    p[0]!.reduce((sum, _, e) => {
      const f = experts.flatMap((c) => c.slice(0, slots)).filter((i) => i === e).length / (p.length * slots);
      return sum + p[0]!.length * f * mean(e);
    }, 0);
  const z =
    logits.reduce((a, row) => a + Math.log(row.reduce((s, l) => s + Math.exp(l), 0)) ** 2, 0) / p.length;
  return { experts: experts.flat(), weights, balance, z };
}

/** A router in f64. */
export const routerFor = <R extends Router>(
  name: string,
  place: Partial<RouterPlace> & { width: number; experts: number; topK: number },
  options: object = {},
): R => createRouter(name, options, { layer: 0, layers: 1, compat: 'fixed', dtype: 'f64', ...place }) as R;

export function near(actual: readonly number[], expected: readonly number[], digits = 9): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => {
    expect(x, `element ${i}`).toBeCloseTo(expected[i]!, digits);
  });
}

/** Everything of one pass, read; each loss by its name. */
export function routed(router: Router, tokens: readonly number[], width: number, pass: ForwardOptions = {}) {
  return noGrad(() =>
    scope(() => {
      using context = new ForwardContext({ training: true, ...pass });
      const routing = router.route(
        f64(tokens, [tokens.length / width, width]),
        context.routing(0),
      ) as Routing;
      for (const loss of routing.losses ?? []) context.addRoutingLoss('0', loss);
      return {
        experts: routing.experts.toArray(),
        weights: routing.weights.toArray(),
        logits: routing.logits!.toArray(),
        shape: routing.experts.shape,
        capacity: routing.capacity,
        losses: new Map(context.losses().map((l) => [l.name, l.value.item()])),
        coefficients: new Map(context.losses().map((l) => [l.name, l.coefficient])),
        counts: routing.statistics!.counts.toArray(),
        summary: routing.statistics!.summary.toArray(),
      };
    }),
  );
}

/**
 * Compares the gradient of (weights · numbers + every loss) with central differences, for the tokens and for every parameter of the router.
 * `adjust` corrects a gradient that is meant to differ from the slope.
 */
export function checkGradients(
  router: Router,
  options: {
    width: number;
    tokens?: number;
    pass?: ForwardOptions;
    digits?: number;
    adjust?: (name: string, gradient: number[], parameter: Tensor) => number[];
  },
): void {
  const { width, tokens = 6, pass = {}, digits = 7, adjust } = options;
  using x = parameter(f64(wave(tokens * width, 1), [tokens, width]));
  const sequences = Int32Array.from([0, Math.ceil(tokens / 2), tokens]);
  const objective = (): Tensor => {
    const sequenceOffsets = tensor(sequences);
    using context = new ForwardContext({ training: true, sequenceOffsets, seed: 3, ...pass });
    const routing = router.route(x, context.routing(0)) as Routing;
    for (const loss of routing.losses ?? []) context.addRoutingLoss('0', loss);
    const { weights } = routing;
    let total = sum(multiply(weights, f64(wave(weights.size, 2), weights.shape)));
    for (const { value, coefficient } of context.losses()) total = add(total, scale(sum(value), coefficient));
    return total;
  };
  const parameters = [...router.namedParameters(), ['tokens', x] as const];
  scope(() => objective().backward());
  for (const [name, value] of parameters) {
    let gradient = value.grad?.toArray() ?? new Array<number>(value.size).fill(0);
    gradient = adjust?.(name, gradient, value) ?? gradient;
    const stride = Math.max(1, Math.floor(value.size / 8));
    for (let at = 0; at < value.size; at += stride) {
      const numeric = slope(value, at, () => noGrad(() => scope(() => objective().item())));
      expect(gradient[at]!, `${name} ${at}`).toBeCloseTo(numeric, digits);
    }
    value.grad?.dispose();
    value.grad = undefined;
  }
}

/** One token, as many choices as experts, one expert alone, masked tokens, tokens that are all alike or zero: finite, and in range. */
export function checkEdges(
  name: string,
  options: object = {},
  compat: RouterPlace['compat'] = 'fixed',
): void {
  const width = 6;
  for (const [experts, topK, count] of [
    [4, 2, 1],
    [3, 3, 5],
    [1, 1, 4],
    [4, 2, 5],
  ] as const)
    for (const kind of ['waves', 'alike', 'zero'] as const)
      scope(() => {
        using layer = new MoeLayer({
          router: { name, ...options },
          experts,
          topK,
          dModel: width,
          compat,
          expert: { hidden: 5 },
          dtype: 'f64',
        });
        const row = { waves: wave(count * width), alike: wave(width), zero: [0] }[kind];
        using x = parameter(
          f64(
            Array.from({ length: count * width }, (_, i) => row[i % row.length]!),
            [count, width],
          ),
        );
        const tokenMask =
          count > 1
            ? tensor(
                Array.from({ length: count }, (_, t) => (t === 1 ? 0 : 1)),
                [count],
                { dtype: 'bool' },
              )
            : undefined;
        using context = new ForwardContext({ training: true, step: 1, totalSteps: 4, tokenMask });
        const out = layer.forward(x, context);
        let total = sum(multiply(out, out));
        for (const { value, coefficient } of context.losses())
          total = add(total, scale(sum(value), coefficient));
        const at = `${name} ${compat} ${experts} experts, top ${topK}, ${count} ${kind}`;
        expect(Number.isFinite(total.item()), at).toBe(true);
        total.backward();
        for (const [field, value] of [...layer.namedParameters(), ['tokens', x] as const])
          for (const g of value.grad?.toArray() ?? [])
            expect(Number.isFinite(g), `${at}: ${field}`).toBe(true);
        if (count > 1) expect(out.toArray().slice(width, 2 * width)).toEqual(new Array(width).fill(0));
        layer.zeroGrad();
        x.grad?.dispose();
      });
}

/** The router refuses each of these behaviours, and says which it has. */
export function checkRefusal(name: string, compats: readonly RouterPlace['compat'][]): void {
  for (const compat of compats)
    expect(() => routerFor(name, { width: 4, experts: 3, topK: 1, compat })).toThrow(
      new RegExp(`ERR_LIBMOE_CONFIG.*"${name}" has no compat "${compat}"`),
    );
}
