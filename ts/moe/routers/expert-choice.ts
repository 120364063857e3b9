import { z } from 'zod';
import { expertLists } from '../../tensor/gating.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { softmax } from '../../tensor/softmax.ts';
import type { RoutingContext } from '../context.ts';
import { capacityOf, maskedCapacityOf } from '../dispatch/capacity.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { gateRouting } from './gate-routing.ts';
import { ScoringRouter } from './scoring.ts';
import { ownWeightOptions, ruleOf } from './top-k-rule.ts';

const options = ownWeightOptions.omit({ expertDropout: true }).extend({
  /** Each expert takes ceil(capacityFactor · tokens / experts) tokens; default the layer's topK. */
  capacityFactor: z.number().positive().optional(),
});
type Options = z.output<typeof options>;

/**
 * Expert choice (Zhou et al., arXiv 2202.09368): softmax over experts, then every expert takes the tokens that give it most, as many as every
 * other, weighted by that probability. A token may get none. Which tokens an expert takes depends on the whole batch: a causal model looks
 * ahead, and generating token by token routes differently.
 */
class ExpertChoiceRouter extends ScoringRouter {
  readonly #factor: number;

  constructor(given: Options, place: RouterPlace) {
    const own = {
      ...given,
      activationAfterTopK: false,
      expertDropout: 0,
      balance: given.balance ?? 'none',
    } as const;
    super({ ...ruleOf('softmax', own, place), weights: 'scores' }, own, place);
    this.#factor = given.capacityFactor ?? place.topK;
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const logits = this.logits(tokens, context);
    const taken = context.replayed ?? noGrad(() => this.#taken(logits, context));
    const chosen = this.choose(logits, context, { experts: taken, topK: taken.shape[1]! });
    return gateRouting(chosen, logits, { ...this.lossTerms, topK: this.topK }, context);
  }

  /** i32 [tokens, at most experts]: for every token the experts that take it, the most probable first. */
  #taken(logits: Tensor, { tokenMask }: RoutingContext): Tensor {
    const [count = 0, experts = 0] = logits.shape;
    const each = tokenMask
      ? maskedCapacityOf(this.#factor, 1, tokenMask, experts)
      : capacityOf(this.#factor, 1, count, experts);
    return expertLists(softmax(logits), { each, tokenMask });
  }
}

registerRouter('expert-choice', {
  summary: 'experts choose tokens; looks ahead',
  unlikeDense: () =>
    'a token is weighted by the probabilities of the experts that take it, which do not sum to 1, and may be taken by none',
  options,
  tokenCost: ({ capacityFactor }, { experts, topK }) => ({
    experts: Math.min(experts, capacityFactor ?? topK),
  }),
  create: (given, place) => new ExpertChoiceRouter(given, place),
});
