import { z } from 'zod';
import { fail } from '../../native/index.ts';
import type { GateOptions } from '../../tensor/gating.ts';
import type { GateLossOptions } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';
import type { Compat } from '../router.ts';
import { initOption, type RouterInit, usualInit } from './first-values.ts';
import { lossesOf, lossOptions } from './loss-options.ts';

/** Options of every router that scores experts by one matrix. */
export const topKOptions = lossOptions.extend({
  /** How the matrix starts: { std, scheme, seeds }, or 'linear' for PyTorch's default. */
  init: initOption.optional(),
  /** Add a bias to the logits, zero at first. */
  bias: z.boolean().default(false),
  /** Choose by the scores, then apply the score function to the chosen logits alone. */
  activationAfterTopK: z.boolean().default(false),
  /** False: weights are the chosen scores themselves, which need not sum to 1 (OLMoE, Qwen2-MoE). Default: scores divided by their sum. */
  normalise: z.boolean().optional(),
  /** In training: probability that one element of the router's input, or one (token, expert) score, is left out. */
  inputDropout: z.number().min(0).lt(1).default(0),
  expertDropout: z.number().min(0).lt(1).default(0),
});
/** Of routers that weigh the chosen experts by a rule of their own. */
export const ownWeightOptions = topKOptions.omit({ activationAfterTopK: true, normalise: true });
/** {@link topKOptions} with every default written out. */
export type TopKOptions = z.output<typeof topKOptions>;

/** The fixed part of a gate; the rest depends on the pass. */
export interface TopKRule {
  score: 'softmax' | 'sigmoid';
  weights: NonNullable<GateOptions['weights']>;
  epsilon: number;
  /** What balance and records look at; default the scores for `standard` (sigmoids divided by their sum), else the softmax. */
  probability?: GateOptions['probability'];
  losses: Omit<GateLossOptions, 'topK'>;
  /** Leave out whole experts for the batch instead of single scores. */
  dropWholeExperts?: boolean;
  /** Rescale the rows of the initial matrix to one norm. */
  equalRows?: boolean;
  /** Every layer of a model starts with the same matrix: LibMoE seeds the routers of its vision-language layers alike. */
  layersAlike?: boolean;
  /** `init` holds whatever a model or a user says. */
  ownInit?: boolean;
  init: RouterInit | undefined;
  /** What `init` leaves open. */
  usual: RouterInit;
}

function weightsOf({ activationAfterTopK, normalise }: TopKOptions): TopKRule['weights'] {
  if (!activationAfterTopK) return normalise === false ? 'scores' : 'renormalise';
  return normalise === undefined
    ? 'activation'
    : fail('ERR_LIBMOE_CONFIG', 'set activationAfterTopK or normalise: each is a rule for the weights');
}

/** Why weights need not sum to 1 under an option of {@link topKOptions}; undefined where they do, for a softmax. */
export const undivided = ({ normalise }: Pick<TopKOptions, 'normalise'>): string | undefined =>
  normalise === false ? 'the chosen scores are not divided by their sum (option normalise)' : undefined;

/**
 * Starts the matrix as LibMoE does in the vision-language layers of all methods but `smoe` and `moe++`: std 0.02 whatever is asked for, unless
 * that is 'linear'.
 */
export function withLibmoeStart(
  rule: TopKRule,
  { flavour }: Pick<TopKOptions, 'flavour'>,
  compat: Compat,
): void {
  if (compat !== 'libmoe' || flavour === 'language' || rule.init === 'linear') return;
  rule.init = { std: 0.02 };
  rule.ownInit = true;
}

/** What both flavours have in common, from the options: how weights are normalised, which losses, how to start. */
export function ruleOf(score: TopKRule['score'], options: TopKOptions, place: RouterPlace): TopKRule {
  const language = options.flavour === 'language';
  return {
    score,
    weights: weightsOf(options),
    epsilon: language ? 1e-20 : 0,
    losses: lossesOf(options, place),
    layersAlike: place.compat === 'libmoe' && !language,
    init: options.init,
    usual: usualInit(options.flavour, place),
  };
}
