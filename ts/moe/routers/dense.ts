import { registerRouter } from '../registry.ts';
import { TopKRouter } from './top-k.ts';
import { ownWeightOptions, ruleOf } from './top-k-rule.ts';

const options = ownWeightOptions.omit({ expertDropout: true });

/**
 * Every token goes to all experts, weighted by the softmax: the mixture of Jordan and Jacobs (Neural Computation 1994), an upper control for
 * sparse routers. `topK` of the layer is not used. No balance loss unless asked for: all choices are equal by construction.
 */
registerRouter('dense', {
  summary: 'all experts, weighted by the softmax (control)',
  options,
  tokenCost: (_, { experts }) => ({ experts }),
  create(given, place) {
    const own = {
      ...given,
      activationAfterTopK: false,
      expertDropout: 0,
      balance: given.balance ?? 'none',
    } as const;
    return new TopKRouter(ruleOf('softmax', own, place), own, { ...place, topK: place.experts });
  },
});
