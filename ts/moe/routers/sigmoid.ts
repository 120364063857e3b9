import { registerRouter } from '../registry.ts';
import { TopKRouter } from './top-k.ts';
import { ruleOf, topKOptions, undivided, withLibmoeStart } from './top-k-rule.ts';

/**
 * σ-MoE: every expert scored by its own sigmoid, the topK best, scores divided by their sum. The vision-language flavour balances the softmax
 * of the logits, the language flavour the sigmoids divided by their sum.
 * `libmoe` counts only first choices and starts every layer alike (vision-language), with the std 0.02 whatever `init` says.
 * `original` (Csordás et al., "Approximating Two-Layer Feedforward Networks for Efficient Transformers", arXiv 2310.10837): scores as they are,
 * rows of one norm at the start, dropout of whole experts, balance by the entropy of the batch's mean softmax.
 */
registerRouter('sigmoid', {
  summary: 'σ-MoE: every expert scored by its own sigmoid',
  unlikeDense(given, { compat }) {
    if (compat === 'original' && given.normalise !== true)
      return 'the weights are the sigmoids as they are (compat original)';
    return given.activationAfterTopK
      ? 'the weights are plain sigmoids of the chosen logits (activationAfterTopK)'
      : undivided(given);
  },
  options: topKOptions,
  compat: ['fixed', 'libmoe', 'original'],
  create(options, place) {
    const rule = ruleOf('sigmoid', options, place);
    withLibmoeStart(rule, options, place.compat);
    if (place.compat === 'original') {
      if (options.normalise !== true) rule.weights = 'scores';
      rule.equalRows = true;
      rule.dropWholeExperts = true;
      rule.losses = { ...rule.losses, balance: options.balance ?? 'global' };
    }
    return new TopKRouter(rule, options, place);
  },
});
