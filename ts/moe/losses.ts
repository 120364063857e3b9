import { add, cast, divide, greater, log, maximum, multiply, scale, square } from '../tensor/elementwise.ts';
import type { Gate } from '../tensor/gating.ts';
import { noGrad, type Tensor } from '../tensor/index.ts';
import { sum } from '../tensor/reduction.ts';
import { slice } from '../tensor/shape.ts';
import type { Coefficient } from './coefficient.ts';
import type { RoutingLoss, Statistics } from './collection.ts';
import type { RoutingContext } from './context.ts';

/** The statistics that losses are made of; a {@link Gate} has them. */
export type GateStatistics = Pick<
  Gate,
  'logSumExp' | 'probabilitySums' | 'counts' | 'firstCounts' | 'summary' | 'entropy'
>;

/** `[S, 1]`: tokens counted in each sequence, and how many sequences have any, [1, 1]. */
function tokenCounts(gate: GateStatistics): { tokens: Tensor; sequences: Tensor } {
  const tokens = slice(gate.summary, 1, 0, 1);
  const sequences = maximum(sum(cast(greater(tokens, 0), tokens.dtype), undefined, { keepDims: true }), 1);
  return { tokens, sequences };
}

/** How many tokens a gate counted: what a mean over tokens is weighted by. */
const tokensOf = (gate: Pick<GateStatistics, 'summary'>): Tensor =>
  noGrad(() => sum(slice(gate.summary, 1, 0, 1)));

/** The same for a mean over sequences, from their numbers of tokens, [sequences, 1]. */
const sequencesOf = (tokens: Tensor): Tensor => noGrad(() => sum(cast(greater(tokens, 0), tokens.dtype)));

/** What {@link balanceLoss} counts. */
export interface BalanceOptions {
  topK: number;
  /** Count all choices and divide by topK (default), or first choices only. */
  choices?: 'all' | 'first' | undefined;
}

const chosenOf = (gate: GateStatistics, { choices = 'all' }: BalanceOptions): Tensor =>
  cast(choices === 'all' ? gate.counts : gate.firstCounts, gate.summary.dtype);
const perTokenOf = ({ choices = 'all', topK }: BalanceOptions): number => (choices === 'all' ? topK : 1);

/**
 * N · mean over sequences of Σᵢ fᵢ Pᵢ, fᵢ the share of choices that fell on expert i (no gradient), Pᵢ its mean probability: 1 when balanced
 * (Fedus et al., "Switch Transformers", arXiv 2101.03961; LibMoE's balance loss and its `standard` regulariser).
 */
export function balanceLoss(gate: GateStatistics, options: BalanceOptions): Tensor {
  const experts = gate.probabilitySums.shape[1]!;
  const factors = noGrad(() => {
    const { tokens, sequences } = tokenCounts(gate);
    const counted = maximum(tokens, 1);
    const share = scale(chosenOf(gate, options), experts / perTokenOf(options));
    return divide(share, multiply(square(counted), sequences));
  });
  return sum(multiply(gate.probabilitySums, factors));
}

/** {@link balanceLoss} with shares and means over the tokens of the global batch instead of those of each sequence. */
export function batchBalanceLoss(gate: GateStatistics, options: BalanceOptions): Statistics {
  const experts = gate.probabilitySums.shape[1]!;
  const rows = (t: Tensor): Tensor => sum(t, 0, { keepDims: true });
  return {
    parts: [
      rows(gate.probabilitySums),
      ...noGrad(() => [rows(chosenOf(gate, options)), rows(tokenCounts(gate).tokens)]),
    ],
    global: true,
    finish: ([probabilities, chosen, tokens]) => {
      const factors = noGrad(() => {
        const share = scale(chosen!, experts / perTokenOf(options));
        return divide(share, square(maximum(tokens!, 1)));
      });
      return sum(multiply(probabilities!, factors));
    },
  };
}

/** Mean over tokens of the squared log-sum-exp of their logits (Zoph et al., "ST-MoE", arXiv 2202.08906). */
export function routerZLoss(gate: GateStatistics): Tensor {
  const tokens = noGrad(() => maximum(sum(slice(gate.summary, 1, 0, 1)), 1));
  return divide(sum(square(gate.logSumExp)), tokens);
}

