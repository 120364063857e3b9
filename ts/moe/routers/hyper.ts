import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { type Initialiser, normal } from '../../nn/initialisers.ts';
import { buffer } from '../../nn/module.ts';
import { relu } from '../../tensor/elementwise.ts';
import { gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { defaultDevice, type Tensor, zeros } from '../../tensor/index.ts';
import { reshape, slice } from '../../tensor/shape.ts';
import type { RoutingContext } from '../context.ts';
import type { GateLossOptions } from '../losses.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { drawFirst, drawnParameter } from './first-values.ts';
import { gateRouting, passOptions, widen } from './gate-routing.ts';
import { lossesOf, lossOptions } from './loss-options.ts';

const count = z.number().int().positive();

const hyperOptions = lossOptions.extend({
  /** Hidden units of the hypernetwork; default width / 4, in `original` 256. */
  hidden: count.optional(),
  /** Standard deviation of its weights, which are never trained. */
  std: z.number().positive().default(0.02),
  /** Choices per token in the first and at the last step of training; default 1 and topK (1 and 2 in `libmoe`, all and topK in `original`). */
  firstTopK: count.optional(),
  lastTopK: count.optional(),
});
type HyperOptions = z.output<typeof hyperOptions>;

/** Choices per token in the first and at the last step of training. */
const scheduleOf = ({ firstTopK, lastTopK }: HyperOptions, { experts, topK, compat }: RouterPlace) => ({
  first: firstTopK ?? (compat === 'original' ? experts : 1),
  last: lastTopK ?? (compat === 'libmoe' ? Math.min(2, experts) : topK),
});

/** A whole number near x; halves go to the even one. */
export function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

class HyperRouter extends Router {
  override readonly width: number;
  /** [1, width]: what the hypernetwork makes the router of, and all that is trained. */
  code: Tensor;
  /** [hidden, width] and [hidden]. */
  inWeight: Tensor;
  inBias: Tensor;
  /** [experts · (width + 1), hidden] and [experts · (width + 1)]. */
  outWeight: Tensor;
  outBias: Tensor;
  readonly experts: number;
  readonly topK: number;
  readonly #firstTopK: number;
  readonly #lastTopK: number;
  readonly #std: number;
  readonly #losses: Omit<GateLossOptions, 'topK'>;

  constructor(options: HyperOptions, place: RouterPlace) {
    super();
    const { width, experts, topK, compat } = place;
    const { hidden = compat === 'original' ? 256 : Math.max(1, Math.floor(width / 4)), std } = options;
    this.#std = std;
    this.width = width;
    this.experts = experts;
    this.topK = topK;
    const { first, last } = scheduleOf(options, place);
    this.#firstTopK = first;
    this.#lastTopK = last;
    this.#losses = {
      ...lossesOf(options, place),
      balance: options.balance ?? 'none',
      zCoefficient: options.zCoefficient ?? 0,
    };
    this.code = drawnParameter([1, width], place, 'code', normal(1));
    const frozen = (shape: number[], field?: string): Tensor => {
      const { device = defaultDevice(), dtype } = place;
      const values = zeros(shape, { dtype: dtype === 'f64' ? 'f64' : 'f32', device });
      if (field) drawFirst(values, place, field, normal(std));
      return buffer(values);
    };
    this.inWeight = frozen([hidden, width], 'inWeight');
    this.inBias = frozen([hidden]);
    this.outWeight = frozen([experts * (width + 1), hidden], 'outWeight');
    this.outBias = frozen([experts * (width + 1)]);
  }

  override start(_: Initialiser, parameter: string): Initialiser | undefined {
    return parameter === 'code' ? normal(1) : undefined;
  }

  override startBuffer(buffer: string): Initialiser | undefined {
    return buffer === 'inWeight' || buffer === 'outWeight' ? normal(this.#std) : undefined;
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { width, experts } = this;
    const as = widen(tokens);
    const hidden = relu(linear(as(this.code), as(this.inWeight), as(this.inBias)));
    const made = reshape(linear(hidden, as(this.outWeight), as(this.outBias)), [experts, width + 1]);
    const bias = reshape(slice(made, 1, width, width + 1), [experts]);
    const logits = linear(as(tokens), slice(made, 1, 0, width), bias);
    const losses = { ...this.#losses, topK: this.#choices(context) };
    const chosen = gate(logits, {
      ...passOptions(context, losses),
      topK: losses.topK,
      weights: 'activation',
    });
    return gateRouting(chosen, logits, losses, context);
  }

  /** Choices per token now: topK but for training towards a known end. */
  #choices({ training, step, totalSteps }: RoutingContext): number {
    if (!training || totalSteps <= 0) return this.topK;
    const done = Math.min(1, step / totalSteps);
    return this.#firstTopK + roundHalfEven((this.#lastTopK - this.#firstTopK) * done);
  }
}

/**
 * HyperRouter (Do et al., "HyperRouter: Towards Efficient Training and Inference of Sparse Mixture of Experts", arXiv 2312.07035): a hypernetwork
 * with fixed random weights makes the router's matrix and bias from a trained code, anew in every pass; the topK best logits, weights their
 * softmax. In training the number of choices goes from `firstTopK` to `lastTopK`.
 * `fixed` goes from 1 to topK. `libmoe` (its first version) from 1 to 2, whatever topK; here too the matrix is made anew outside training,
 * where LibMoE kept an old one, or a random one after loading. `original` has 256 hidden units and goes from all experts to topK.
 */
registerRouter('hyper', {
  summary: 'HyperRouter: a fixed hypernetwork, a learnt code',
  options: hyperOptions,
  compat: ['fixed', 'libmoe', 'original'],
  // The matrix is made once per pass: what that costs is spread over all tokens.
  tokenCost(options, place) {
    const { first, last } = scheduleOf(options, place);
    return { trainingExperts: (first + last) / 2, routerFlops: 2 * place.experts * place.width };
  },
  create(options, place) {
    for (const name of ['firstTopK', 'lastTopK'] as const)
      if ((options[name] ?? 1) > place.experts)
        fail(
          'ERR_LIBMOE_CONFIG',
          `router "hyper": ${name} must be at most ${place.experts} (experts), got ${options[name]}`,
        );
    return new HyperRouter(options, place);
  },
});
