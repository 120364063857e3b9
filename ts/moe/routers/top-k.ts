import { z } from 'zod';
import { type Initialiser, kaimingUniform, normal } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { cast, multiply, scale, subtract } from '../../tensor/elementwise.ts';
import { type GateOptions, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { bernoulli } from '../../tensor/random.ts';
import type { RoutingContext } from '../context.ts';
import { libmoeStd } from '../experts.ts';
import { balanceModes, coefficientSchema, type GateLossOptions, gateLosses } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';

/** Options of every router that scores experts by one matrix. What is left out follows the flavour. */
export const topKOptions = z.object({
  /** Defaults of LibMoE's language models (§1.3) or of its vision-language layers (§1.2). */
  flavour: z.enum(['language', 'vision-language']).default('language'),
  /** Standard deviation of the router's weights, or 'linear' for PyTorch's default. */
  init: z.union([z.literal('linear'), z.object({ std: z.number().positive() }).strict()]).optional(),
  /** Add a bias to the logits, zero at first. */
  bias: z.boolean().default(false),
  balance: z.enum(balanceModes).optional(),
  balanceCoefficient: coefficientSchema.default(0.01),
  zCoefficient: coefficientSchema.optional(),
  /** Choose by the scores, then apply the score function to the chosen logits alone. */
  activationAfterTopK: z.boolean().default(false),
  /** In training: probability that one element of the router's input, or one (token, expert) score, is left out. */
  inputDropout: z.number().min(0).lt(1).default(0),
  expertDropout: z.number().min(0).lt(1).default(0),
});
export type TopKOptions = z.output<typeof topKOptions>;

/** The fixed part of a gate; the rest depends on the pass. */
export interface TopKRule {
  score: 'softmax' | 'sigmoid';
  weights: NonNullable<GateOptions['weights']>;
  epsilon: number;
  losses: Omit<GateLossOptions, 'topK'>;
  /** Leave out whole experts for the batch instead of single scores. */
  dropWholeExperts?: boolean;
  /** Rescale the rows of the initial matrix to one norm. */
  equalRows?: boolean;
  init: { std: number } | 'linear';
}

/** What both flavours have in common, from the options: how weights are normalised, which losses, how to start. */
export function ruleOf(score: TopKRule['score'], options: TopKOptions, place: RouterPlace): TopKRule {
  const language = options.flavour === 'language';
  const std = libmoeStd({
    width: place.width,
    hidden: 1,
    experts: place.experts,
    layers: place.layers,
  }).router;
  return {
    score,
    weights: options.activationAfterTopK ? 'activation' : 'renormalise',
    epsilon: language ? 1e-20 : 0,
    losses: {
      balance: options.balance ?? (language ? 'standard' : 'switch'),
      balanceCoefficient: options.balanceCoefficient,
      zCoefficient: options.zCoefficient ?? (language ? 0 : 0.001),
      // LibMoE's vision-language layers count the first of the K choices only (§8, 13).
      choices: place.compat === 'libmoe' && !language ? 'first' : 'all',
    },
    init: options.init ?? { std: language ? std : 0.02 },
  };
}

/** Scores experts by logits = tokens Wᵀ (+ b), in f32 or wider, and chooses the topK best. */
export class TopKRouter extends Router {
  override readonly width: number;
  /** [experts, width]. */
  weight: Tensor;
  bias?: Tensor;
  readonly topK: number;
  readonly #rule: TopKRule;
  readonly #options: TopKOptions;

  constructor(rule: TopKRule, options: TopKOptions, place: RouterPlace) {
    super();
    this.width = place.width;
    this.topK = place.topK;
    this.#rule = rule;
    this.#options = options;
    this.weight = newParameter([place.experts, place.width], place);
    // A seed of its own, as LibMoE's; but that gave every vision-language layer the same matrix (§8, 14).
    const same = place.compat === 'libmoe' && options.flavour === 'vision-language';
    const name = same ? 'router' : `router.${place.layer}`;
    const start: Initialiser = rule.init === 'linear' ? kaimingUniform() : normal(rule.init.std);
    start(this.weight, { seed: 42, name });
    if (rule.equalRows) equalRows(this.weight);
    if (options.bias) this.bias = newParameter([place.experts], place);
  }

  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { score, weights, epsilon, losses } = this.#rule;
    const { balance } = losses;
    const logits = this.#logits(tokens, context);
    const options: GateOptions = {
      topK: this.topK,
      score,
      weights,
      epsilon,
      probability: balance === 'standard' && score === 'sigmoid' ? 'normalised-sigmoid' : 'softmax',
      tokenMask: context.tokenMask,
      sequenceOffsets: context.sequenceOffsets,
      probabilities: context.trace,
      entropy: balance === 'step',
    };
    const experts = context.replayed ?? this.#dropped(logits, options, context);
    const chosen = gate(logits, { ...options, experts });
    return {
      experts: chosen.experts,
      weights: chosen.weights,
      logits,
      probabilities: chosen.probabilities,
      losses: gateLosses(chosen, { ...losses, topK: this.topK }, context),
      statistics: chosen,
    };
  }

  #logits(tokens: Tensor, context: RoutingContext): Tensor {
    const wide = tokens.dtype === 'f64' ? 'f64' : 'f32';
    const as = (t: Tensor): Tensor => (t.dtype === wide ? t : cast(t, wide));
    let x = as(tokens);
    const { inputDropout } = this.#options;
    if (context.training && inputDropout > 0) {
      const stay = bernoulli(x.shape, 1 - inputDropout, {
        seed: context.random('inputDropout'),
        dtype: wide,
      });
      x = multiply(x, scale(stay, 1 / (1 - inputDropout)));
    }
    return linear(x, as(this.weight), this.bias && as(this.bias));
  }

  /** The choices when some experts are left out at random; their weights and the statistics come from the full scores. */
  #dropped(logits: Tensor, options: GateOptions, context: RoutingContext): Tensor | undefined {
    const { expertDropout } = this.#options;
    if (!context.training || expertDropout === 0) return undefined;
    const { dropWholeExperts } = this.#rule;
    return noGrad(() => {
      const shape = dropWholeExperts ? [1, logits.shape[1]!] : logits.shape;
      const out = bernoulli(shape, expertDropout, {
        seed: context.random('expertDropout'),
        dtype: logits.dtype,
      });
      // Far below all others but finite: should too few be left, the best of the dropped ones serve.
      return gate(subtract(logits, scale(out, 1e4)), options).experts;
    });
  }
}

/** Rescales every row to one norm, such that the standard deviation of the whole stays (Csordás et al., arXiv 2310.10837). */
function equalRows(weight: Tensor): void {
  const [rows = 0, width = 0] = weight.shape;
  const values = weight.toArray();
  const norms = Array.from({ length: rows }, (_, r) =>
    Math.hypot(...values.slice(r * width, (r + 1) * width)),
  );
  const target = Math.sqrt(norms.reduce((a, n) => a + n * n, 0) / rows);
  weight.write(values.map((x, i) => (x * target) / (norms[Math.floor(i / width)] || 1)));
}