/** −mean over tokens of the entropy of their own softmax (LibMoE's `step`; needs a gate with `entropy`). */
export function tokenEntropyLoss(gate: GateStatistics & { entropy: Tensor }): Tensor {
  const tokens = noGrad(() => maximum(sum(slice(gate.summary, 1, 0, 1)), 1));
  return scale(divide(sum(gate.entropy), tokens), -1);
}

/** −mean over rows of the entropy of sums / tokens: `sums` [rows, experts] of softmax probabilities over `tokens` [rows, 1]. */
export function meanEntropyLoss(sums: Tensor, tokens: Tensor): Tensor {
  const rows = noGrad(() => maximum(sum(cast(greater(tokens, 0), tokens.dtype)), 1));
  const p = divide(
    sums,
    noGrad(() => maximum(tokens, 1)),
  );
  // An expert that no token gives a representable probability adds 0 · log(tiny), not NaN.
  return divide(sum(multiply(p, log(maximum(p, 1e-37)))), rows);
}

/**
 * - `switch`: {@link balanceLoss} of softmax probabilities, whatever the score (LibMoE's vision-language layers);
 * - `standard`: the same of the scores, a sigmoid's divided by their sum (its language models);
 * - `step`, `time`, `layers_time`, `global`: minus the entropy of each token's softmax, of its mean over a sequence, of that mean over all
 *   calls of the layer too, of the mean over the batch (and all ranks);
 * - `none`.
 */
export const balanceModes = ['switch', 'standard', 'step', 'time', 'layers_time', 'global', 'none'] as const;
/** One of {@link balanceModes}. */
export type BalanceMode = (typeof balanceModes)[number];

/** Which losses {@link gateLosses} makes, and their coefficients. */
export interface GateLossOptions {
  balance: BalanceMode;
  balanceCoefficient: Coefficient;
  zCoefficient: Coefficient;
  topK: number;
  choices?: BalanceOptions['choices'];
  /** Take shares and means of the modes `switch` and `standard` per sequence (default), or over the global batch. */
  over?: 'sequence' | 'batch' | undefined;
}

const add2 = (a: Tensor, b: Tensor): Tensor => add(a, b);

/** The balance and z losses of a gate as a router returns them; nothing outside training, and nothing for a coefficient of 0. */
export function gateLosses(
  gate: GateStatistics,
  options: GateLossOptions,
  context: RoutingContext,
): RoutingLoss[] {
  const { balance, balanceCoefficient, zCoefficient, topK, choices, over } = options;
  if (!context.training) return [];
  const losses: RoutingLoss[] = [];
  if (balance !== 'none' && balanceCoefficient !== 0) {
    losses.push({
      name: 'balance',
      coefficient: balanceCoefficient,
      ...balanceTerm(gate, balance, { topK, choices }, over),
    });
  }
  if (zCoefficient !== 0)
    losses.push({
      name: 'routerZ',
      coefficient: zCoefficient,
      value: routerZLoss(gate),
      units: tokensOf(gate),
    });
  return losses;
}

function balanceTerm(
  gate: GateStatistics,
  mode: BalanceMode,
  options: BalanceOptions,
  over: GateLossOptions['over'],
): { value: Tensor; units: Tensor } | Statistics {
  const { tokens } = noGrad(() => tokenCounts(gate));
  switch (mode) {
    case 'step':
      return { value: tokenEntropyLoss({ ...gate, entropy: gate.entropy! }), units: tokensOf(gate) };
    case 'time':
      return { value: meanEntropyLoss(gate.probabilitySums, tokens), units: sequencesOf(tokens) };
    case 'layers_time':
      return {
        parts: [gate.probabilitySums, tokens],
        add: add2,
        finish: ([sums, n]) => meanEntropyLoss(sums!, n!),
        units: ([, n]) => sequencesOf(n!),
      };
    case 'global':
      return {
        parts: [
          sum(gate.probabilitySums, 0, { keepDims: true }),
          noGrad(() => sum(tokens, 0, { keepDims: true })),
        ],
        add: add2,
        global: true,
        finish: ([sums, n]) => meanEntropyLoss(sums!, n!),
      };
    default:
      return over === 'batch'
        ? batchBalanceLoss(gate, options)
        : { value: balanceLoss(gate, options), units: sequencesOf(tokens) };
  }
}
