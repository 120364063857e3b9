import type { Initialiser } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { multiply, scale, subtract } from '../../tensor/elementwise.ts';
import { type GateOptions, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { bernoulli } from '../../tensor/random.ts';
import type { RoutingContext } from '../context.ts';
import type { RouterPlace } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { alike, drawnParameter, initialiserOf, withEqualRows } from './first-values.ts';
import { gateRouting, passOptions, widen } from './gate-routing.ts';
import type { TopKOptions, TopKRule } from './top-k-rule.ts';

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
    const first = this.#matrix(initialiserOf(rule.init));
    this.weight = drawnParameter([place.experts, place.width], place, '', first);
    if (options.bias) this.bias = newParameter([place.experts], place);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    return parameter === 'weight' ? this.#matrix(rule) : undefined;
  }

  #matrix(rule: Initialiser): Initialiser {
    const { layersAlike, equalRows, ownInit } = this.#rule;
    const drawn = ownInit ? initialiserOf(this.#rule.init) : rule;
    const rows = equalRows ? withEqualRows(drawn) : drawn;
    return layersAlike ? alike(rows) : rows;
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { score, weights, epsilon, losses } = this.#rule;
    const logits = this.#logits(tokens, context);
    const pass = { ...passOptions(context, losses, score), topK: this.topK, weights, epsilon };
    const experts = pass.experts ?? this.#dropped(logits, pass, context);
    const chosen = gate(logits, { ...pass, experts });
    return gateRouting(chosen, logits, { ...losses, topK: this.topK }, context);
  }

  #logits(tokens: Tensor, context: RoutingContext): Tensor {
    const as = widen(tokens);
    let x = as(tokens);
    const { inputDropout } = this.#options;
    if (context.training && inputDropout > 0) {
      const stay = bernoulli(x.shape, 1 - inputDropout, {
        seed: context.random('inputDropout'),
        dtype: x.dtype,
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
