import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkBatch,
  LibmoeOrderLoader,
  type Loader,
  PackedLoader,
  type PackedLoaderOptions,
  type TokenBatch,
  type TokenDataset,
  tokenDataset,
} from '../../ts/data/index.ts';
import { permutation } from '../../ts/data/shuffle.ts';
import { codeOf } from '../../ts/native/index.ts';
import { streamOf } from '../../ts/nn/initialisers.ts';
import { randomPermutation } from '../../ts/tensor/random.ts';

/** Token t has id t + 1, so that an id tells where it came from; documents of the given lengths. */
function counted(lengths: readonly number[], shardLengths?: readonly number[]): TokenDataset {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  const tokens = Int32Array.from({ length: offsets.at(-1)! }, (_, t) => t + 1);
  return tokenDataset(tokens, { documentOffsets: offsets, shardLengths });
}

const plain = (batch: TokenBatch): object => ({
  ids: Array.from(batch.ids),
  targets: Array.from(batch.targets),
  offsets: Array.from(batch.sequenceOffsets),
});

/** Batches of several ranks as one rank would get them, sequence by sequence. */
function sequences(batch: TokenBatch): string[] {
  const out: string[] = [];
  for (let s = 0; s + 1 < batch.sequenceOffsets.length; ++s) {
    const [from, to] = [batch.sequenceOffsets[s]!, batch.sequenceOffsets[s + 1]!];
    out.push(`${batch.ids.subarray(from, to)}>${batch.targets.subarray(from, to)}`);
  }
  return out;
}

const codeFrom = (action: () => unknown): string | undefined => {
  try {
    action();
  } catch (error) {
    return codeOf(error);
  }
  return undefined;
};

const documents = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 2, maxLength: 12 });
const setting = fc
  .record({
    lengths: documents,
    sequenceLength: fc.integer({ min: 1, max: 16 }),
    batchSequences: fc.integer({ min: 1, max: 5 }),
    seed: fc.integer({ min: 0, max: 2 ** 40 }),
    shuffle: fc.constantFrom('windows', 'documents', 'none') as fc.Arbitrary<
      'windows' | 'documents' | 'none'
    >,
    splitAtDocuments: fc.boolean(),
  })
  .filter(({ lengths, sequenceLength }) => lengths.reduce((a, b) => a + b) > sequenceLength);

const optionsOf = ({
  lengths: _,
  ...options
}: PackedLoaderOptions & { lengths: number[] }): PackedLoaderOptions => options;

