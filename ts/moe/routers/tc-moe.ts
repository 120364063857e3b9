import type { z } from 'zod';
import { fail } from '../../native/index.ts';
import {
  add,
  cast,
  divide,
  equal,
  greater,
  greaterEqual,
  maximum,
  multiply,
  reciprocal,
  scale,
  square,
} from '../../tensor/elementwise.ts';
import { type Gate, gate } from '../../tensor/gating.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor, tensor, zeros } from '../../tensor/index.ts';
import { max, sum } from '../../tensor/reduction.ts';
import { cat, reshape, scatterAddRows, slice, split } from '../../tensor/shape.ts';
import { coefficientSchema } from '../coefficient.ts';
import type { RoutingLoss } from '../collection.ts';
import type { RoutingContext } from '../context.ts';
import { gateLosses } from '../losses.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { ofChoices } from './choice-table.ts';
import { ScoringRouter } from './scoring.ts';
import { ownWeightOptions, ruleOf, withLibmoeStart } from './top-k-rule.ts';

const options = ownWeightOptions.extend({
  /** Factor of the reward for probability on the null experts. */
  rewardCoefficient: coefficientSchema.default(1e-5),
});
type Options = z.output<typeof options>;

/** Added to the logits of experts with sign −1 and of null experts (Yan et al.). */
const negativeBias = -1;
const nullBias = -10;

/**
 * TC-MoE (Yan et al., "TC-MoE: Augmenting Mixture of Experts with Ternary Expert Choice", ICLR 2025). The router's outputs are the N experts
 * with sign +1, the same with sign −1, and topK null experts that cost nothing and give nothing.
 */
class TernaryRouter extends ScoringRouter {
  readonly #options: Options;
  readonly #experts: number;
  readonly #place: RouterPlace;

  constructor(given: Options, place: RouterPlace) {
    const own = { ...given, activationAfterTopK: false };
    const rule = ruleOf('softmax', own, place);
    rule.weights = 'scores';
    withLibmoeStart(rule, given, place.compat);
    if (place.compat === 'libmoe' && given.flavour === 'language' && folds(rule.losses.balance))
      fail(
        'ERR_LIBMOE_CONFIG',
        `router "tc-moe": LibMoE's language models cannot compute balance "${rule.losses.balance}" of ternary choices; set balance to step, time, layers_time, global or none, or compat to fixed`,
      );
    super(rule, own, { ...place, experts: 2 * place.experts + place.topK });
    this.#options = given;
    this.#experts = place.experts;
    this.#place = place;
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const raw = this.logits(tokens, context);
    const n = this.#experts;
    const outputs = raw.shape[1]!;
    const { dtype, device } = raw;
    const of = (positive: number, negative: number, none: number): number[] =>
      Array.from({ length: outputs }, (_, i) => (i < n ? positive : i < 2 * n ? negative : none));
    const biased = add(raw, tensor(of(0, negativeBias, nullBias), [1, outputs], { dtype, device }));
    const chosen = this.choose(biased, context, { probabilities: true });
    const choices = chosen.experts;
    const { signed, nulls } = this.#masses(chosen);
    const signs = ofChoices(choices, of(1, -1, 0), 0, dtype);
    // Chosen null experts are in the mass of all null experts already.
    const given = sum(
      multiply(
        chosen.weights,
        noGrad(() => square(signs)),
      ),
      1,
      { keepDims: true },
    );
    const total = maximum(add(given, nulls), 1e-6);
    const weights = multiply(divide(chosen.weights, total), this.#lost(choices, signs));
    const ids = Array.from({ length: outputs }, (_, i) => (i < 2 * n ? i % n : -1));
    const experts = ofChoices(choices, ids, -1, 'i32');
    return {
      experts,
      weights,
      logits: raw,
      choices,
      probabilities: context.trace ? chosen.probabilities : undefined,
      statistics: chosen,
      losses: this.#losses({ raw, chosen, signed, nulls }, context),
    };
  }

  /** [tokens, 1] each: probability of all experts with a sign, and of all null experts; 0 for masked tokens. */
  #masses({ probabilities }: Gate): { signed: Tensor; nulls: Tensor } {
    const { dtype, device } = probabilities!;
    const outputs = probabilities!.shape[1]!;
    const kinds = Array.from({ length: 2 * outputs }, (_, i) =>
      i % outputs < 2 * this.#experts === i < outputs ? 1 : 0,
    );
    const both = linear(probabilities!, tensor(kinds, [2, outputs], { dtype, device }));
    const [signed, nulls] = split(both, [1, 1], 1);
    return { signed: signed!, nulls: nulls! };
  }

