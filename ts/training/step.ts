import { ForwardContext } from '../moe/context.ts';
import { fail } from '../native/index.ts';
import type { BatchKind } from './micro-batches.ts';
import { type LossTerm, type MicroResult, microStep, type TrainableModel } from './micro-step.ts';
import { type RoutingStatistics, routingStatistics } from './routing-statistics.ts';
import type { Strategy } from './strategy/strategy.ts';

/** The losses and the routing of one step, gradients being left in the parameters. */
export interface StepOutcome extends RoutingStatistics {
  /** On all ranks. */
  tokens: number;
  loss: number;
  crossEntropy: number;
  balanceLoss: number;
  routerZLoss: number;
  terms: LossTerm[];
}

/** Runs the micro-batches of a step and gathers what they say. Throws ERR_LIBMOE_DATA when no token counts in the loss. */
export async function forwardBackward<Batch>(
  model: TrainableModel<Batch>,
  microBatches: readonly Batch[],
  kind: BatchKind<Batch>,
  strategy: Strategy,
  at: { step: number; totalSteps: number; seed: number; turn: () => Promise<void> },
): Promise<StepOutcome> {
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
  try {
    for (const [index, batch] of microBatches.entries()) {
      if (targets[index] === 0) continue;
      const context = new ForwardContext({
        training: true,
        step: at.step,
        totalSteps: at.totalSteps,
        seed: at.seed,
      });
      results.push(microStep(model, batch, context, targets[index]! / allTargets));
      await at.turn();
    }
    return { tokens: allTokens, ...(await gather(results)), ...(await routingStatistics(results, strategy)) };
  } finally {
    for (const { crossEntropy, terms } of results) {
      crossEntropy.dispose();
      for (const { value } of terms) value.dispose();
    }
  }
}

async function gather(results: readonly MicroResult[]) {
  let crossEntropy = 0;
  const terms = new Map<string, LossTerm>();
  for (const result of results) {
    crossEntropy += result.weight * Number((await result.crossEntropy.read())[0]);
    for (const { name, layer, coefficient, value } of result.terms) {
      const key = `${name} ${layer}`;
      const term = terms.get(key) ?? { name, layer, coefficient, value: 0 };
      term.value += result.weight * Number((await value.read())[0]);
      terms.set(key, term);
    }
  }
  const all = [...terms.values()];
  const mean = (kind: RegExp) => {
    const values = all.filter(({ name }) => kind.test(name)).map(({ value }) => value);
    return values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : 0;
  };
  return {
    crossEntropy,
    loss: all.reduce((total, { coefficient, value }) => total + coefficient * value, crossEntropy),
    balanceLoss: mean(/balance/i),
    routerZLoss: mean(/^(router)?z/i),
    terms: all,
  };
}