describe('PackedLoader', () => {
  it('asks for every token of an epoch exactly once', () => {
    fc.assert(
      fc.property(setting, (given) => {
        const dataset = counted(given.lengths);
        const loader = new PackedLoader(dataset, { ...optionsOf(given), epochs: 1 });
        const targets: number[] = [];
        for (const batch of loader) {
          checkBatch(batch, dataset.length + 1);
          for (const [t, target] of batch.targets.entries()) {
            if (target < 0) continue;
            targets.push(target);
            // In the stored order the target is the next token; shuffled documents break that only where they meet.
            if (given.shuffle !== 'documents') expect(target).toBe(batch.ids[t]! + 1);
          }
        }
        const firsts = new Set(Array.from(dataset.documentOffsets, (offset) => offset + 1));
        let expected = Array.from({ length: dataset.length }, (_, t) => t + 1);
        if (given.splitAtDocuments) expected = expected.filter((id) => !firsts.has(id));
        const seen = targets.sort((a, b) => a - b);
        if (given.splitAtDocuments || given.shuffle !== 'documents') {
          expect(seen).toEqual(given.splitAtDocuments ? expected : expected.slice(1));
        } else {
          // The document that comes first has no predecessor for its first token.
          expect(new Set(seen).size).toBe(seen.length);
          expect(seen).toHaveLength(dataset.length - 1);
          expect(firsts).toContain(expected.find((id) => !seen.includes(id)));
        }
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  it('never lets a sequence cross documents when they are split', () => {
    const dataset = counted([5, 1, 9, 3, 20]);
    const loader = new PackedLoader(dataset, {
      sequenceLength: 7,
      batchSequences: 2,
      splitAtDocuments: true,
      epochs: 2,
    });
    const documentOf = (id: number): number => dataset.documentOffsets.findLastIndex((offset) => offset < id);
    for (const batch of loader) {
      for (let s = 0; s + 1 < batch.sequenceOffsets.length; ++s) {
        const ids = batch.ids.subarray(batch.sequenceOffsets[s], batch.sequenceOffsets[s + 1]);
        expect(new Set(Array.from(ids, documentOf)).size).toBe(1);
      }
    }
  });

  it('resumes at any batch as if it had never stopped', () => {
    fc.assert(
      fc.property(setting, fc.nat(12), (given, stop) => {
        const dataset = counted(given.lengths);
        const options = optionsOf(given);
        const whole = new PackedLoader(dataset, options);
        const first = new PackedLoader(dataset, options);
        for (let i = 0; i < stop; ++i) expect(plain(first.next())).toEqual(plain(whole.next()));
        const second = new PackedLoader(counted(given.lengths), options);
        second.restore(JSON.parse(JSON.stringify(first.state())));
        for (let i = 0; i < 12; ++i) expect(plain(second.next())).toEqual(plain(whole.next()));
      }),
      { seed: 2, numRuns: 100 },
    );
  });

  it('gives 1, 2 and 4 ranks the same batches together, also when their number changes on the way', () => {
    fc.assert(
      fc.property(setting, fc.constantFrom('contiguous', 'interleaved'), (given, slicing) => {
        const dataset = counted(given.lengths);
        const options = { ...optionsOf(given), batchSequences: 4 * given.batchSequences };
        const alone = new PackedLoader(dataset, options);
        let state = alone.state();
        for (const world of [2, 4, 1, 2]) {
          const ranks = Array.from({ length: world }, (_, rank) => {
            const loader = new PackedLoader(dataset, { ...options, rank, world, slicing });
            loader.restore(state);
            return loader;
          });
          for (let i = 0; i < 3; ++i) {
            const parts = ranks.map((loader) => loader.next());
            const expected = alone.next();
            expect(parts.flatMap(sequences).sort()).toEqual(sequences(expected).sort());
            if (slicing === 'contiguous') expect(parts.flatMap(sequences)).toEqual(sequences(expected));
            expect(parts[0]!.ids).toHaveLength(ranks[0]!.tokensPerBatch);
          }
          state = ranks[world - 1]!.state();
          expect(state).toEqual(alone.state());
        }
      }),
      { seed: 3, numRuns: 60 },
    );
  });

  it('shuffles anew in every epoch and with every seed', () => {
    const order = (seed: number): string[] => {
      const loader = new PackedLoader(counted([200]), {
        sequenceLength: 4,
        batchSequences: 50,
        seed,
        epochs: 2,
      });
      return Array.from(loader, (batch) => String(batch.ids));
    };
    expect(order(7)).toEqual(order(7));
    const all = [...order(7), ...order(8), ...order(2 ** 33)];
    expect(new Set(all).size).toBe(6);
  });

  it('ends after its epochs, with a smaller batch at the end', () => {
    const loader = new PackedLoader(counted([21]), {
      sequenceLength: 5,
      batchSequences: 3,
      shuffle: 'none',
      epochs: 1,
    });
    expect(Array.from(loader, (batch) => batch.ids.length)).toEqual([15, 5]);
    expect(codeFrom(() => loader.next())).toBe('ERR_LIBMOE_STATE');
    const rank = new PackedLoader(counted([21]), {
      sequenceLength: 5,
      batchSequences: 2,
      epochs: 1,
      world: 2,
      rank: 1,
    });
    expect(Array.from(rank, (batch) => batch.ids.length)).toEqual([5, 5]);
  });

  it('fits the data exactly when they are one sequence long', () => {
    const loader = new PackedLoader(counted([9]), { sequenceLength: 8, batchSequences: 1 });
    expect(plain(loader.next())).toEqual({
      ids: [1, 2, 3, 4, 5, 6, 7, 8],
      targets: [2, 3, 4, 5, 6, 7, 8, 9],
      offsets: [0, 8],
    });
  });

  it.each([
    ['a sequence longer than the data', { sequenceLength: 9 }, 'ERR_LIBMOE_DATA'],
    ['a sequence of no length', { sequenceLength: 0 }, 'ERR_LIBMOE_ARGUMENT'],
    ['half a sequence per batch', { batchSequences: 0.5 }, 'ERR_LIBMOE_ARGUMENT'],
    ['a batch that the ranks cannot share', { batchSequences: 3, world: 2 }, 'ERR_LIBMOE_ARGUMENT'],
    ['a rank that does not exist', { rank: 1 }, 'ERR_LIBMOE_ARGUMENT'],
    ['a negative seed', { seed: -1 }, 'ERR_LIBMOE_ARGUMENT'],
    ['an option that does not exist', { bogus: 1 }, 'ERR_LIBMOE_ARGUMENT'],
    ['an order that does not exist', { shuffle: 'window' }, 'ERR_LIBMOE_ARGUMENT'],
    ['a slicing that does not exist', { slicing: 'blocks' }, 'ERR_LIBMOE_ARGUMENT'],
  ])('refuses %s', (_, options, code) => {
    expect(
      codeFrom(
        () =>
          new PackedLoader(counted([9]), { sequenceLength: 4, batchSequences: 1, ...(options as object) }),
      ),
    ).toBe(code);
  });

  it('refuses the place of another run', () => {
    const options = { sequenceLength: 4, batchSequences: 1 };
    const loader = new PackedLoader(counted([30]), options);
    for (const other of [
      new PackedLoader(counted([31]), options).state(),
      new PackedLoader(counted([30]), { ...options, seed: 1 }).state(),
      { ...(loader.state() as object), position: 99 },
      { epoch: 0, position: 0 },
      null,
    ]) {
      expect(codeFrom(() => loader.restore(other))).toBe('ERR_LIBMOE_STATE');
    }
    expect(loader.state()).toMatchObject({ epoch: 0, position: 0 });
  });
});

describe('permutation', () => {
  it('holds every index once and mixes them', () => {
    const order = permutation(1000, 5, 0);
    expect(Array.from(order).sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    // Mean displacement of a random permutation is a third of its length.
    const displacement = order.reduce((sum, value, i) => sum + Math.abs(value - i), 0) / 1000 / 1000;
    expect(displacement).toBeGreaterThan(0.3);
    expect(displacement).toBeLessThan(0.37);
  });

  it('is the Philox order of (seed, epoch), another for each epoch and seed', () => {
    const orders = [permutation(1000, 5, 0), permutation(1000, 5, 1), permutation(1000, 6, 0)].map(String);
    expect(new Set(orders).size).toBe(3);
    expect(String(permutation(1000, 5, 0))).toBe(orders[0]);
    using drawn = randomPermutation(1000, { seed: 5, stream: streamOf('data/epoch/0') });
    expect(orders[0]).toBe(String(drawn.readSync()));
    expect(permutation(0, 5, 0)).toHaveLength(0);
  });
});

describe('LibmoeOrderLoader', () => {
  const steps = (loader: Loader, count: number): TokenBatch[] =>
    Array.from({ length: count }, () => loader.next() as TokenBatch);

  it('reads one contiguous stretch per lane', () => {
    // 41 tokens, samples of 5: 8 samples, 2 lanes of 4.
    const loader = new LibmoeOrderLoader(counted([41]), { sequenceLength: 5, batchSequences: 2 });
    expect([loader.samples, loader.laneLength, loader.tokensPerBatch]).toEqual([8, 4, 10]);
    const batches = steps(loader, 5);
    expect(batches.map((batch) => [batch.ids[0], batch.ids[5]])).toEqual([
      [1, 21],
      [6, 26],
      [11, 31],
      [16, 36],
      [1, 21],
    ]);
    for (const batch of batches) {
      expect(Array.from(batch.targets)).toEqual(Array.from(batch.ids, (id) => id + 1));
      expect(Array.from(batch.sequenceOffsets)).toEqual([0, 5, 10]);
    }
  });

  it('does not see chunk borders when fixed', () => {
    const whole = steps(new LibmoeOrderLoader(counted([60]), { sequenceLength: 7, batchSequences: 2 }), 8);
    const cut = steps(
      new LibmoeOrderLoader(counted([60], [20, 3, 4, 33]), { sequenceLength: 7, batchSequences: 2 }),
      8,
    );
    expect(cut.map(plain)).toEqual(whole.map(plain));
  });

  it('repeats the chunk table of the original', () => {
    // Chunks of 10, 14 and 8 tokens are taken to begin at 0, 14 and 22: the total is 30 = 32 + 8 − 10.
    const loader = new LibmoeOrderLoader(counted([32], [10, 14, 8]), {
      sequenceLength: 5,
      batchSequences: 1,
      compat: 'libmoe',
    });
    expect(loader.samples).toBe(6);
    const batches = steps(loader, 6);
    expect(batches.map((batch) => Array.from(batch.ids))).toEqual([
      [1, 2, 3, 4, 5],
      [6, 7, 8, 9, 10],
      [11, 12, 13, 14, 15], // 10 … 14 lie past the first chunk: the head of the second is read,
      [12, 13, 14, 15, 16], // and again from its own beginning at 14.
      [17, 18, 19, 20, 21], // Its last two tokens, 23 and 24, are lost
      [28, 29, 30, 31, 32], // because the third is taken to begin at 22.
    ]);
    expect(Array.from(batches[1]!.targets)).toEqual([7, 8, 9, 10, 11]);
    expect(Array.from(batches[5]!.targets)).toEqual([29, 30, 31, 32, -1]);
  });

  it('keeps to the token limit', () => {
    const loader = new LibmoeOrderLoader(counted([100]), {
      sequenceLength: 5,
      batchSequences: 2,
      tokenLimit: 43,
    });
    expect([loader.samples, loader.laneLength]).toEqual([8, 4]);
  });

  it('resumes anywhere, with another number of ranks', () => {
    const options = { sequenceLength: 3, batchSequences: 4 };
    const alone = new LibmoeOrderLoader(counted([100]), options);
    for (let i = 0; i < 20; ++i) {
      const state = JSON.parse(JSON.stringify(alone.state()));
      const ranks = [0, 1].map((rank) => {
        const loader = new LibmoeOrderLoader(counted([100]), { ...options, world: 2, rank });
        loader.restore(state);
        return loader;
      });
      expect(ranks.flatMap((loader) => sequences(loader.next()))).toEqual(sequences(alone.next()));
    }
  });

  it('refuses too little data, unknown ways and the place of another run', () => {
    const options = { sequenceLength: 5, batchSequences: 2 };
    const make = (more: object, tokens = 41): LibmoeOrderLoader =>
      new LibmoeOrderLoader(counted([tokens]), { ...options, ...more });
    expect(codeFrom(() => make({}, 9))).toBe('ERR_LIBMOE_DATA');
    expect(codeFrom(() => make({ compat: 'original' }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(codeFrom(() => make({ world: 3 }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(codeFrom(() => make({ sequenceLength: 1.5 }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(codeFrom(() => make({}).restore(make({}, 42).state()))).toBe('ERR_LIBMOE_STATE');
  });
});

describe('tokenDataset and checkBatch', () => {
  it('finds documents by their separator', () => {
    const dataset = tokenDataset(Int32Array.of(5, 2, 2, 7, 8), { separatorId: 2, vocabularySize: 9 });
    expect(Array.from(dataset.documentOffsets)).toEqual([0, 2, 3, 5]);
    expect(codeFrom(() => dataset.read(3, 6))).toBe('ERR_LIBMOE_ARGUMENT');
  });

  it('refuses what does not fit', () => {
    expect(codeFrom(() => tokenDataset(Int32Array.of(1, 9), { vocabularySize: 9 }))).toBe('ERR_LIBMOE_DATA');
    expect(codeFrom(() => tokenDataset(Int32Array.of(1, 9), { documentOffsets: [0, 3] }))).toBe(
      'ERR_LIBMOE_DATA',
    );
    expect(codeFrom(() => tokenDataset(Int32Array.of(1, 9), { shardLengths: [1] }))).toBe('ERR_LIBMOE_DATA');
    const batch = {
      ids: Int32Array.of(1, 2),
      targets: Int32Array.of(2, -1),
      sequenceOffsets: Int32Array.of(0, 2),
    };
    expect(codeFrom(() => checkBatch(batch, 3))).toBeUndefined();
    for (const wrong of [
      { ids: Int32Array.of(1, 3) },
      { targets: Int32Array.of(1) },
      { targets: Int32Array.of(1, -2) },
      { sequenceOffsets: Int32Array.of(0, 1) },
      { sequenceOffsets: Int32Array.of(0, 0, 2) },
      { ids: new Int32Array(0), targets: new Int32Array(0) },
    ]) {
      expect(codeFrom(() => checkBatch({ ...batch, ...wrong }, 3))).toBe('ERR_LIBMOE_DATA');
    }
  });
});