  /**
   * Signs as LibMoE's vision-language layers apply them: of the choices of one base expert, null expert j standing for expert j, only the last
   * one counts, as its loop overwrites where it should add.
   */
  #lost(choices: Tensor, signs: Tensor): Tensor {
    if (this.#place.compat !== 'libmoe' || this.#options.flavour === 'language') return signs;
    const [tokens = 0, k = 0] = choices.shape;
    const { dtype, device } = signs;
    if (k === 1) return signs;
    return noGrad(() => {
      const bases = Array.from({ length: 2 * this.#experts + this.topK }, (_, i) => i % this.#experts);
      const base = ofChoices(choices, bases, -1, dtype);
      const alike = equal(reshape(base, [tokens, k, 1]), reshape(base, [tokens, 1, k]));
      const later = Array.from({ length: k * k }, (_, i) => (i % k > Math.floor(i / k) ? 1 : 0));
      const again = multiply(cast(alike, dtype), tensor(later, [1, k, k], { dtype, device }));
      return multiply(signs, scale(max(again, 2), -1, 1));
    });
  }

  #losses(pass: Pass, context: RoutingContext): RoutingLoss[] {
    if (!context.training) return [];
    const { raw, chosen, nulls } = pass;
    const { balance: mode, balanceCoefficient, zCoefficient } = this.lossTerms;
    const { rewardCoefficient } = this.#options;
    const losses: RoutingLoss[] = [];
    if (folds(mode) && balanceCoefficient !== 0)
      losses.push({
        name: 'balance',
        coefficient: balanceCoefficient,
        value: this.#balance(pass, context),
        units: noGrad(() => {
          const tokens = slice(chosen.summary, 1, 0, 1);
          return sum(cast(greater(tokens, 0), tokens.dtype));
        }),
      });
    if (zCoefficient !== 0 || (!folds(mode) && mode !== 'none')) {
      // z-loss and entropies are of the logits as they are.
      const plain = gate(raw, {
        topK: this.topK,
        experts: chosen.experts,
        tokenMask: context.tokenMask,
        sequenceOffsets: context.sequenceOffsets,
        entropy: mode === 'step',
      });
      const usual = { ...this.lossTerms, topK: this.topK, balance: folds(mode) ? ('none' as const) : mode };
      losses.push(...gateLosses(plain, usual, context));
    }
    if (rewardCoefficient !== 0) {
      const units = noGrad(() => sum(slice(chosen.summary, 1, 0, 1)));
      const tokens = noGrad(() => maximum(units, 1));
      const value = multiply(divide(sum(nulls), tokens), -1);
      losses.push({ name: 'reward', coefficient: rewardCoefficient, value, units });
    }
    return losses;
  }

  /** N · mean over sequences of Σ f P: f the share of choices with a sign that fell on expert i, P its probability with both signs together. */
  #balance({ chosen, signed }: Pass, { sequenceOffsets }: RoutingContext): Tensor {
    const n = this.#experts;
    const { counts, summary } = chosen;
    // Probabilities without null experts, summed over the tokens of each sequence.
    const shares = multiply(chosen.probabilities!, reciprocal(maximum(signed, 1e-12)));
    const sums = sequenceOffsets ? sequenceSums(shares, sequenceOffsets) : sum(shares, 0, { keepDims: true });
    const factors = noGrad(() => {
      const tokens = slice(summary, 1, 0, 1);
      const [positive, negative] = split(cast(counts, tokens.dtype), [n, n, sums.shape[1]! - 2 * n], 1);
      const counted = add(positive!, negative!);
      const perSequence = maximum(sum(counted, 1, { keepDims: true }), 1);
      const sequences = maximum(sum(cast(greater(tokens, 0), tokens.dtype)), 1);
      const libmoe = this.#place.compat === 'libmoe';
      // LibMoE puts the choices of the whole batch into every sequence's row, and has no factor N.
      const from = libmoe ? sum(counted, 0, { keepDims: true }) : counted;
      const share = divide(from, multiply(perSequence, maximum(tokens, 1)));
      const each = multiply(share, divide(libmoe ? 1 : n, sequences));
      const none = zeros([sums.shape[0]!, this.topK], { dtype: each.dtype, device: each.device });
      return cat([each, each, none], 1);
    });
    return sum(multiply(sums, factors));
  }
}

/** Rows [tokens, n] added up by sequence, [sequences, n]. */
function sequenceSums(rows: Tensor, sequenceOffsets: Tensor): Tensor {
  const [tokens = 0, width = 0] = rows.shape;
  const sequences = sequenceOffsets.size - 1;
  const index = noGrad(() => {
    // A token is in the last sequence that begins at it or before.
    const positions = tensor(
      Float64Array.from({ length: tokens }, (_, t) => t),
      [tokens, 1],
      {
        device: rows.device,
      },
    );
    const starts = reshape(cast(slice(sequenceOffsets, 0, 0, sequences), 'f64'), [1, sequences]);
    return cast(scale(sum(cast(greaterEqual(positions, starts), 'f64'), 1), 1, -1), 'i32');
  });
  return scatterAddRows([sequences, width], index, rows);
}

interface Pass {
  raw: Tensor;
  chosen: Gate;
  /** [tokens, 1]. */
  signed: Tensor;
  nulls: Tensor;
}

const folds = (mode: string): boolean => mode === 'switch' || mode === 'standard';

registerRouter('tc-moe', {
  summary: 'TC-MoE: experts with a sign, or none',
  unlikeDense: () => 'weights have signs, and null experts take a share of them that gives nothing',
  options,
  compat: ['fixed', 'libmoe', 'original'],
  // The most there are: null experts cost nothing, but with their bias of −10 a new router chooses none, and how many come later is learnt.
  tokenCost: (_, { topK }) => ({ experts: topK }),
  create: (given, place) => new TernaryRouter(given, place),
});
