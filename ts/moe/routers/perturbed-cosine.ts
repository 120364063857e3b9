import { z } from 'zod';
import { registerRouter } from '../registry.ts';
import { CosineRouter, cosineOptions } from './cosine-router.ts';

const plus = z.number().positive().default(0.1);

/**
 * Perturbed cosine router (Nguyen et al., "Statistical Advantages of Perturbing Cosine Router in Mixture of Experts", arXiv 2405.14131): a
 * constant added to the norms of tokens and of expert rows before the division. No noise: the constants are the same in every pass.
 * `original` has an intercept per expert on the logits, as its model. `libmoe` is that of LibMoE's first version: a bias added to the
 * probabilities, and weights that are a second softmax over the chosen sums.
 */
registerRouter('perturbed-cosine', {
  summary: 'cosines, a constant added to the norms',
  options: cosineOptions.extend({
    /** What is added to the norm of a token, and of an expert's row. */
    tokenConstant: plus,
    expertConstant: plus,
    /** Project tokens to so many dimensions first; default: not. */
    projection: z.number().int().positive().optional(),
  }),
  compat: ['fixed', 'libmoe', 'original'],
  create(options, place) {
    const rule = {
      ofTokens: { plus: options.tokenConstant },
      ofRows: { plus: options.expertConstant },
      double: place.compat === 'libmoe',
      bias: options.bias ?? place.compat !== 'fixed',
      projection: options.projection,
    };
    return new CosineRouter(rule, options, place);
  },
});
