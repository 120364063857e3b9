import { describe, expect, it } from 'vitest';
import type { RoutingRecord, RoutingSummary } from '../../ts/moe/index.ts';
import { single } from '../../ts/training/index.ts';
import { routingStatistics } from '../../ts/training/routing-statistics.ts';

/** What a layer recorded in one micro-batch. */
function record(layer: string, tokens: number, counts: number[], entropy: number): RoutingRecord {
  const summary: RoutingSummary = {
    layer,
    call: 0,
    tokens,
    counts,
    firstCounts: counts,
    probabilities: counts.map(() => 0),
    entropy,
    weightEntropy: 0,
    margin: 0.5,
    probabilityMargin: 0,
    dropped: 1,
  };
  return { read: () => Promise.resolve(summary) } as RoutingRecord;
}

describe('routingStatistics', () => {
  it('sums counts over micro-batches and ranks, and weights means by tokens', async () => {
    const records = [
      record('0', 10, [6, 4], 0.2),
      record('2', 10, [5, 5], 0.6),
      record('0', 30, [20, 10], 0.6),
    ];
    const twoRanks = { ...single(), reduceCounts: (counts: readonly number[]) => counts.map((n) => 2 * n) };
    const { routing, choices } = await routingStatistics(records, twoRanks);
    expect(Object.keys(routing)).toEqual(['0', '2']);
    expect(routing['0']).toEqual({
      counts: [52, 28],
      entropy: expect.closeTo(0.5, 12),
      margin: 0.5,
      dropped: 2,
    });
    expect([...choices]).toEqual([
      ['0', { counts: [52, 28], tokens: 80 }],
      ['2', { counts: [10, 10], tokens: 20 }],
    ]);
  });

  it('is empty for a dense model', async () => {
    expect(await routingStatistics([], single())).toEqual({ routing: {}, choices: new Map() });
  });
});
