import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { buffer } from '../../nn/module.ts';
import { cast, divide, log, maximum, multiply, relu, scale } from '../../tensor/elementwise.ts';
import { type Gate, gate } from '../../tensor/gating.ts';
import { full, noGrad, type Tensor, tensor } from '../../tensor/index.ts';
import { sum } from '../../tensor/reduction.ts';
import { gatherRows, reshape, slice } from '../../tensor/shape.ts';
import type { RoutingContext, RoutingLoss } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { requireTokens, type StepChoices } from '../router.ts';
import type { AssignmentRouting } from '../routing.ts';
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
    this.sparsityWeight = buffer(full([1], given.sparsityStart, { device: place.device ?? 'cpu' }));
  }

  override route(tokens: Tensor, context: RoutingContext): AssignmentRouting {
    requireTokens(tokens, this.width, context.layerName);
    const { layerName, tokenMask, sequenceOffsets } = context;
    const { experts: n } = this.#place;
    const logits = this.logits(tokens, context);
    const gates = relu(logits);
    const { slots, active } = openGates(logits, tokenMask, layerName);
    // The statistics take the gates divided by their sum for probabilities; of a token without experts they are even.
    const statistics = noGrad(() =>
      gate(log(maximum(gates, 1e-30)), {
        topK: slots.shape[1]!,
        experts: slots,
        tokenMask,
        sequenceOffsets,
        probabilities: context.trace,
      }),
    );
    const { device } = tokens;
    const list = (of: (place: number) => number): Tensor =>
      tensor(Int32Array.from(active, of), [active.length], { device });
    const flat = reshape(gates, [gates.size]);
    return {
      assignments: {
        token: list((at) => Math.floor(at / n)),
        expert: list((at) => at % n),
        weight: gatherRows(
          flat,
          list((at) => at),
        ),
      },
      logits,
      probabilities: statistics.probabilities,
      statistics,
      losses: [...this.#penalty(gates, statistics, context), ...this.#usual(logits, slots, context)],
    };
  }

  /** λ · mean over layers and tokens of Σᵢ fᵢ gᵢ, fᵢ = N / (topK · tokens) · how many chose expert i (no gradient). */
  #penalty(gates: Tensor, { counts, summary }: Gate, { training, tokenMask }: RoutingContext): RoutingLoss[] {
    if (!training) return [];
    const { experts, layers, topK } = this.#place;
    const tokens = noGrad(() => maximum(sum(slice(summary, 1, 0, 1)), 1));
    const factors = noGrad(() => {
      const chosen = sum(cast(counts, gates.dtype), 0, { keepDims: true });
      const load = divide(scale(chosen, experts / topK), tokens);
      const each = this.#options.loadWeighted ? load : scale(load, 0, 1);
      return tokenMask ? multiply(each, reshape(cast(tokenMask, gates.dtype), [tokenMask.size, 1])) : each;
    });
    const value = scale(divide(sum(multiply(gates, factors)), tokens), 1 / layers);
    return [{ name: 'sparsity', coefficient: this.sparsityWeight.item(), value }];
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

  override afterStep({ layers }: StepChoices): void {
    const { experts, topK } = this.#place;
    let chosen = 0;
    let all = 0;
    for (const { counts, tokens } of layers.values()) {
      chosen += counts.reduce((a, c) => a + c, 0);
      all += tokens * counts.length;
    }
    if (all === 0) return;
    // Compared in whole choices: the target is met exactly or it is not.
    const tooMany = Math.sign(chosen * experts - topK * all);
    const now = this.sparsityWeight.item() * this.#options.sparsityFactor ** tooMany;
    this.sparsityWeight.write([Math.min(largest, Math.max(smallest, now))]);
  }
}

/** Positive logits: their places in the flat matrix, token by token, the largest first, and as slots i32 [tokens, most]. */
function openGates(logits: Tensor, tokenMask: Tensor | undefined, layer: string) {
  const [tokens = 0, n = 0] = logits.shape;
  const values = logits.toArray();
  const mask = tokenMask?.toArray();
  const rows: number[][] = [];
  for (let t = 0; t < tokens; t += 1) {
    const open: number[] = [];
    for (let at = t * n; at < (t + 1) * n && (!mask || mask[t]); at += 1) {
      const value = values[at]!;
      if (!(value < Number.POSITIVE_INFINITY))
        fail('ERR_LIBMOE_NOT_FINITE', `the logits of token ${t} in layer ${layer} hold NaN or +infinity`);
      if (value > 0) open.push(at);
    }
    rows.push(open.sort((a, b) => values[b]! - values[a]! || a - b));
  }
  const most = rows.reduce((a, { length }) => Math.max(a, length), 1);
  const slots = new Int32Array(tokens * most).fill(-1);
  rows.forEach((open, t) => {
    slots.set(
      open.map((at) => at % n),
      t * most,
    );
  });
  return { slots: tensor(slots, [tokens, most], { device: logits.device }), active: rows.flat() };
}

registerRouter('remoe', {
  summary: 'ReLU gates, a number of experts that varies',
  unlikeDense: () => 'the gates are relu(logit), which is near 0 at the start and never divided by its sum',
  options,
  compat: ['fixed', 'original'],
  create: (given, place) => new ReluRouter(given, place),
});
