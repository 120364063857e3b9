import { add, cast, divide, greater, log, maximum, multiply, scale, square } from '../tensor/elementwise.ts';
import type { Gate } from '../tensor/gating.ts';
import { noGrad, type Tensor } from '../tensor/index.ts';
import { sum } from '../tensor/reduction.ts';
import { slice } from '../tensor/shape.ts';
import type { Coefficient } from './coefficient.ts';
import type { Reduce, RoutingContext, RoutingLoss } from './context.ts';

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

/** What {@link balanceLoss} counts, and over which tokens. */
export interface BalanceOptions {
  topK: number;
  /** Count all choices and divide by topK (default), or first choices only. */
  choices?: 'all' | 'first' | undefined;
  /** Take the product per sequence and average (default), or over the whole batch. */
  over?: 'sequence' | 'batch' | undefined;
  /** With `over: 'batch'`: sums the choices over all ranks, so that the frequencies are those of the global batch. */
  reduce?: Reduce | undefined;
}

/**
 * N · mean over sequences of Σᵢ fᵢ Pᵢ, fᵢ the share of choices that fell on expert i (no gradient), Pᵢ its mean probability: 1 when balanced
 * (Fedus et al., "Switch Transformers", arXiv 2101.03961; LibMoE's balance loss and its `standard` regulariser).
 */
export function balanceLoss(gate: GateStatistics, options: BalanceOptions): Tensor {
  const { topK, choices = 'all', over = 'sequence', reduce } = options;
  const experts = gate.probabilitySums.shape[1]!;
  const factors = noGrad(() => {
    const { tokens, sequences } = tokenCounts(gate);
    const chosen = cast(choices === 'all' ? gate.counts : gate.firstCounts, tokens.dtype);
    const perToken = choices === 'all' ? topK : 1;
    if (over === 'batch') {
      const here = sum(tokens, 0, { keepDims: true });
      const counts = sum(chosen, 0, { keepDims: true });
      const global = { tokens: reduce ? reduce(here) : here, counts: reduce ? reduce(counts) : counts };
      const share = divide(scale(global.counts, experts / perToken), maximum(global.tokens, 1));
      return divide(share, maximum(here, 1));
    }
    const counted = maximum(tokens, 1);
    return divide(scale(chosen, experts / perToken), multiply(square(counted), sequences));
  });
  return sum(multiply(gate.probabilitySums, factors));
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
  over?: BalanceOptions['over'];
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
      ...balanceTerm(gate, balance, { topK, choices, over }, context),
    });
  }
  if (zCoefficient !== 0)
    losses.push({ name: 'routerZ', coefficient: zCoefficient, value: routerZLoss(gate) });
  return losses;
}

type Term =
  | { value: Tensor }
  | { parts: Tensor[]; finish: (sums: readonly Tensor[]) => Tensor; add: typeof add2 };

function balanceTerm(
  gate: GateStatistics,
  mode: BalanceMode,
  options: BalanceOptions,
  context: RoutingContext,
): Term {
  const { reduce } = context;
  const { tokens } = noGrad(() => tokenCounts(gate));
  switch (mode) {
    case 'step':
      return { value: tokenEntropyLoss({ ...gate, entropy: gate.entropy! }) };
    case 'time':
      return { value: meanEntropyLoss(gate.probabilitySums, tokens) };
    case 'layers_time':
      return {
        parts: [gate.probabilitySums, tokens],
        add: add2,
        finish: ([sums, n]) => meanEntropyLoss(sums!, n!),
      };
    case 'global':
      return {
        parts: [
          sum(gate.probabilitySums, 0, { keepDims: true }),
          noGrad(() => sum(tokens, 0, { keepDims: true })),
        ],
        add: add2,
        finish: ([sums, n]) =>
          reduce ? meanEntropyLoss(reduce(sums!), reduce(n!)) : meanEntropyLoss(sums!, n!),
      };
    default:
      return { value: balanceLoss(gate, { ...options, reduce }) };
  }
}
