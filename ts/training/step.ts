import { ForwardContext, type ForwardOptions, type RoutingRecord } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { streamOf } from '../nn/initialisers.ts';
import type { Tensor } from '../tensor/index.ts';
import type { BatchKind } from './micro-batches.ts';
import { type LossTerm, type MicroResult, microStep, type TrainableModel } from './micro-step.ts';
import { type RoutingStatistics, summariesOf } from './routing-statistics.ts';
import type { Strategy } from './strategy/strategy.ts';

/** A step whose passes have been enqueued; gradients are left in the parameters. */
export interface StepPasses {
  /** Every loss of every micro-batch, on the device: the step counts only if all are finite. */
  losses: Tensor[];
  /** Waits for the device: the step's losses and routing, once, and adds them up over the ranks. */
  outcome(): Promise<StepOutcome>;
  /** Frees what the passes left, read or not. */
  dispose(): void;
}

/** The losses and the routing of one step. */
export interface StepOutcome extends RoutingStatistics {
  /** On all ranks. */
  tokens: number;
  loss: number;
  crossEntropy: number;
  balanceLoss: number;
  routerZLoss: number;
  terms: LossTerm[];
  /** Ranks whose own part of the losses is not finite. */
  brokenRanks: number[];
}

/** What all passes of a step know. */
export interface StepPlace {
  /** Steps done before. */
  step: number;
  totalSteps: number;
  seed: number;
  rank: number;
  /** How many there are; default 1. */
  ranks?: number;
}

/** What the forward pass of a micro-batch is told. */
export function passOptions(
  { step, totalSteps, seed, rank, ranks = 1 }: StepPlace,
  microBatch: number,
): ForwardOptions {
  // Neither micro-batches nor ranks may draw the same random numbers.
  const place = [
    ...(rank === 0 ? [] : [`rank/${rank}`]),
    ...(microBatch === 0 ? [] : [`micro-batch/${microBatch}`]),
  ];
  const own = place.length === 0 ? seed : streamOf([seed, ...place].join('/'));
  return { training: true, step, totalSteps, seed: own, ...(ranks > 1 && { ranks }) };
}

/** The micro-batches of a step on this rank, and what all ranks count in them. */
export interface StepBatches<Batch> {
  parts: Batch[];
  /** Tokens of the step on all ranks. */
  tokens: number;
  /** Counted tokens of each part on this rank, and on all ranks. */
  targets: number[];
  allTargets: number[];
}

/** Cuts a batch into as many parts on every rank. Throws ERR_LIBMOE_DATA when no token counts in the loss. */
export async function stepBatches<Batch>(
  batch: Batch,
  wanted: number,
  kind: BatchKind<Batch>,
  strategy: Strategy,
  step: number,
): Promise<StepBatches<Batch>> {
  for (let count = wanted; ; ) {
    const parts = kind.split(batch, count);
    const targets = parts.map((part) => kind.targets(part));
    const tokens = parts.reduce((sum, part) => sum + kind.tokens(part), 0);
    // How many ranks have 1, 2, … parts: with few sequences not every rank has as many as are wanted.
    const histogram = Array.from({ length: count }, (_, i) => (parts.length === i + 1 ? 1 : 0));
    const padded = Array.from({ length: count }, (_, i) => targets[i] ?? 0);
    const [allTokens = 0, ...sums] = await strategy.reduceCounts([tokens, ...histogram, ...padded]);
    const fewest = sums.findIndex((ranks) => ranks > 0) + 1;
    const most = sums.slice(0, count).findLastIndex((ranks) => ranks > 0) + 1;
    if (fewest !== most) {
      count = fewest;
      continue;
    }
    const allTargets = sums.slice(count, count + parts.length);
    if (allTargets.every((targetCount) => targetCount === 0))
      fail('ERR_LIBMOE_DATA', `the batch of step ${step + 1} has no token that counts in the loss`);
    return { parts, tokens: allTokens, targets, allTargets };
  }
}

