import { z } from 'zod';
import { type Initialiser, kaimingUniform } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { add } from '../../tensor/elementwise.ts';
import { gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { RoutingContext } from '../context.ts';
import type { GateLossOptions } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { cosineScores, type NormRule } from './cosine-scores.ts';
import { doubleSoftmaxGate } from './double-softmax.ts';
import { drawnParameter, initialiserOf, initOption } from './first-values.ts';
import { gateRouting, passOptions, widen } from './gate-routing.ts';
import { lossesOf, lossOptions } from './loss-options.ts';

/** Options of the routers that compare tokens with one row per expert by their angle. */
export const cosineOptions = lossOptions.extend({
  /** How the rows start; default 'linear'. */
  init: initOption.optional(),
  /** Add a bias to the logits, zero at first. */
  bias: z.boolean().optional(),
  /** The logits are divided by it. */
  temperature: z.number().positive().default(1),
});
/** {@link cosineOptions} with every default written out. */
export type CosineOptions = z.output<typeof cosineOptions>;

/** What a cosine router's method and behaviour decide. */
export interface CosineRule {
  ofTokens: NormRule;
  ofRows: NormRule;
  /** LibMoE's: a bias beside the probabilities, and a softmax of their sum over the chosen. */
  double: boolean;
  bias: boolean;
  /** Dimensions to which tokens are projected first. */
  projection?: number | undefined;
}

/** logits = cos(tokens, rows) / temperature (+ bias); softmax; the topK best, their probabilities divided by their sum. */
export class CosineRouter extends Router {
  override readonly width: number;
  /** [experts, width], or [experts, projection]: only directions count, up to a constant in the norms. */
  weight: Tensor;
  bias?: Tensor;
  /** [projection, width]. */
  projection?: Tensor;
  readonly topK: number;
  readonly #rule: CosineRule;
  readonly #options: CosineOptions;
  readonly #losses: GateLossOptions;

  constructor(rule: CosineRule, options: CosineOptions, place: RouterPlace) {
    super();
    const { width, experts, topK } = place;
    const compared = rule.projection ?? width;
    this.width = width;
    this.topK = topK;
    this.#rule = rule;
    this.#options = options;
    this.#losses = { ...lossesOf(options, place), topK };
    const first = initialiserOf(options.init, 'linear', place);
    this.weight = drawnParameter([experts, compared], place, 'weight', first);
    if (rule.bias && rule.double)
      this.bias = drawnParameter([experts], place, 'bias', kaimingUniform(compared));
    else if (rule.bias) this.bias = newParameter([experts], place);
    if (rule.projection !== undefined)
      this.projection = drawnParameter([rule.projection, width], place, 'projection', first);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    const { double } = this.#rule;
    if (parameter === 'bias') return double ? kaimingUniform(this.weight.shape[1]) : undefined;
    return double && this.#options.init === undefined ? kaimingUniform() : rule;
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { ofTokens, ofRows, double } = this.#rule;
    const as = widen(tokens);
    const x = this.projection ? linear(as(tokens), as(this.projection)) : as(tokens);
    const tempered = cosineScores(x, as(this.weight), ofTokens, ofRows, 1 / this.#options.temperature);
    const bias = this.bias && as(this.bias);
    const logits = bias && !double ? add(tempered, bias) : tempered;
    const options = { ...passOptions(context, this.#losses), topK: this.topK };
    const chosen = double ? doubleSoftmaxGate(logits, options, bias) : gate(logits, options);
    return gateRouting(chosen, logits, this.#losses, context);
  }
}
