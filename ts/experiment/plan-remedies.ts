import type { MemorySettings, PlannedMemory } from './plan-memory.ts';

/** A change to a recipe, and the memory that it takes then. */
export interface Remedy {
  /** As `--set` takes them. */
  set: string[];
  total: number;
}

const keys: Record<string, string> = { precision: 'precision', ranks: 'strategy.data' };

/**
 * The least change of each kind that brings the memory below what there is, and what takes the least of all that can be set.
 * @param devices how many ranks there could be
 */
export function remedies(
  settings: MemorySettings,
  memoryOf: (change: Partial<MemorySettings>) => PlannedMemory,
  available: number,
  devices: number,
): { wouldFit: Remedy[]; least: Remedy } {
  const { batchSequences, microBatches, activationCheckpointing, precision, ranks } = settings;
  const perRank = batchSequences / ranks;
  const cuts = Array.from({ length: perRank }, (_, i) => i + 1).filter(
    (n) => n > microBatches && perRank % n === 0,
  );
  const more = Array.from({ length: devices }, (_, i) => i + 1).filter(
    (n) => n > ranks && batchSequences % (n * microBatches) === 0,
  );
  const wouldFit: Remedy[] = [];
  let least: Remedy = { set: [], total: Number.POSITIVE_INFINITY };
  const attempt = (change: Partial<MemorySettings>): boolean => {
    const { total } = memoryOf(change);
    const set = Object.entries(change).map(([key, value]) => `${keys[key] ?? `training.${key}`}=${value}`);
    if (total < least.total) least = { set, total };
    if (total > available) return false;
    wouldFit.push({ set, total });
    return true;
  };
  attempt({});
  for (const low of precision === 'f32' ? [{}, { precision: 'bf16' as const }] : [{}]) {
    if (Object.keys(low).length > 0) attempt(low);
    more.some((n) => attempt({ ...low, ranks: n }));
    cuts.some((n) => attempt({ ...low, microBatches: n }));
    if (activationCheckpointing) continue;
    if (!attempt({ ...low, activationCheckpointing: true }))
      cuts.some((n) => attempt({ ...low, activationCheckpointing: true, microBatches: n }));
  }
  if (wouldFit.length === 0) {
    // Everything that can be set, at once.
    const last = more.at(-1) ?? ranks;
    const finest = Math.floor(batchSequences / last);
    attempt({
      ...(precision === 'f32' && { precision: 'bf16' as const }),
      ...(last > ranks && { ranks: last }),
      ...(finest > microBatches && { microBatches: finest }),
      ...(!activationCheckpointing && { activationCheckpointing: true }),
    });
  }
  return { wouldFit, least };
}
