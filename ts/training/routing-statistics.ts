import { MoeLayer, mergeSummaries, type RoutingRecord } from '../moe/index.ts';
import { Module } from '../nn/module.ts';
import type { LayerRouting } from './step-report.ts';
import type { Strategy } from './strategy/strategy.ts';

export interface RoutingStatistics {
  /** By layer name, for metrics. */
  routing: Record<string, LayerRouting>;
  /** Choices per router output of the whole step on all ranks, by layer name. */
  counts: ReadonlyMap<string, readonly number[]>;
}

/** Puts the routing records of a step's micro-batches together: counts are summed (over ranks too), means weighted by tokens. */
export async function routingStatistics(
  records: readonly RoutingRecord[],
  strategy: Strategy,
): Promise<RoutingStatistics> {
  const summaries = mergeSummaries(await Promise.all(records.map((record) => record.read())));
  const routing: Record<string, LayerRouting> = {};
  const counts = new Map<string, readonly number[]>();
  for (const [layer, { entropy, margin, dropped, ...own }] of summaries) {
    const all = await strategy.reduceCounts(own.counts);
    counts.set(layer, all);
    routing[layer] = { counts: [...all], entropy, margin, dropped };
  }
  return { routing, counts };
}

/** Tells every router of the model what the step's choices were. */
export function routersAfterStep(model: object, counts: RoutingStatistics['counts']): void {
  if (!(model instanceof Module)) return;
  for (const module of model.namedModules().values()) {
    if (!(module instanceof MoeLayer)) continue;
    const own = counts.get(module.name);
    if (own) module.afterStep(own);
  }
}
