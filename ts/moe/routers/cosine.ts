import { registerRouter } from '../registry.ts';
import { CosineRouter, cosineOptions } from './cosine-router.ts';

/**
 * Cosine router of LibMoE's first version: logits are the cosines of token and expert row in full width, so that only directions count
 * (after Chi et al., "On the Representation Collapse of Sparse Mixture of Experts", arXiv 2204.09179; their own form is `xmoe`).
 * `fixed` divides the chosen probabilities by their sum and may have a bias on the logits and a temperature. `libmoe` adds a bias to the
 * probabilities, and its weights are a second softmax over the chosen sums.
 */
registerRouter('cosine', {
  summary: 'cosines in full width, as in LibMoE v1',
  options: cosineOptions,
  compat: ['fixed', 'libmoe'],
  create(options, place) {
    const double = place.compat === 'libmoe';
    const rule = { ofTokens: {}, ofRows: {}, double, bias: options.bias ?? double };
    return new CosineRouter(rule, options, place);
  },
});
