import { z } from 'zod';
import { buffer } from '../../nn/module.ts';
import {
  assign,
  cast,
  divide,
  log,
  maximum,
  minimum,
  multiply,
  relu,
  scale,
} from '../../tensor/elementwise.ts';
import { expertLists, type Gate, gate, take } from '../../tensor/gating.ts';
import { full, noGrad, scope, type Tensor } from '../../tensor/index.ts';
import { sum } from '../../tensor/reduction.ts';
import { reshape, slice } from '../../tensor/shape.ts';
import type { RoutingLoss } from '../collection.ts';
import type { RoutingContext } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { requireTokens, type StepChoices } from '../router.ts';
import type { Routing } from '../routing.ts';
import { ScoringRouter } from './scoring.ts';
import { ownWeightOptions, ruleOf } from './top-k-rule.ts';

const options = ownWeightOptions.omit({ expertDropout: true }).extend({
  /** λ at the start, and α: what it is multiplied or divided by after each step. */
  sparsityStart: z.number().positive().default(1e-8),
  sparsityFactor: z.number().min(1).default(1.2),
  /** Weigh every gate by its expert's load, so that the penalty balances too; false: plain L1. */
  loadWeighted: z.boolean().default(true),
});
type Options = z.output<typeof options>;

/** λ must stay a number that a factor can bring back. */
const smallest = 1e-30;
const largest = 1e30;

/**
 * ReMoE (Wang, Zhu and Chen, arXiv 2412.14711): a token goes to every expert whose gate relu(W x) is positive, weighted by the gate. A penalty
 * λ on the gates, adapted after each step, makes the mean number of experts per token topK.
 */
class ReluRouter extends ScoringRouter {
  /** f32 [1]: λ. Equal in all layers, as all see the same sparsity. */
  sparsityWeight: Tensor;
  readonly #options: Options;
  readonly #place: RouterPlace;

  constructor(given: Options, place: RouterPlace) {
    const own = {
      ...given,
      activationAfterTopK: false,
      expertDropout: 0,
      balance: given.balance ?? 'none',
    } as const;
    super(ruleOf('softmax', own, place), own, place);
    this.#options = given;
    this.#place = place;
    this.sparsityWeight = buffer(
      full([1], given.sparsityStart, { ...(place.device && { device: place.device }) }),
    );
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { tokenMask, sequenceOffsets } = context;
    const logits = this.logits(tokens, context);
    const gates = relu(logits);
    const experts = context.replayed ?? expertLists(logits, { tokenMask });
    // The statistics take the gates divided by their sum for probabilities; of a token without experts they are even.
    const statistics = noGrad(() =>
      gate(log(maximum(gates, 1e-30)), {
        topK: experts.shape[1]!,
        experts,
        tokenMask,
        sequenceOffsets,
        probabilities: context.trace,
      }),
    );
    return {
      experts,
      weights: take(gates, experts),
      logits,
      probabilities: statistics.probabilities,
      statistics,
      losses: [...this.#penalty(gates, statistics, context), ...this.#usual(logits, experts, context)],
    };
  }

  /** λ · mean over layers and tokens of the global batch of Σᵢ fᵢ gᵢ, fᵢ = N / (topK · tokens) · how many chose expert i (no gradient). */
  #penalty(gates: Tensor, { counts, summary }: Gate, context: RoutingContext): RoutingLoss[] {
    const { training, tokenMask } = context;
    if (!training) return [];
    const { experts, layers, topK } = this.#place;
    const counted = tokenMask && noGrad(() => reshape(cast(tokenMask, gates.dtype), [tokenMask.size, 1]));
    const open = sum(counted ? multiply(gates, counted) : gates, 0, { keepDims: true });
    const parts = noGrad(() => [
      sum(cast(counts, gates.dtype), 0, { keepDims: true }),
      sum(slice(summary, 1, 0, 1)),
    ]);
    const { loadWeighted } = this.#options;
    const finish = ([sums, chosen, all]: readonly Tensor[]): Tensor => {
      const tokens = noGrad(() => maximum(all!, 1));
      if (!loadWeighted) return scale(divide(sum(sums!), tokens), 1 / layers);
      const load = noGrad(() => divide(scale(chosen!, experts / topK), tokens));
      return scale(divide(sum(multiply(sums!, load)), tokens), 1 / layers);
    };
    // As it is now: the buffer changes in place.
    const coefficient = noGrad(() => scale(this.sparsityWeight, 1));
    return [
      { name: 'sparsity', coefficient, parts: [open, ...parts], global: true, overLayers: true, finish },
    ];
  }

  /** The losses of every router, of the softmax of the logits, if asked for. */
  #usual(logits: Tensor, slots: Tensor, context: RoutingContext): RoutingLoss[] {
    const { tokenMask, sequenceOffsets, training } = context;
    const { balance, zCoefficient } = this.lossTerms;
    if (!training || (balance === 'none' && zCoefficient === 0)) return [];
    const entropy = balance === 'step';
    return this.losses(
      gate(logits, { topK: slots.shape[1]!, experts: slots, tokenMask, sequenceOffsets, entropy }),
      context,
    );
  }

  /** The open gates of all layers with this router, however many they are, against topK for each of their tokens. */
  override afterStep({ layers }: StepChoices): void {
    let open = 0;
    let wanted = 0;
    for (const { counts, tokens, router } of layers.values()) {
      if (router && !(router instanceof ReluRouter)) continue;
      open += counts.reduce((a, c) => a + c, 0);
      wanted += tokens * (router ?? this).topK;
    }
    if (wanted === 0) return;
    // Compared in whole choices: the target is met exactly or it is not.
    const step = this.#options.sparsityFactor ** Math.sign(open - wanted);
    noGrad(() =>
      scope(() => {
        const now = scale(cast(this.sparsityWeight, 'f64'), step);
        assign(this.sparsityWeight, minimum(maximum(now, smallest), largest));
      }),
    );
  }
}

registerRouter('remoe', {
  summary: 'ReLU gates, a number of experts that varies',
  unlikeDense: () => 'the gates are relu(logit), which is near 0 at the start and never divided by its sum',
  options,
  compat: ['fixed', 'original'],
  // The penalty holds the mean at topK; without one half of the logits of a new router are positive, and so are its gates.
  tokenCost: ({ sparsityFactor }, { experts, topK }) => ({
    experts: sparsityFactor > 1 ? topK : experts / 2,
  }),
  create: (given, place) => new ReluRouter(given, place),
});
