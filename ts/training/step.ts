import { ForwardContext, type ForwardOptions } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { streamOf } from '../nn/initialisers.ts';
import type { Tensor } from '../tensor/index.ts';
import type { BatchKind } from './micro-batches.ts';
import { type LossTerm, type MicroResult, microStep, type TrainableModel } from './micro-step.ts';
import { type RoutingStatistics, routingStatistics } from './routing-statistics.ts';
import type { Strategy } from './strategy/strategy.ts';

/** A step whose passes have been enqueued; gradients are left in the parameters. */
export interface StepPasses {
  /** Every loss of every micro-batch, scalars on the device: the step counts only if all are finite. */
  losses: Tensor[];
  /** Waits for the device: the step's losses and routing, once. */
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
}

/** What all passes of a step know. */
export interface StepPlace {
  /** Steps done before. */
  step: number;
  totalSteps: number;
  seed: number;
}

/** What the forward pass of a micro-batch is told. */
export function passOptions({ step, totalSteps, seed }: StepPlace, microBatch: number): ForwardOptions {
  // Micro-batches must not draw the same random numbers.
  const own = microBatch === 0 ? seed : streamOf(`${seed}/micro-batch/${microBatch}`);
  return { training: true, step, totalSteps, seed: own };
}

/** Runs the micro-batches of a step; nothing is read from the device yet. Throws ERR_LIBMOE_DATA when no token counts in the loss. */
export async function forwardBackward<Batch>(
  model: TrainableModel<Batch>,
  microBatches: readonly Batch[],
  kind: BatchKind<Batch>,
  strategy: Strategy,
  at: StepPlace & { turn: () => Promise<void> },
): Promise<StepPasses> {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const targets = microBatches.map((batch) => kind.targets(batch));
  const tokens = microBatches.map((batch) => kind.tokens(batch));
  const [allTokens, allTargets] = (await strategy.reduceCounts([sum(tokens), sum(targets)])) as [
    number,
    number,
  ];
  if (allTargets === 0) {
    fail('ERR_LIBMOE_DATA', `the batch of step ${at.step + 1} has no token that counts in the loss`);
  }
  const results: MicroResult[] = [];
  const contexts: ForwardContext[] = [];
  const dispose = (): void => {
    for (const context of contexts.splice(0)) context.dispose();
    for (const { crossEntropy, terms } of results.splice(0)) {
      crossEntropy.dispose();
      for (const { value } of terms) value.dispose();
    }
  };
  try {
    for (const [index, batch] of microBatches.entries()) {
      if (targets[index] === 0) continue;
      const context = new ForwardContext(passOptions(at, index));
      contexts.push(context);
      results.push(microStep(model, batch, context, targets[index]! / allTargets));
      await at.turn();
    }
  } catch (error) {
    dispose();
    throw error;
  }
  return {
    losses: results.flatMap(({ crossEntropy, terms }) => [crossEntropy, ...terms.map(({ value }) => value)]),
    dispose,
    async outcome() {
      const records = contexts.flatMap((context) => context.records);
      const [losses, routing] = await Promise.all([gather(results), routingStatistics(records, strategy)]);
      return { tokens: allTokens, ...losses, ...routing };
    },
  };
}

async function gather(results: readonly MicroResult[]) {
  const number = async (t: Tensor): Promise<number> => Number((await t.read())[0]);
  const read = await Promise.all(
    results.map(async (result) => ({
      ...result,
      entropy: number(result.crossEntropy),
      values: await Promise.all(result.terms.map(({ value }) => number(value))),
    })),
  );
  let crossEntropy = 0;
  const terms = new Map<string, LossTerm>();
  for (const result of read) {
    crossEntropy += result.weight * (await result.entropy);
    for (const [i, { name, layer, coefficient }] of result.terms.entries()) {
      const key = `${name} ${layer}`;
      const term = terms.get(key) ?? { name, layer, coefficient, value: 0 };
      term.value += result.weight * result.values[i]!;
      terms.set(key, term);
    }
  }
  const all = [...terms.values()];
  const mean = (kind: string) => {
    const values = all.filter(({ name }) => name === kind).map(({ value }) => value);
    return values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : 0;
  };
  return {
    crossEntropy,
    loss: all.reduce((total, { coefficient, value }) => total + coefficient * value, crossEntropy),
    balanceLoss: mean('balance'),
    routerZLoss: mean('routerZ'),
    terms: all,
  };
}
