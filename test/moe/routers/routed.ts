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
import { noGrad, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';

/** A router in f64, the only layer of its model and beside a shared expert unless `place` says otherwise; tokens are 5 wide. */
export function made<R extends Router = Router>(
  name: string,
  place: Partial<RouterPlace> & { experts: number; topK: number },
  options: object = {},
): R {
  const full = {
    width: 5,
    layer: 0,
    layers: 1,
    compat: 'fixed',
    shared: true,
    dtype: 'f64',
    ...place,
  } as const;
  return createRouter(name, options, full) as R;
}

export const tokensOf = (values: readonly number[], width = 5): Tensor =>
  tensor([...values], [values.length / width, width], { dtype: 'f64' });

/** Plain numbers are cut into tokens of the router's width; what a function makes is freed with the pass. */
export type Tokens = Tensor | readonly number[] | (() => Tensor);

/** `before` is called with the context of a training pass (unless `training` is false) before the router of `layer` runs. */
export type PassOptions = ForwardOptions & { layer?: number; before?: (context: ForwardContext) => void };

/** Routes and hands everything to `use`, inside a scope. */
export function pass<T>(
  router: Router,
  tokens: Tokens,
  { layer = 0, before, ...options }: PassOptions,
  use: (
    routing: Routing,
    losses: Map<string, { value: Tensor; coefficient: number }>,
    given: RoutingContext,
  ) => T,
): T {
  return scope(() => {
    using context = new ForwardContext({ training: true, ...options });
    before?.(context);
    const given = context.routing(layer);
    const x = tensorOf(router, tokens);
    const routing = withSlots(router.route(x, given) as AnyRouting, x.shape[0]!);
    for (const loss of routing.losses ?? []) context.addRoutingLoss(String(layer), loss);
    return use(routing, new Map(context.losses().map((l) => [l.name, l])), given);
  });
}

function tensorOf(router: Router, tokens: Tokens): Tensor {
  if (typeof tokens === 'function') return tokens();
  return 'shape' in tokens ? tokens : tokensOf(tokens, router.width);
}

/** Everything a pass gives, as numbers. */
export function read(router: Router, tokens: Tokens, options: PassOptions = {}) {
  return noGrad(() =>
    pass(router, tokens, options, (routing, losses) => ({
      experts: routing.experts.toArray(),
      slots: routing.experts.shape[1]!,
      weights: routing.weights.toArray(),
      logits: routing.logits?.toArray() ?? [],
      choices: routing.choices?.toArray(),
      extra: routing.extra?.toArray(),
      capacity: routing.capacity,
      counts: routing.statistics?.counts.toArray() ?? [],
      summary: routing.statistics?.summary.toArray() ?? [],
      losses: Object.fromEntries([...losses].map(([name, l]) => [name, l.value.item()])),
      coefficients: Object.fromEntries([...losses].map(([name, l]) => [name, l.coefficient])),
    })),
  );
}
