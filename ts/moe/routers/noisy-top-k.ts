import { z } from 'zod';
import { type Initialiser, zerosInitialiser } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import {
  add,
  cast,
  divide,
  erf,
  greater,
  maximum,
  multiply,
  scale,
  softplus,
  square,
  subtract,
  where,
} from '../../tensor/elementwise.ts';
import { type Gate, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor, tensor } from '../../tensor/index.ts';
import { randn } from '../../tensor/random.ts';
import { mean, sum } from '../../tensor/reduction.ts';
import { gatherRows, reshape, scatterAddRows, slice } from '../../tensor/shape.ts';
import { coefficientSchema } from '../coefficient.ts';
import type { RoutingContext, RoutingLoss } from '../context.ts';
import type { GateLossOptions } from '../losses.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { drawnParameter, initialiserOf, initOption, usualInit } from './first-values.ts';
import { gateRouting, passOptions, widen } from './gate-routing.ts';
import { lossesOf, lossOptions } from './loss-options.ts';

const noisyOptions = lossOptions.extend({
  /** How the matrix of the clean logits starts; default as `smoe`, in `original` zero. The matrix of the noise starts at zero. */
  init: initOption.optional(),
  /** Factor of the squared coefficient of variation of the experts' summed weights, and of their expected numbers of tokens. */
  importanceCoefficient: coefficientSchema.default(0.1),
  loadCoefficient: coefficientSchema.default(0.1),
  /** The least standard deviation of the noise; default 0.01, in `original` 0. */
  noiseFloor: z.number().min(0).optional(),
});
type NoisyOptions = z.output<typeof noisyOptions>;

class NoisyTopKRouter extends Router {
  override readonly width: number;
  /** [experts, width]: logits without noise. */
  weight: Tensor;
  /** [experts, width]: the noise of an expert has the standard deviation softplus(noise · token) + floor. */
  noise: Tensor;
  readonly topK: number;
  readonly #options: NoisyOptions;
  readonly #floor: number;
  readonly #zero: boolean;
  readonly #losses: GateLossOptions;

