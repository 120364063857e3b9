/** Order statistics of one case's samples, in seconds. */
export interface Summary {
  median: number;
  p10: number;
  p90: number;
  samples: number;
}

export function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)]!;
  const high = sorted[Math.ceil(at)]!;
  return low + (high - low) * (at - Math.floor(at));
}

export function summarise(samples: readonly number[]): Summary {
  const sorted = [...samples].sort((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    p10: quantile(sorted, 0.1),
    p90: quantile(sorted, 0.9),
    samples: sorted.length,
  };
}

/** A paired ratio: the median over rounds of peer time / our time, so that a drifting machine cancels. */
export function medianRatio(peer: readonly number[], ours: readonly number[]): number {
  const ratios = peer.slice(0, ours.length).map((seconds, i) => seconds / ours[i]!);
  return summarise(ratios).median;
}
