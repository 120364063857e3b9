import { registerRouter } from '../registry.ts';
import { TopKRouter } from './top-k.ts';
import { ruleOf, topKOptions, undivided } from './top-k-rule.ts';

/**
 * SMoE: softmax over experts, the topK best, their probabilities divided by their sum.
 * `libmoe` counts only first choices in the vision-language balance loss and starts every layer alike. `original` is the form of Switch and
 * Mixtral (Fedus et al., arXiv 2101.03961; Jiang et al., arXiv 2401.04088): the same routing, balance over the whole batch instead of
 * per sequence; without the noise of Shazeer et al. (arXiv 1701.06538).
 */
registerRouter('smoe', {
  summary: 'softmax, the top k',
  unlikeDense: undivided,
  options: topKOptions,
  compat: ['fixed', 'libmoe', 'original'],
  create(options, place) {
    const rule = ruleOf('softmax', options, place);
    if (place.compat === 'original') rule.losses = { ...rule.losses, over: 'batch' };
    return new TopKRouter(rule, options, place);
  },
});
