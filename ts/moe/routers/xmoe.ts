import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { constant, type Initialiser, kaimingUniform, normal } from '../../nn/initialisers.ts';
import { orthogonal } from '../../nn/orthogonal.ts';
import { equaliseRows, withEqualRows } from '../../nn/schemes.ts';
import { divide, exp, maximum, scale, where } from '../../tensor/elementwise.ts';
import { type Gate, type GateOptions, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import type { Tensor } from '../../tensor/index.ts';
import { logSumExp } from '../../tensor/reduction.ts';
import { softmax } from '../../tensor/softmax.ts';
import type { RoutingContext } from '../context.ts';
import type { GateLossOptions } from '../losses.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { type Compat, Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { cosineScores } from './cosine-scores.ts';
import { doubleSoftmaxGate } from './double-softmax.ts';
import { alike, drawnParameter, initialiserOf, initOption, usualInit } from './first-values.ts';
import { gateRouting, passOptions, widen } from './gate-routing.ts';
import { lossesOf, lossOptions } from './loss-options.ts';

const xmoeOptions = lossOptions.extend({
  /** How the projection starts; default as the matrix of `smoe`. */
  init: initOption.optional(),
  /** Dimensions in which tokens and experts are compared; default 16, in `libmoe` and `original` experts / 2. */
  projection: z.number().int().positive().optional(),
  /** Factor of the cosines: the norm of the embeddings; default 1.5, in `original` 1. */
  norm: z.number().positive().optional(),
  /** The logits are divided by it; learnt from this value on, but in `libmoe`. Default 0.3; 0.07 for a sigmoid outside `libmoe`. */
  temperature: z.number().positive().optional(),
  minTemperature: z.number().positive().default(0.01),
  score: z.enum(['softmax', 'sigmoid']).default('softmax'),
});
type XmoeOptions = z.output<typeof xmoeOptions>;

/** LibMoE's floor of a projected token's norm. */
const floor = 1e-4;
const epsilon = 1e-20;

class XmoeRouter extends Router {
  override readonly width: number;
  /** [projection, width]. */
  projection: Tensor;
  /** [experts, projection]: only directions count. */
  embeddings: Tensor;
  /** [1], ln of the temperature; none in `libmoe`. */
  logTemperature?: Tensor;
  readonly topK: number;
  readonly #compat: Compat;
  readonly #options: XmoeOptions;
  readonly #norm: number;
  readonly #temperature: number;
  readonly #losses: GateLossOptions;

  constructor(options: XmoeOptions, place: RouterPlace) {
    super();
    const { width, experts, topK, compat } = place;
    const { projection = compat === 'fixed' ? 16 : Math.max(1, Math.floor(experts / 2)), score } = options;
    this.width = width;
    this.topK = topK;
    this.#compat = compat;
    this.#options = options;
    this.#norm = options.norm ?? (compat === 'original' ? 1 : 1.5);
    this.#temperature = options.temperature ?? (score === 'sigmoid' && compat !== 'libmoe' ? 0.07 : 0.3);
    this.#losses = { ...lossesOf(options, place), topK };
    if (compat === 'original')
      Object.assign(this.#losses, { over: 'batch', balance: options.balance ?? 'switch' });
    const first = initialiserOf(options.init, usualInit(options.flavour, place), place);
    this.projection = drawnParameter([projection, width], place, 'projection', this.#projections(first));
    this.embeddings = drawnParameter([experts, projection], place, 'embeddings', this.#directions());
    if (compat !== 'libmoe')
      this.logTemperature = drawnParameter([1], place, '', constant(Math.log(this.#temperature)));
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    if (parameter === 'projection') return this.#projections(rule);
    return parameter === 'embeddings' ? this.#directions() : undefined;
  }

  /** Whether this is what LibMoE computes in its vision-language layers. */
  get #double(): boolean {
    return this.#compat === 'libmoe' && this.#options.flavour === 'vision-language';
  }

  #projections(rule: Initialiser): Initialiser {
    return this.#double ? kaimingUniform() : rule;
  }

  #directions(): Initialiser {
    const drawn = this.#double ? alike(normal(0.02)) : orthogonal();
    return withEqualRows(drawn, this.#norm);
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const as = widen(tokens);
    const projected = linear(as(tokens), as(this.projection));
    // LibMoE rescales the embeddings in place before the pass: their norms get no gradient.
    const rows = { constant: this.#compat === 'libmoe' };
    const learnt = this.logTemperature && exp(as(this.logTemperature));
    const factor = learnt
      ? divide(this.#norm, maximum(learnt, this.#options.minTemperature))
      : this.#norm / this.#temperature;
    const logits = cosineScores(projected, as(this.embeddings), { floor }, rows, factor);
    const pass = { ...passOptions(context, this.#losses, this.#options.score), topK: this.topK };
    const chosen = this.#gate(logits, pass, () => divide(logits, factor));
    return gateRouting(chosen, logits, this.#losses, context);
  }

  /** @param cosines without norm and temperature */
  #gate(logits: Tensor, options: GateOptions, cosines: () => Tensor): Gate {
    if (this.#compat === 'fixed') return gate(logits, { ...options, epsilon });
    if (this.#compat === 'original') {
      const chosen = gate(logits, { ...options, weights: 'scores' });
      // The balance loss keeps the temperature of the start.
      const steady = scale(cosines(), this.#norm / this.#temperature);
      const { probabilitySums } = gate(steady, { ...options, experts: chosen.experts });
      return { ...chosen, probabilitySums };
    }
    if (!this.#double) return gate(softmax(logits), { ...options, epsilon });
    const z = logSumExp(scale(cosines(), this.#norm));
    const { tokenMask } = options;
    return { ...doubleSoftmaxGate(logits, options), logSumExp: tokenMask ? where(tokenMask, z, 0) : z };
  }

  override afterStep(): void {
    if (this.#compat === 'libmoe') equaliseRows(this.embeddings, this.#norm);
  }
}

/**
 * X-MoE (Chi et al., "On the Representation Collapse of Sparse Mixture of Experts", arXiv 2204.09179): tokens projected to a few dimensions,
 * logits = norm · cos(token, embedding of the expert) / temperature.
 * `fixed`: temperature learnt, probabilities of the chosen divided by their sum. `libmoe`: temperature 0.3, embeddings brought back to norm
 * 1.5 for every pass, and a second activation: weights = softmax of the chosen probabilities, with the z-loss of undivided logits
 * (vision-language), or the whole gate run on the probabilities as if they were logits (language). `original`: cosines alone, temperature
 * learnt, weights = probabilities, balance over the batch with the temperature of the start.
 */
registerRouter('xmoe', {
  summary: 'X-MoE: cosines in few dimensions, a learnt temperature',
  unlikeDense: (_, { compat }) =>
    compat === 'original'
      ? 'the chosen probabilities are not divided by their sum (compat original)'
      : undefined,
  options: xmoeOptions,
  compat: ['fixed', 'libmoe', 'original'],
  create(options, place) {
    if (place.compat === 'libmoe' && options.flavour === 'vision-language' && options.score === 'sigmoid')
      fail(
        'ERR_LIBMOE_CONFIG',
        'router "xmoe": LibMoE has no sigmoid score in vision-language layers; set score softmax, or compat fixed',
      );
    return new XmoeRouter(options, place);
  },
});
