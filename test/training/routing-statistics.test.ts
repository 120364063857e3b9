import { describe, expect, it } from 'vitest';
import type { RoutingRecord, RoutingSummary } from '../../ts/moe/index.ts';
import { summariesOf } from '../../ts/training/routing-statistics.ts';

const alone = async (records: RoutingRecord[]) => {
  const { numbers, statistics } = await summariesOf(records);
  return statistics(numbers);
};

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

describe('summariesOf', () => {
  it('sums counts over micro-batches, and weights means by tokens', async () => {
    const records = [
      record('0', 10, [6, 4], 0.2),
      record('2', 10, [5, 5], 0.6),
      record('0', 30, [20, 10], 0.6),
    ];
    const { routing, choices } = await alone(records);
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
    const ranks = await Promise.all(parts.map(summariesOf));
    const sums = ranks[0]!.numbers.map((number, i) => number + ranks[1]!.numbers[i]!);
    for (const { routing, choices } of ranks.map(({ statistics }) => statistics(sums))) {
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
    expect(await alone([])).toEqual({ routing: {}, choices: new Map() });
  });
});