/** Runs the micro-batches of a step; nothing is read from the device yet. */
export async function forwardBackward<Batch>(
  model: TrainableModel<Batch>,
  batches: StepBatches<Batch>,
  parameters: ReadonlyMap<string, Tensor>,
  strategy: Strategy,
  at: StepPlace & { turn: () => Promise<void> },
): Promise<StepPasses> {
  const { parts, targets, allTargets } = batches;
  const total = allTargets.reduce((sum, count) => sum + count, 0);
  const last = allTargets.findLastIndex((count) => count > 0);
  const results: MicroResult[] = [];
  const contexts: ForwardContext[] = [];
  let unwatch: ((completed: boolean) => void) | undefined;
  const dispose = (): void => {
    for (const context of contexts.splice(0)) context.dispose();
    for (const { crossEntropy, terms } of results.splice(0)) {
      crossEntropy.dispose();
      for (const { value } of terms) value.dispose();
    }
  };
  try {
    for (const [index, batch] of parts.entries()) {
      // A part that counts on another rank runs here too: the ranks must meet in the same collectives.
      if (allTargets[index] === 0) continue;
      const context = new ForwardContext(passOptions(at, index));
      contexts.push(context);
      const weight = { own: targets[index]! / total, all: allTargets[index]! / total };
      results.push(
        await microStep(model, batch, context, weight, strategy, () => {
          if (index === last) unwatch = strategy.watchGradients(parameters);
        }),
      );
      await at.turn();
    }
  } catch (error) {
    unwatch?.(false);
    dispose();
    throw error;
  }
  unwatch?.(true);
  return {
    losses: results.flatMap(({ crossEntropy, terms }) => [crossEntropy, ...terms.map(({ value }) => value)]),
    dispose,
    async outcome() {
      const records = contexts.flatMap((context) => context.records);
      return { tokens: batches.tokens, ...(await gather(results, records, strategy)) };
    },
  };
}

/** Reads what the micro-batches left on the device, and adds it up over the ranks in one exchange. */
async function gather(
  results: readonly MicroResult[],
  records: readonly RoutingRecord[],
  strategy: Strategy,
): Promise<Omit<StepOutcome, 'tokens'>> {
  const { rank, worldSize } = strategy;
  // Asked for together: the device is waited for once.
  const [read, routing] = await Promise.all([
    Promise.all(
      results.map(({ crossEntropy, terms, weight }) =>
        Promise.all([
          numberOf(crossEntropy),
          Promise.all(terms.map((term) => reported(term, weight, rank))),
          Promise.all(terms.map((term) => numberOf(term.coefficientTensor ?? term.coefficient))),
        ]),
      ),
    ),
    summariesOf(records),
  ]);
  let crossEntropy = 0;
  const terms = new Map<string, LossTerm>();
  for (const [r, result] of results.entries()) {
    const [entropy, values, coefficients] = read[r]!;
    crossEntropy += result.weight.own * entropy;
    for (const [i, { name, layer }] of result.terms.entries()) {
      const key = `${name} ${layer}`;
      const term = terms.get(key) ?? { name, layer, coefficient: coefficients[i]!, value: 0 };
      term.value += values[i]!;
      terms.set(key, term);
    }
  }
  const own = [crossEntropy, ...[...terms.values()].map(({ value }) => value)];
  const broken = own.every(Number.isFinite) ? 0 : 1;
  const flags = Array.from({ length: worldSize }, (_, r) => (r === rank ? broken : 0));
  const sums = await strategy.reduceCounts([...own, ...flags, ...routing.numbers]);
  const all = [...terms.values()].map((term, i) => ({ ...term, value: sums[i + 1]! }));
  const mean = (kind: string) => {
    const values = all.filter(({ name }) => name === kind).map(({ value }) => value);
    return values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : 0;
  };
  const total = sums[0]!;
  return {
    crossEntropy: total,
    loss: all.reduce((sum, { coefficient, value }) => sum + coefficient * value, total),
    balanceLoss: mean('balance'),
    routerZLoss: mean('routerZ'),
    terms: all,
    brokenRanks: flags.flatMap((_, r) => (sums[own.length + r]! > 0 ? [r] : [])),
    ...routing.statistics(sums.slice(own.length + worldSize)),
  };
}

/** What a term adds to its mean over micro-batches and ranks. */
async function reported(
  { value, share }: MicroResult['terms'][number],
  { own, all }: MicroResult['weight'],
  rank: number,
): Promise<number> {
  if (share === undefined) return own * (await numberOf(value));
  // Every rank has the same; one of them says it.
  if (share === 'whole') return rank === 0 ? all * (await numberOf(value)) : 0;
  const [part, whole] = await Promise.all([numberOf(share), numberOf(value)]);
  return all * part * whole;
}

const numberOf = async (t: Tensor | number): Promise<number> =>
  typeof t === 'number' ? t : Number((await t.read())[0]);
