import { fail } from '../native/index.ts';

/** What a training step logs of one MoE layer (a run's metrics.jsonl, `moe.<layer>`). */
export interface LayerStep {
  /** How often each expert was chosen, choices that found no room included, `[experts]`. */
  counts: readonly number[];
  /** Mean entropy of the router's distribution per token, in nats. */
  entropy?: number | null;
  /** Mean gap between the router's best choices. */
  margin?: number | null;
  /** Choices that found no room. */
  dropped?: number | null;
}

/** A step with its MoE layers by name (their number, in a language model). */
export interface RoutingStep {
  step: number;
  moe?: Readonly<Record<string, LayerStep>>;
}

/** One layer's routing over the steps that were looked at. */
export interface LayerRouting {
  layer: string;
  experts: number;
  /** Share of the choices per expert, `[experts]`; sums to 1. */
  load: number[];
  /** Entropy of the load over ln(experts): 1 is uniform, 0 is one expert. */
  loadEntropy: number;
  /** Largest load over the mean: 1 is uniform, `experts` is one expert. */
  maxOverMean: number;
  /** Share of experts that were never chosen. */
  idle: number;
  /** Dropped choices over all choices. */
  droppedShare: number;
  /** Over training; only steps that logged the value. */
  entropy: { step: number; value: number }[];
  margin: { step: number; value: number }[];
  /** Normalised load entropy of each single step. */
  balance: { step: number; value: number }[];
}

/**
 * Load and confidence of every MoE layer from a run's metrics.
 * @param lastShare the share of the steps, from the end, whose counts make up the load: routing early in training says little
 * about the trained model. Series over training cover all steps.
 * @throws ERR_LIBMOE_DATA when a layer's number of experts changes or counts are no non-negative numbers
 */
export function routingByLayer(steps: readonly RoutingStep[], { lastShare = 0.2 } = {}): LayerRouting[] {
  if (!(lastShare > 0 && lastShare <= 1))
    fail('ERR_LIBMOE_ARGUMENT', `lastShare must lie above 0 and up to 1, got ${lastShare}`);
  const byLayer = new Map<string, { step: number; values: LayerStep }[]>();
  for (const { step, moe } of steps)
    for (const [name, values] of Object.entries(moe ?? {})) {
      const known = byLayer.get(name);
      const experts = known?.[0]?.values.counts.length ?? values.counts.length;
      if (values.counts.length !== experts || experts === 0 || !values.counts.every((count) => count >= 0))
        fail(
          'ERR_LIBMOE_DATA',
          `step ${step}, layer ${name}: ${experts} non-negative counts expected, got ${JSON.stringify(values.counts)}`,
        );
      if (known === undefined) byLayer.set(name, [{ step, values }]);
      else known.push({ step, values });
    }
  return [...byLayer]
    .sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }))
    .map(([layer, logged]) => layerRouting(layer, logged, lastShare));
}

function layerRouting(
  layer: string,
  logged: readonly { step: number; values: LayerStep }[],
  lastShare: number,
): LayerRouting {
  const experts = logged[0]!.values.counts.length;
  const recent = logged.slice(-Math.max(1, Math.round(lastShare * logged.length)));
  const counts = Array.from({ length: experts }, (_, e) =>
    recent.reduce((sum, { values }) => sum + values.counts[e]!, 0),
  );
  const total = counts.reduce((a, b) => a + b, 0);
  const dropped = recent.reduce((sum, { values }) => sum + (values.dropped ?? 0), 0);
  const series = (key: 'entropy' | 'margin'): { step: number; value: number }[] =>
    logged.flatMap(({ step, values }) => {
      const value = values[key];
      return value === undefined || value === null || !Number.isFinite(value) ? [] : [{ step, value }];
    });
  return {
    layer,
    experts,
    load: counts.map((count) => (total === 0 ? 0 : count / total)),
    loadEntropy: normalisedEntropy(counts),
    maxOverMean: total === 0 ? Number.NaN : (Math.max(...counts) * experts) / total,
    idle: counts.filter((count) => count === 0).length / experts,
    droppedShare: total === 0 ? 0 : dropped / total,
    entropy: series('entropy'),
    margin: series('margin'),
    balance: logged.map(({ step, values }) => ({ step, value: normalisedEntropy(values.counts) })),
  };
}

/** Entropy of the shares over its largest possible value, ln(n): 1 for equal counts, 0 for a single one; NaN for none. */
export function normalisedEntropy(counts: readonly number[]): number {
  const total = counts.reduce((a, b) => a + b, 0);
  if (total === 0) return Number.NaN;
  if (counts.length === 1) return 1;
  const entropy = counts.reduce(
    (sum, count) => (count === 0 ? sum : sum - (count / total) * Math.log(count / total)),
    0,
  );
  return entropy / Math.log(counts.length);
}
