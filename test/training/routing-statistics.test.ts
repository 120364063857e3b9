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
  it('sums counts over micro-batches, and weights means by tokens', async () => {
    const records = [
      record('0', 10, [6, 4], 0.2),
      record('2', 10, [5, 5], 0.6),
      record('0', 30, [20, 10], 0.6),
    ];
    const { routing, choices } = await routingStatistics(records, single());
    expect(Object.keys(routing)).toEqual(['0', '2']);
    expect(routing['0']).toEqual({
      counts: [26, 14],
      entropy: expect.closeTo(0.5, 12),
      margin: 0.5,
      dropped: 2,
    });
    expect([...choices]).toEqual([
      ['0', { counts: [26, 14], tokens: 40 }],
      ['2', { counts: [5, 5], tokens: 10 }],
    ]);
  });

  it('does both over ranks, dropped choices too', async () => {
    const parts = [
      [record('0', 10, [6, 4], 0.2), record('0', 10, [5, 5], 0.2)],
      [record('0', 60, [20, 40], 0.6)],
    ];
    // Each rank waits for what the other one adds.
    const given: (readonly number[])[] = [];
    const arrived: (() => void)[] = [];
    const both = new Promise<void>((resolve) => arrived.push(resolve));
    const reduceCounts = async (counts: readonly number[]): Promise<number[]> => {
      given.push(counts);
      if (given.length === 2) arrived[0]!();
      await both;
      return counts.map((_, i) => given[0]![i]! + given[1]![i]!);
    };
    const ranks = parts.map((records, rank) =>
      routingStatistics(records, { ...single(), rank, worldSize: 2, reduceCounts }),
    );
    for (const { routing, choices } of await Promise.all(ranks)) {
      expect(routing['0']).toEqual({
        counts: [31, 49],
        entropy: expect.closeTo(0.5, 12),
        margin: 0.5,
        dropped: 3,
      });
      expect(choices.get('0')).toEqual({ counts: [31, 49], tokens: 80 });
    }
  });

  it('is empty for a dense model', async () => {
    expect(await routingStatistics([], single())).toEqual({ routing: {}, choices: new Map() });
  });
});
