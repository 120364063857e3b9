import { MoeLayer, mergeSummaries, type Router, type RoutingRecord, type StepChoices } from '../moe/index.ts';
import { Module } from '../nn/module.ts';
import type { LayerRouting } from './step-report.ts';

export interface RoutingStatistics {
  /** By layer name, for metrics. */
  routing: Record<string, LayerRouting>;
  /** Choices per router output, and tokens, of the whole step on all ranks, by layer name. */
  choices: StepChoices['layers'];
}

/** What the ranks add up of the routing of a step. */
export interface RoutingSummaries {
  /** This rank's counts and sums of all layers; as long and in the same order on every rank. */
  numbers: number[];
  /** From the sums of `numbers` over all ranks: counts are summed, means weighted by tokens. */
  statistics(sums: readonly number[]): RoutingStatistics;
}

/** Puts the routing records of a step's micro-batches together. */
export async function summariesOf(records: readonly RoutingRecord[]): Promise<RoutingSummaries> {
  const summaries = mergeSummaries(await Promise.all(records.map((record) => record.read())));
  const numbers = [...summaries.values()].flatMap(({ entropy, margin, dropped, tokens, counts }) => [
    tokens,
    entropy * tokens,
    margin * tokens,
    dropped,
    ...counts,
  ]);
  return {
    numbers,
    statistics(sums) {
      const routing: Record<string, LayerRouting> = {};
      const choices = new Map<string, { counts: readonly number[]; tokens: number }>();
      let at = 0;
      for (const [layer, own] of summaries) {
        const [tokens = 0, entropies = 0, margins = 0, dropped = 0, ...counts] = sums.slice(
          at,
          at + 4 + own.counts.length,
        );
        at += 4 + own.counts.length;
        choices.set(layer, { counts, tokens });
        const mean = (total: number): number => (tokens > 0 ? total / tokens : 0);
        routing[layer] = { counts, entropy: mean(entropies), margin: mean(margins), dropped };
      }
      return { routing, choices };
    },
  };
}

/** Tells every router of the model what the step's choices were. */
export function routersAfterStep(
  model: object,
  layers: StepChoices['layers'],
  at: Pick<StepChoices, 'step' | 'totalSteps'>,
): void {
  if (!(model instanceof Module)) return;
  const moe = [...model.namedModules().values()].filter((module) => module instanceof MoeLayer);
  const known = new Map<string, { counts: readonly number[]; tokens: number; router?: Router }>(layers);
  for (const { name, router } of moe) {
    const own = layers.get(name);
    if (own) known.set(name, { ...own, router });
  }
  for (const layer of moe) {
    const own = layers.get(layer.name);
    // What is frozen stays as it is, biases and coefficients that routers move themselves included.
    const learns = layer.parameters().some(({ requiresGrad }) => requiresGrad);
    if (own && learns) layer.afterStep({ ...own, ...at, layers: known });
  }
}