  constructor(options: NoisyOptions, place: RouterPlace) {
    super();
    const { width, experts, topK, compat } = place;
    this.width = width;
    this.topK = topK;
    this.#options = options;
    this.#floor = options.noiseFloor ?? (compat === 'original' ? 0 : 0.01);
    this.#zero = compat === 'original' && options.init === undefined;
    this.#losses = { ...lossesOf(options, place), topK };
    this.#losses.balance = options.balance ?? 'none';
    this.#losses.zCoefficient = options.zCoefficient ?? 0;
    const first = initialiserOf(options.init, usualInit(options.flavour, place), place);
    this.weight = drawnParameter([experts, width], place, 'weight', this.#zero ? zerosInitialiser : first);
    this.noise = newParameter([experts, width], place);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    return parameter === 'weight' && !this.#zero ? rule : undefined;
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const as = widen(tokens);
    const x = as(tokens);
    const clean = linear(x, as(this.weight));
    const deviations = context.training
      ? scale(softplus(linear(x, as(this.noise))), Math.SQRT2, Math.SQRT2 * this.#floor)
      : undefined;
    const logits = deviations ? add(clean, multiply(noiseLike(clean, context), deviations)) : clean;
    const options = { ...passOptions(context, this.#losses), topK: this.topK };
    const chosen = gate(logits, { ...options, weights: 'activation' });
    const routing = gateRouting(chosen, logits, this.#losses, context);
    if (!deviations) return routing;
    const own = this.#balance(chosen, { clean, noisy: logits, deviations }, context);
    return { ...routing, losses: [...(routing.losses ?? []), ...own] };
  }

  #balance(chosen: Gate, scores: Scores, context: RoutingContext): RoutingLoss[] {
    const { importanceCoefficient, loadCoefficient } = this.#options;
    const losses: RoutingLoss[] = [];
    const spread = (perExpert: Tensor): Tensor =>
      squaredVariation(context.reduce ? context.reduce(perExpert) : perExpert);
    const experts = scores.noisy.shape[1]!;
    if (importanceCoefficient !== 0) {
      const value = spread(summedWeights(chosen, experts));
      losses.push({ name: 'importance', coefficient: importanceCoefficient, value });
    }
    // Where every expert is always chosen, the loads are equal whatever the router does.
    if (loadCoefficient !== 0 && this.topK < experts) {
      const value = spread(expectedLoad(scores, this.topK, context.tokenMask));
      losses.push({ name: 'load', coefficient: loadCoefficient, value });
    }
    return losses;
  }
}

/** [tokens, experts]: logits without and with noise, and the noise's standard deviations times √2, as the error function wants them. */
interface Scores {
  clean: Tensor;
  noisy: Tensor;
  deviations: Tensor;
}

/** Normal numbers of variance ½, to be multiplied by deviations times √2. */
function noiseLike(t: Tensor, context: RoutingContext): Tensor {
  const { dtype, device, shape } = t;
  return noGrad(() => randn(shape, { seed: context.random('noise'), std: Math.SQRT1_2, dtype, device }));
}

/** Weights summed over tokens for each expert, [experts]. */
function summedWeights({ experts, weights }: Gate, count: number): Tensor {
  // No expert, -1, has weight 0 and may be counted anywhere.
  const index = noGrad(() => cast(maximum(cast(experts, 'f32'), 0), 'i32'));
  return scatterAddRows([count], reshape(index, [experts.size]), reshape(weights, [experts.size]));
}

/**
 * How many tokens each expert may expect, [experts]: the sum over tokens of the probability that the expert is among the k best when its noise
 * alone is drawn again.
 */
function expectedLoad({ clean, noisy, deviations }: Scores, k: number, mask: Tensor | undefined): Tensor {
  const { experts } = noGrad(() => gate(noisy, { topK: k + 1, tokenMask: mask }));
  // What an expert must exceed: the k-th best of the others.
  const best = logitsAt(noisy, experts, k - 1);
  const next = logitsAt(noisy, experts, k);
  const threshold = where(greater(noisy, next), next, best);
  const erfs = erf(divide(subtract(clean, threshold), deviations));
  const [tokens = 0] = noisy.shape;
  if (!mask) return scale(sum(erfs, 0), 0.5, tokens / 2);
  const counted = reshape(mask, [tokens, 1]);
  return sum(where(counted, scale(erfs, 0.5, 0.5), 0), 0);
}

/** The logit of every token's choice in one slot, [tokens, 1]. */
function logitsAt(logits: Tensor, experts: Tensor, slot: number): Tensor {
  const [tokens = 0, width = 0] = logits.shape;
  const index = noGrad(() => {
    // Whole numbers stay whole: f32 holds those up to 2^24. No expert, -1, takes any logit.
    const exact = tokens * width <= 2 ** 24 ? 'f32' : 'f64';
    const rows = Array.from({ length: tokens }, (_, t) => t * width);
    const starts = tensor(rows, [tokens, 1], { dtype: exact, device: logits.device });
    const chosen = maximum(cast(slice(experts, 1, slot, slot + 1), exact), 0);
    return reshape(cast(add(chosen, starts), 'i32'), [tokens]);
  });
  return gatherRows(reshape(logits, [tokens * width, 1]), index);
}

/** Variance / mean² of the elements. */
function squaredVariation(x: Tensor): Tensor {
  const centre = mean(x);
  return divide(mean(square(subtract(x, centre))), maximum(square(centre), 1e-20));
}

/**
 * Noisy top-k gating (Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", arXiv 1701.06538): in
 * training, normal noise with a learnt standard deviation on every logit; the topK best, weights their softmax. Losses: the squared coefficient
 * of variation over experts of the summed weights (`importance`) and of a smooth estimate of how many tokens they get (`load`).
 * `fixed` draws the matrix as other routers and keeps a little noise always; `original` starts at zero without a floor.
 */
registerRouter('noisy-top-k', {
  summary: 'softmax with learnt noise, Shazeer 2017',
  options: noisyOptions,
  compat: ['fixed', 'original'],
  create: (options, place) => new NoisyTopKRouter(options, place),
});
