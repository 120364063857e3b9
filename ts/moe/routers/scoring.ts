import type { Initialiser } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { withEqualRows } from '../../nn/schemes.ts';
import { multiply, scale, subtract } from '../../tensor/elementwise.ts';
import { type Gate, type GateOptions, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { bernoulli } from '../../tensor/random.ts';
import type { RoutingLoss } from '../collection.ts';
import type { RoutingContext } from '../context.ts';
import { type GateStatistics, gateLosses } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';
import { Router } from '../router.ts';
import { alike, drawnParameter, initialiserOf } from './first-values.ts';
import { passOptions, widen } from './gate-routing.ts';
import type { TopKOptions, TopKRule } from './top-k-rule.ts';

/** What routers that score their outputs by one matrix have in common: logits, the gate over them, losses. How they route is theirs. */
export abstract class ScoringRouter extends Router {
  override readonly width: number;
  /** [outputs, width]. */
  weight: Tensor;
  bias?: Tensor;
  readonly topK: number;
  readonly #rule: TopKRule;
  readonly #options: TopKOptions;
  readonly #own: Initialiser;

  /** @param place `experts` is the number of router outputs */
  constructor(rule: TopKRule, options: TopKOptions, place: RouterPlace) {
    super();
    this.width = place.width;
    this.topK = place.topK;
    this.#rule = rule;
    this.#options = options;
    this.#own = initialiserOf(rule.init, rule.usual, place);
    this.weight = drawnParameter([place.experts, place.width], place, '', this.#matrix(this.#own));
    if (options.bias) this.bias = newParameter([place.experts], place);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    return parameter === 'weight' ? this.#matrix(rule) : undefined;
  }

  #matrix(rule: Initialiser): Initialiser {
    const { layersAlike, equalRows, ownInit } = this.#rule;
    const drawn = ownInit ? this.#own : rule;
    const rows = equalRows ? withEqualRows(drawn) : drawn;
    return layersAlike ? alike(rows) : rows;
  }

  /** Which losses the options ask for. */
  protected get lossTerms(): TopKRule['losses'] {
    return this.#rule.losses;
  }

  /** The gate of the rule; `own` are the gate options in which a method differs. Repeats the choices of a pass that is recomputed. */
  protected choose(logits: Tensor, context: RoutingContext, own: Partial<GateOptions> = {}): Gate {
    const { score, weights, epsilon, losses, probability } = this.#rule;
    const options: GateOptions = {
      ...passOptions(context, losses, score),
      ...(probability && { probability }),
      topK: this.topK,
      weights,
      epsilon,
      ...own,
    };
    const experts = context.replayed ?? own.experts ?? this.#dropped(logits, options, context);
    return gate(logits, { ...options, experts });
  }

  /** The balance and z losses that the options ask for. */
  protected losses(statistics: GateStatistics, context: RoutingContext): RoutingLoss[] {
    return gateLosses(statistics, { ...this.#rule.losses, topK: this.topK }, context);
  }

  /** tokens Wᵀ (+ b) in f32, or f64 for f64. */
  protected logits(tokens: Tensor, context: RoutingContext): Tensor {
    const as = widen(tokens);
    let x = as(tokens);
    const { inputDropout } = this.#options;
    if (context.training && inputDropout > 0) {
      const stay = bernoulli(x.shape, 1 - inputDropout, {
        seed: context.random('inputDropout'),
        dtype: x.dtype,
        device: x.device,
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
        device: logits.device,
      });
      // Far below all others but finite: should too few be left, the best of the dropped ones serve.
      return gate(subtract(logits, scale(out, 1e4)), options).experts;
    });
  }
}
