import { z } from 'zod';
import { type Initialiser, zerosInitialiser } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { cast, divide, maximum, square, subtract } from '../../tensor/elementwise.ts';
import { type Gate, gate, noisyLogits } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { randn } from '../../tensor/random.ts';
import { mean } from '../../tensor/reduction.ts';
import { cat, reshape, scatterAddRows } from '../../tensor/shape.ts';
import { coefficientSchema } from '../coefficient.ts';
import type { RoutingLoss, Statistics } from '../collection.ts';
import type { RoutingContext } from '../context.ts';
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
    if (!context.training) return this.#route(linear(as(tokens), as(this.weight)), context).routing;
    const [count = 0] = tokens.shape;
    const experts = this.weight.shape[0]!;
    // Where every expert is always chosen, the loads are equal whatever the router does.
    const loaded = this.#options.loadCoefficient !== 0 && this.topK < experts;
    // Both matrices in one product.
    const scores = linear(as(tokens), cat([as(this.weight), as(this.noise)]));
    const { dtype, device } = scores;
    const noise = noGrad(() => randn([count, experts], { seed: context.random('noise'), dtype, device }));
    const floor = this.#floor;
    const topK = loaded ? this.topK : 0;
    const { logits, load } = noisyLogits(scores, noise, { topK, floor, tokenMask: context.tokenMask });
    const { routing, chosen } = this.#route(logits, context);
    const own = this.#balance(chosen, loaded ? load : undefined);
    return { ...routing, losses: [...(routing.losses ?? []), ...own] };
  }

  #route(logits: Tensor, context: RoutingContext): { routing: Routing; chosen: Gate } {
    const options = { ...passOptions(context, this.#losses), topK: this.topK };
    const chosen = gate(logits, { ...options, weights: 'activation' });
    return { routing: gateRouting(chosen, logits, this.#losses, context), chosen };
  }

  #balance(chosen: Gate, load: Tensor | undefined): RoutingLoss[] {
    const { importanceCoefficient, loadCoefficient } = this.#options;
    const losses: RoutingLoss[] = [];
    const spread = (perExpert: Tensor): Statistics => ({
      parts: [perExpert],
      global: true,
      finish: ([sums]) => squaredVariation(sums!),
    });
    if (importanceCoefficient !== 0) {
      const weights = summedWeights(chosen, this.weight.shape[0]!);
      losses.push({ name: 'importance', coefficient: importanceCoefficient, ...spread(weights) });
    }
    if (load) losses.push({ name: 'load', coefficient: loadCoefficient, ...spread(load) });
    return losses;
  }
}

/** Weights summed over tokens for each expert, [experts]. */
function summedWeights({ experts, weights }: Gate, count: number): Tensor {
  // No expert, -1, has weight 0 and may be counted anywhere.
  const index = noGrad(() => cast(maximum(cast(experts, 'f32'), 0), 'i32'));
  return scatterAddRows([count], reshape(index, [experts.size]), reshape(weights, [experts.size]));
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
