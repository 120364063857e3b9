import { registerRouter } from '../registry.ts';
import { TopKRouter } from './top-k.ts';
import { ruleOf, topKOptions } from './top-k-rule.ts';

/**
 * The routed part of DeepSeekMoE and DeepSeek-V2 (Dai et al., arXiv 2401.06066; arXiv 2405.04434): softmax over the routed experts, the topK best,
 * beside an expert that sees every token, which the layer owns. `topK` counts routed experts alone.
 * `fixed` divides the chosen probabilities by their sum, as LibMoE does; `libmoe` counts only first choices in the vision-language balance loss
 * and starts every layer alike; `original` leaves the probabilities as they are.
 */
registerRouter('shared-v2', {
  summary: 'DeepSeek-V2: softmax beside a shared expert',
  unlikeDense: ({ activationAfterTopK }, { compat }) =>
    compat === 'original' && !activationAfterTopK
      ? 'the chosen probabilities are not divided by their sum (compat original)'
      : undefined,
  options: topKOptions,
  compat: ['fixed', 'libmoe', 'original'],
  sharedExpert: true,
  create(options, place) {
    const rule = ruleOf('softmax', options, place);
    if (place.compat === 'original' && !options.activationAfterTopK) rule.weights = 'scores';
    return new TopKRouter(rule, options, place);
  },
});
