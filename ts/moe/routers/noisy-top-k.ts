import { z } from 'zod';
import { type Initialiser, zerosInitialiser } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import {
  add,
  cast,
  divide,
  equal,
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
import { reshape, scatterAddRows, slice } from '../../tensor/shape.ts';
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
    const first = initialiserOf(options.init ?? usualInit(options.flavour, place));
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
    const deviations = context.training ? add(softplus(linear(x, as(this.noise))), this.#floor) : undefined;
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

/** Logits without and with noise and the noise's standard deviations, [tokens, experts]. */
interface Scores {
  clean: Tensor;
  noisy: Tensor;
  deviations: Tensor;
}

const noiseLike = (t: Tensor, context: RoutingContext): Tensor =>
  randn(t.shape, { seed: context.random('noise'), dtype: t.dtype, device: t.device });

/** 1 where the chosen expert of a token is that of the column, [tokens, experts], `slot` [tokens, 1] being one of its choices. */
function chosenIn(slot: Tensor, like: Tensor): Tensor {
  const columns = Array.from({ length: like.shape[1]! }, (_, e) => e);
  const index = tensor(columns, [1, columns.length], { dtype: like.dtype, device: like.device });
  return cast(equal(cast(slot, like.dtype), index), like.dtype);
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
  const logitAt = (slot: number): Tensor => {
    const at = noGrad(() => chosenIn(slice(experts, 1, slot, slot + 1), noisy));
    return sum(multiply(noisy, at), 1, { keepDims: true });
  };
  // What an expert must exceed: the k-th best of the others.
  const next = logitAt(k);
  const threshold = where(greater(noisy, next), next, logitAt(k - 1));
  const z = scale(divide(subtract(clean, threshold), deviations), Math.SQRT1_2);
  const probability = scale(erf(z), 0.5, 0.5);
  if (!mask) return sum(probability, 0);
  return sum(where(reshape(mask, [mask.size, 1]), probability, 0), 0);
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
  options: noisyOptions,
  compat: ['fixed', 'original'],
  create: (options, place) => new NoisyTopKRouter(options, place),
});
