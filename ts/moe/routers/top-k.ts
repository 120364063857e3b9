import { type Initialiser, kaimingUniform, normal } from '../../nn/initialisers.ts';
import { newParameter } from '../../nn/linear.ts';
import { cast, multiply, scale, subtract } from '../../tensor/elementwise.ts';
import { type Gate, type GateOptions, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { bernoulli } from '../../tensor/random.ts';
import type { RoutingContext, RoutingLoss } from '../context.ts';
import { type GateStatistics, gateLosses } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { AnyRouting } from '../routing.ts';
import type { TopKOptions, TopKRule } from './top-k-rule.ts';

/** Of the initial values of a layer by itself: LibMoE's. */
const ownSeed = 42;

const initialiserOf = ({ init }: TopKRule): Initialiser =>
  init === 'linear' ? kaimingUniform() : normal(init.std);

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
    this.#matrix(initialiserOf(rule))(
      this.weight,
      place.values ?? { seed: ownSeed, name: `router.${place.layer}` },
    );
    if (options.bias) this.bias = newParameter([place.experts], place);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    return parameter === 'weight' ? this.#matrix(rule) : undefined;
  }

  #matrix(rule: Initialiser): Initialiser {
    const { layersAlike, equalRows, ownInit } = this.#rule;
    const drawn = ownInit ? initialiserOf(this.#rule) : rule;
    const rows = equalRows ? withEqualRows(drawn) : drawn;
    return layersAlike ? (target, { seed }) => rows(target, { seed, name: 'router' }) : rows;
  }

  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  route(tokens: Tensor, context: RoutingContext): AnyRouting {
    requireTokens(tokens, this.width, context.layerName);
    const logits = this.logits(tokens, context);
    const chosen = this.choose(logits, context);
    return {
      experts: chosen.experts,
      weights: chosen.weights,
      logits,
      probabilities: chosen.probabilities,
      losses: this.losses(chosen, context),
      statistics: chosen,
    };
  }

  /** Which losses the options ask for. */
  protected get lossTerms(): TopKRule['losses'] {
    return this.#rule.losses;
  }

  /** The gate of the rule; `own` are the gate options in which a method differs. Repeats the choices of a pass that is recomputed. */
  protected choose(logits: Tensor, context: RoutingContext, own: Partial<GateOptions> = {}): Gate {
    const { score, weights, epsilon, losses, probability } = this.#rule;
    const { balance } = losses;
    const usual = balance === 'standard' && score === 'sigmoid' ? 'normalised-sigmoid' : 'softmax';
    const options: GateOptions = {
      topK: this.topK,
      score,
      weights,
      epsilon,
      probability: probability ?? usual,
      tokenMask: context.tokenMask,
      sequenceOffsets: context.sequenceOffsets,
      probabilities: context.trace,
      entropy: balance === 'step',
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

/** Every row rescaled to one norm, such that the standard deviation of the whole stays (Csordás et al., arXiv 2310.10837). */
function withEqualRows(initialiser: Initialiser): Initialiser {
  return (weight, source) => {
    initialiser(weight, source);
    const [rows = 0, width = 0] = weight.shape;
    const values = weight.toArray();
    const norms = Array.from({ length: rows }, (_, r) =>
      Math.hypot(...values.slice(r * width, (r + 1) * width)),
    );
    const target = Math.sqrt(norms.reduce((a, n) => a + n * n, 0) / rows);
    weight.write(values.map((x, i) => (x * target) / (norms[Math.floor(i / width)] || 1)));
  };
}
