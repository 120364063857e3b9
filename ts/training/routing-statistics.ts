import { MoeLayer, mergeSummaries, type Router, type RoutingRecord, type StepChoices } from '../moe/index.ts';
import { Module } from '../nn/module.ts';
import type { LayerRouting } from './step-report.ts';
import type { Strategy } from './strategy/strategy.ts';

export interface RoutingStatistics {
  /** By layer name, for metrics. */
  routing: Record<string, LayerRouting>;
  /** Choices per router output, and tokens, of the whole step on all ranks, by layer name. */
  choices: StepChoices['layers'];
}

/** Puts the routing records of a step's micro-batches and of all ranks together: counts are summed, means weighted by tokens. */
export async function routingStatistics(
  records: readonly RoutingRecord[],
  strategy: Strategy,
): Promise<RoutingStatistics> {
  const summaries = mergeSummaries(await Promise.all(records.map((record) => record.read())));
  const routing: Record<string, LayerRouting> = {};
  const choices = new Map<string, { counts: readonly number[]; tokens: number }>();
  for (const [layer, { entropy, margin, dropped, ...own }] of summaries) {
    const sums = [own.tokens, entropy * own.tokens, margin * own.tokens, dropped];
    const reduced = await strategy.reduceCounts([...sums, ...own.counts]);
    const [tokens = 0, entropies = 0, margins = 0, lost = 0, ...counts] = reduced;
    choices.set(layer, { counts, tokens });
    const mean = (total: number): number => (tokens > 0 ? total / tokens : 0);
    routing[layer] = { counts, entropy: mean(entropies), margin: mean(margins), dropped: lost };
  }
  return { routing, choices };
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
    if (own) layer.afterStep({ ...own, ...at, layers: known });
  }
}
