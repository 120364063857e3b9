import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { multiply } from '../../tensor/elementwise.ts';
import type { Tensor } from '../../tensor/index.ts';
import { uniform } from '../../tensor/random.ts';
import type { RoutingContext } from '../context.ts';
import { capacityOf, maskedCapacityOf } from '../dispatch/capacity.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import type { Routing } from '../routing.ts';
import { widen } from './gate-routing.ts';
import { TopKRouter } from './top-k.ts';
import { ownWeightOptions, ruleOf } from './top-k-rule.ts';

const factor = z.number().positive().nullable();

const switchOptions = ownWeightOptions.extend({
  /** Slots of an expert are ceil(factor · topK · tokens / experts), in training and otherwise; null leaves it to the layer. */
  capacityFactor: factor.default(1.25),
  evaluationCapacityFactor: factor.default(2),
  /** In training the router's input is multiplied, element by element, by numbers from [1 − jitter, 1 + jitter]. */
  jitter: z.number().min(0).lt(1).default(0),
});
type SwitchOptions = z.output<typeof switchOptions>;

class SwitchRouter extends TopKRouter {
  readonly experts: number;
  readonly #options: SwitchOptions;

  constructor(options: SwitchOptions, place: RouterPlace) {
    const all = { ...options, activationAfterTopK: false };
    const rule = ruleOf('softmax', all, place);
    rule.weights = 'scores';
    rule.losses = { ...rule.losses, over: 'batch' };
    super(rule, all, place);
    this.experts = place.experts;
    this.#options = options;
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    const { capacityFactor, evaluationCapacityFactor } = this.#options;
    const routing = super.route(this.#jittered(tokens, context), context);
    const allowed = context.training ? capacityFactor : evaluationCapacityFactor;
    if (allowed === null) return routing;
    const { topK, experts } = this;
    const capacity = context.tokenMask
      ? maskedCapacityOf(allowed, topK, context.tokenMask, experts)
      : capacityOf(allowed, topK, tokens.shape[0]!, experts);
    return { ...routing, capacity };
  }

  #jittered(tokens: Tensor, context: RoutingContext): Tensor {
    const { jitter } = this.#options;
    if (!context.training || jitter === 0) return tokens;
    const x = widen(tokens)(tokens);
    const { dtype, device } = x;
    const seed = context.random('jitter');
    return multiply(x, uniform(x.shape, { seed, low: 1 - jitter, high: 1 + jitter, dtype, device }));
  }
}

/**
 * Switch (Fedus et al., "Switch Transformers", arXiv 2101.03961): softmax over experts, the best one, weighted by its probability as it is, so
 * that the router learns from a single choice; experts have a capacity, and the balance loss is that of the whole batch.
 * `fixed` takes any topK; `original` top 1 only.
 */
registerRouter('switch', {
  summary: 'softmax, the best one, with a capacity',
  unlikeDense: () =>
    'an expert is weighted by its probability, which is below 1, and choices beyond the capacity are dropped',
  options: switchOptions,
  compat: ['fixed', 'original'],
  create(options, place) {
    if (place.compat === 'original' && place.topK !== 1)
      fail(
        'ERR_LIBMOE_CONFIG',
        `router "switch" chooses one expert as in its paper, got topK ${place.topK}: set topK 1, or compat fixed`,
      );
    return new SwitchRouter(options, place);
  },
});
