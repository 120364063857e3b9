import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { type Initialiser, normal } from '../../nn/initialisers.ts';
import { add, cast, divide, greaterEqual, maximum, multiply, scale } from '../../tensor/elementwise.ts';
import type { Gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { cheapExperts } from '../../tensor/grouped_ffn.ts';
import { full, noGrad, type Tensor, tensor } from '../../tensor/index.ts';
import { dispatchPlan } from '../../tensor/permutation.ts';
import { sum } from '../../tensor/reduction.ts';
import { cat, expand, slice, split } from '../../tensor/shape.ts';
import type { RoutingContext } from '../context.ts';
import { countedTokens, wholeSlots, wholeSlotsOf } from '../dispatch/capacity.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { ofChoices } from './choice-table.ts';
import { drawnParameter } from './first-values.ts';
import { widen } from './gate-routing.ts';
import { ScoringRouter } from './scoring.ts';
import { ownWeightOptions, ruleOf, type TopKRule } from './top-k-rule.ts';

const whole = z.number().int().min(0);
const options = ownWeightOptions.extend({
  /** How many experts give nothing, the token itself, and a learnt vector mixed with the token. */
  zeroExperts: whole.default(1),
  copyExperts: whole.optional(),
  constantExperts: whole.optional(),
  /** Add a learnt map of the previous MoE layer's logits to the logits. */
  gatingResidual: z.boolean().optional(),
  /** τ: weight of experts without computation in the balance loss, and their share of the capacity; below 1 they get more tokens. */
  cheapWeight: z.number().positive().default(0.75),
  /** The weight of a chosen zero expert goes to the others instead of being lost. */
  renormaliseZero: z.boolean().optional(),
  /** γ: in training, no expert takes more than its share times this. Default: nothing is dropped. */
  capacityFactor: z.number().positive().optional(),
  /** Standard deviation of the constant experts' vectors at the start. */
  constantStd: z.number().positive().optional(),
});
type Given = z.output<typeof options>;

/** What compat and flavour leave to be said, said. Router outputs are in the order: experts, zero, copy, constant. */
function complete(given: Given, place: Pick<RouterPlace, 'compat'>) {
  const libmoe = place.compat === 'libmoe';
  const language = given.flavour === 'language';
  return {
    ...given,
    activationAfterTopK: false,
    copyExperts: given.copyExperts ?? (language ? 1 : 0),
    constantExperts: given.constantExperts ?? (language ? 6 : 1),
    gatingResidual: given.gatingResidual ?? !libmoe,
    renormaliseZero: given.renormaliseZero ?? !libmoe,
    constantStd: given.constantStd ?? (libmoe ? 0.002 : place.compat === 'original' ? 1 : 0.02),
  };
}
type Options = ReturnType<typeof complete>;

/**
 * What the balance loss of each router output weighs. LibMoE weighs column 4 with 1.3, whatever that is; the paper has no factor outputs / topK
 * that makes an even router's loss 1.
 */
function balanceWeights(o: Options, { experts, topK, compat }: RouterPlace): number[] {
  const outputs = experts + o.zeroExperts + o.copyExperts + o.constantExperts;
  const unit = compat === 'original' ? topK / outputs : 1;
  return Array.from({ length: outputs }, (_, i) => {
    if (compat === 'libmoe') return i === 4 ? 1.3 : 1;
    return i < experts ? unit : unit * o.cheapWeight;
  });
}

/**
 * MoE++ (Jin et al., arXiv 2410.07348): beside the experts a token may choose ones that cost nothing: zero, copy x, and constant
 * α₀ x + α₁ v with α = softmax(W_c x). Logits get a learnt map of the previous layer's.
 */
class MoePlusPlusRouter extends ScoringRouter {
  /** [constants, width]: v. */
  constants?: Tensor;
  /** [2 · constants, width]: the rows W_c of each constant expert. */
  mixing?: Tensor;
  /** [outputs, outputs]: what the previous layer's logits add. */
  residual?: Tensor;
  readonly #options: Options;
  readonly #experts: number;
  readonly #outputs: number;
  readonly #balanceWeights: readonly number[];

  constructor(o: Options, rule: TopKRule, place: RouterPlace) {
    const weights = balanceWeights(o, place);
    super(rule, o, { ...place, experts: weights.length });
    this.#options = o;
    this.#experts = place.experts;
    this.#outputs = weights.length;
    this.#balanceWeights = weights;
    const made = (parameter: string, shape: number[], start: Initialiser): Tensor =>
      drawnParameter(shape, place, parameter, start);
    const small = normal(0.02);
    if (o.constantExperts > 0) {
      this.constants = made('constants', [o.constantExperts, place.width], normal(o.constantStd));
      this.mixing = made('mixing', [2 * o.constantExperts, place.width], small);
    }
    if (o.gatingResidual && place.layer > 0)
      this.residual = made('residual', [weights.length, weights.length], small);
  }

  override start(rule: Initialiser, parameter: string): Initialiser | undefined {
    if (parameter === 'constants') return normal(this.#options.constantStd);
    return parameter === 'mixing' || parameter === 'residual' ? rule : super.start(rule, parameter);
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { logits: own, mix } = this.#scores(tokens, context);
    const logits = this.#withResidual(own, context);
    const chosen = this.choose(logits, context);
    const { probabilities } = chosen;
    const { weights, ...sent } = this.#sent(chosen, context);
    return {
      ...sent,
      weights,
      logits,
      probabilities,
      choices: chosen.experts,
      extra: this.#extra(tokens, chosen.experts, weights, mix),
      losses: this.#balance(chosen, context),
      statistics: chosen,
    };
  }

  /** Logits, and what mixes the constants: one product where both see the same tokens. */
  #scores(tokens: Tensor, context: RoutingContext): { logits: Tensor; mix?: Tensor } {
    const as = widen(tokens);
    if (!this.mixing) return { logits: this.logits(tokens, context) };
    if (this.bias || this.#options.inputDropout > 0)
      return { logits: this.logits(tokens, context), mix: linear(as(tokens), as(this.mixing)) };
    const both = linear(as(tokens), cat([as(this.weight), as(this.mixing)]));
    const [logits, mix] = split(both, [this.#outputs, this.mixing.shape[0]!], 1);
    return { logits: logits!, mix: mix! };
  }

  #withResidual(logits: Tensor, { previousLogits, layerName }: RoutingContext): Tensor {
    if (!this.residual || !previousLogits) return logits;
    if (previousLogits.shape.join() !== logits.shape.join())
      fail(
        'ERR_LIBMOE_SHAPE',
        `MoE layer ${layerName}: the gating residual of moe++ expects logits [${logits.shape.join(', ')}] of the MoE layer before, got [${previousLogits.shape.join(', ')}]: use moe++ with the same experts there, or gatingResidual: false`,
      );
    return add(logits, linear(cast(previousLogits, logits.dtype), cast(this.residual, logits.dtype)));
  }

  /** Experts as the layer knows them, final weights, and what each expert may take. */
  #sent(
    chosen: Gate,
    context: RoutingContext,
  ): Pick<Routing, 'experts' | 'weights' | 'capacity' | 'dropped'> {
    const o = this.#options;
    const { experts: choices } = chosen;
    const dtype = chosen.weights.dtype;
    const [tokens = 0, topK = 0] = choices.shape;
    const ids = Array.from({ length: this.#outputs }, (_, i) => (i < this.#experts ? i : -1));
    const experts = ofChoices(choices, ids, -1, 'i32');
    let { weights } = chosen;
    if (o.renormaliseZero && o.zeroExperts > 0) {
      const zero = (i: number) => i >= this.#experts && i < this.#experts + o.zeroExperts;
      const gives = ids.map((_, i) => (zero(i) ? 0 : 1));
      const left = multiply(weights, ofChoices(choices, gives, 0, dtype));
      // Of a token that chose zero experts alone nothing is left to divide by: its weights stay 0.
      weights = divide(left, maximum(sum(left, -1, { keepDims: true }), 1e-20));
    }
    if (!context.training || o.capacityFactor === undefined) return { experts, weights };
    const { own, capacity } = this.#room(o.capacityFactor, tokens, topK, context.tokenMask);
    using plan = dispatchPlan(choices, { experts: this.#outputs, capacity });
    const kept = noGrad(() => cast(greaterEqual(cast(plan.inverse, dtype), 0), dtype));
    const dropped = noGrad(() => slice(plan.dropped, 0, this.#experts, this.#outputs));
    return { experts, weights: multiply(weights, kept), capacity: own, dropped };
  }

  /**
   * Slots of each of the experts that compute, and of every output as far as it is this router's to drop: what an expert has no room for the
   * layer drops, by its policy; nobody else knows of choices without computation.
   */
  #room(factor: number, tokens: number, topK: number, mask: Tensor | undefined): Room {
    const { cheapWeight } = this.#options;
    const cheap = this.#outputs - this.#experts;
    const parts = cheapWeight * this.#experts + cheap;
    if (!mask) {
      const share = (factor * tokens * topK) / parts;
      const theirs = wholeSlots(share);
      const capacity = Array.from({ length: this.#outputs }, (_, i) =>
        i < this.#experts ? Number.POSITIVE_INFINITY : theirs,
      );
      return { own: wholeSlots(cheapWeight * share), capacity };
    }
    return noGrad(() => {
      const share = divide(scale(scale(countedTokens(mask), factor), topK), parts);
      const theirs = expand(cast(wholeSlotsOf(share), 'i32'), [cheap]);
      const unlimited = full([this.#experts], 2 ** 31 - 1, { dtype: 'i32', device: mask.device });
      return {
        own: cast(wholeSlotsOf(scale(share, cheapWeight)), 'i32'),
        capacity: cat([unlimited, theirs]),
      };
    });
  }

  /** What the experts without computation give, [tokens, width]; undefined where none of them gives anything. */
  #extra(tokens: Tensor, choices: Tensor, weights: Tensor, mix: Tensor | undefined): Tensor | undefined {
    const { zeroExperts, copyExperts: copies, constantExperts } = this.#options;
    if (copies + constantExperts === 0) return undefined;
    const first = this.#experts + zeroExperts;
    const constants = mix && this.constants && { mix, vectors: widen(tokens)(this.constants) };
    return cheapExperts(tokens, { choices, weights, first, copies, constants });
  }

  #balance(chosen: Gate, context: RoutingContext): Routing['losses'] {
    const { dtype, device } = chosen.weights;
    const mode = this.lossTerms.balance;
    if (!context.training || (mode !== 'switch' && mode !== 'standard')) return this.losses(chosen, context);
    const eta = tensor([...this.#balanceWeights], [1, this.#outputs], { dtype, device });
    return this.losses({ ...chosen, probabilitySums: multiply(chosen.probabilitySums, eta) }, context);
  }
}

/** Capacities on the host, or where tokens are masked on the device, i32. */
interface Room {
  own: number | Tensor;
  capacity: readonly number[] | Tensor;
}

registerRouter('moe++', {
  summary: 'MoE++: also zero, copy and constant experts',
  unlikeDense: (given, { compat }) => {
    const { zeroExperts, copyExperts, constantExperts } = complete(given, { compat });
    return zeroExperts + copyExperts + constantExperts === 0
      ? undefined
      : 'zero, copy and constant experts take a share of the weights, and compute something else than the dense layer';
  },
  options,
  compat: ['fixed', 'libmoe', 'original'],
  // At the balance that the loss asks for (arXiv 2410.07348, section 3.4): an expert gets τ times as many tokens as one without computation.
  tokenCost(given, place) {
    const { zeroExperts, copyExperts, constantExperts, cheapWeight } = complete(given, place);
    const own = (place.compat === 'libmoe' ? 1 : cheapWeight) * place.experts;
    return { experts: (place.topK * own) / (own + zeroExperts + copyExperts + constantExperts) };
  },
  create(given, place) {
    const o = complete(given, place);
    const rule = ruleOf('softmax', o, place);
    if (o.renormaliseZero && o.zeroExperts > 0) rule.weights = 'scores';
    if (place.compat === 'original') rule.losses = { ...rule.losses, over: 'batch' };
    return new MoePlusPlusRouter(o, rule, place);
  },
});
