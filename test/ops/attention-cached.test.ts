import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { attention, attentionCached, cacheCopyBlock, cacheWrite } from '../../ts/tensor/attention.ts';
import { type Dtype, full, scope, synchronise, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { i32 } from './attention-inputs.ts';
import { sameBits, sample, values, withThreads } from './values.ts';

interface Shape {
  queryHeads: number;
  heads: number;
  width: number;
  valueWidth: number;
  dtype: Dtype;
  window?: number;
}

/** Rows [begin, end) of a tensor whose first dimension counts tokens. */
function rows(t: Tensor, begin: number, end: number): Tensor {
  const row = t.size / t.shape[0]!;
  const data = t.readSync().slice(begin * row, end * row);
  return tensor(data, [end - begin, ...t.shape.slice(1)], { dtype: t.dtype });
}

const join = (parts: Tensor[]): Tensor =>
  tensor(
    parts.flatMap((t) => t.toArray()),
    [parts.reduce((n, t) => n + t.shape[0]!, 0), ...parts[0]!.shape.slice(1)],
    { dtype: parts[0]!.dtype },
  );

/** A pool for some sequences, its pages handed out in a scrambled order and filled with NaN, which must never be read. */
class Cache {
  readonly keys: Tensor;
  readonly values: Tensor;
  readonly lengths: number[];
  readonly table: number[];
  readonly perSequence: number;

  constructor(
    readonly shape: Shape,
    readonly longest: readonly number[],
    readonly pageSize: number,
  ) {
    this.perSequence = Math.ceil(Math.max(...longest) / pageSize);
    const pages = this.perSequence * longest.length + 3;
    const { heads, width, valueWidth, dtype } = shape;
    this.keys = full([pages, pageSize, heads, width], Number.NaN, { dtype });
    this.values = full([pages, pageSize, heads, valueWidth], Number.NaN, { dtype });
    this.lengths = longest.map(() => 0);
    const order = Array.from(values(pages, 77).entries())
      .sort((a, b) => a[1] - b[1])
      .map(([i]) => i);
    this.table = longest.flatMap((n, s) =>
      Array.from({ length: this.perSequence }, (_, p) =>
        p * pageSize < n ? order[s * this.perSequence + p]! : -1,
      ),
    );
  }

  /** Appends `counts[s]` tokens to every sequence and attends; q, k, v hold the tokens of all sequences one after the other. */
  step(q: Tensor, k: Tensor, v: Tensor, counts: readonly number[]): Tensor {
    const offsets = [0];
    counts.forEach((n, s) => {
      offsets.push(offsets[s]! + n);
      this.lengths[s]! += n;
    });
    const placement = {
      blockTable: i32(this.table, [counts.length, this.perSequence]),
      queryOffsets: i32(offsets),
      keyLengths: i32(this.lengths),
    };
    cacheWrite(this.keys, k, placement);
    cacheWrite(this.values, v, placement);
    const { window } = this.shape;
    return attentionCached(q, this.keys, this.values, placement, { scale: 0.4, ...(window && { window }) });
  }
}

/** Runs sequences through the cache, `chunks[s][i]` new tokens of sequence s in step i, and compares all rows with plain attention. */
function compare(shape: Shape, chunks: readonly (readonly number[])[], pageSize: number): void {
  scope(() => {
    const { queryHeads, heads, width, valueWidth, dtype, window } = shape;
    const lengths = chunks.map((c) => c.reduce((a, b) => a + b, 0));
    const whole = lengths.map((n, s) => ({
      q: sample([n, queryHeads, width], 10 + s, dtype),
      k: sample([n, heads, width], 20 + s, dtype),
      v: sample([n, heads, valueWidth], 30 + s, dtype),
    }));
    const cache = new Cache(shape, lengths, pageSize);
    const done = lengths.map(() => 0);
    const results: Tensor[][] = lengths.map(() => []);
    for (let step = 0; step < chunks[0]!.length; step += 1) {
      const counts = chunks.map((c) => c[step]!);
      const part = (name: 'q' | 'k' | 'v') =>
        join(whole.map((w, s) => rows(w[name], done[s]!, done[s]! + counts[s]!)));
      const out = cache.step(part('q'), part('k'), part('v'), counts);
      let at = 0;
      counts.forEach((n, s) => {
        if (n > 0) results[s]!.push(rows(out, at, at + n));
        at += n;
        done[s]! += n;
      });
    }
    whole.forEach(({ q, k, v }, s) => {
      const sequenceOffsets = i32([0, lengths[s]!]);
      const expected = attention(q, k, v, { sequenceOffsets, scale: 0.4, ...(window && { window }) });
      expect(
        sameBits(join(results[s]!).readSync(), expected.readSync()),
        `sequence ${s}, page ${pageSize}, ${JSON.stringify(shape)}`,
      ).toBe(true);
    });
  });
}

const shapes: Shape[] = [
  { queryHeads: 4, heads: 2, width: 16, valueWidth: 16, dtype: 'f32' },
  { queryHeads: 3, heads: 3, width: 82, valueWidth: 20, dtype: 'f32', window: 30 },
  { queryHeads: 2, heads: 1, width: 24, valueWidth: 24, dtype: 'bf16' },
  { queryHeads: 2, heads: 1, width: 10, valueWidth: 12, dtype: 'f64', window: 7 },
];
const ones = (n: number): number[] => Array.from({ length: n }, () => 1);

describe('attentionCached', () => {
  it('has the bits of attention, one token at a time', () => {
    for (const shape of shapes) compare(shape, [ones(140)], 16);
  });

  it('has the bits of attention for any split, alone and in a batch', () => {
    for (const shape of shapes) {
      for (const pageSize of [1, 16, 48, 200]) {
        compare(shape, [[100, 1, 27, 1, 64, 5]], pageSize);
        compare(
          shape,
          [
            [70, 1, 1, 1, 30],
            [1, 0, 0, 90, 1],
            [0, 5, 0, 1, 0],
          ],
          pageSize,
        );
      }
    }
  });

  it('has the bits of attention in bf16 at the widths of tensor cores', () => {
    const wide: Shape[] = [
      { queryHeads: 6, heads: 2, width: 96, valueWidth: 64, dtype: 'bf16', window: 70 },
      { queryHeads: 4, heads: 1, width: 128, valueWidth: 128, dtype: 'bf16' },
      { queryHeads: 2, heads: 2, width: 192, valueWidth: 128, dtype: 'bf16' },
      { queryHeads: 2, heads: 1, width: 33, valueWidth: 200, dtype: 'bf16' }, // too wide for them
    ];
    for (const shape of wide)
      compare(
        shape,
        [
          [65, 1, 12],
          [1, 0, 63],
        ],
        16,
      );
  });

  it('has the same bits with one and with two threads', () => {
    for (const threads of [1, 2])
      withThreads(threads, () =>
        compare(
          shapes[0]!,
          [
            [80, 1, 20],
            [9, 60, 1],
          ],
          8,
        ),
      );
  });

  it('needs no page that the window has left behind', () => {
    scope(() => {
      const shape = shapes[3]!;
      const cache = new Cache(shape, [40], 4);
      const q = sample([40, 2, 10], 1);
      const k = sample([40, 1, 10], 2);
      const v = sample([40, 1, 12], 3);
      cache.step(rows(q, 0, 39), rows(k, 0, 39), rows(v, 0, 39), [39]);
      const all = attention(q, k, v, { sequenceOffsets: i32([0, 40]), scale: 0.4, window: 7 });
      // position 39 sees 33 to 39, of the block of 64 keys that begins at 0
      for (const pool of [cache.keys, cache.values]) {
        const width = pool.shape[3]!;
        view(pool, [width], cache.table[8]! * 4 * width).write(Array(width).fill(Number.NaN)); // position 32
      }
      for (const gone of [-1, -2_000_000_000, 2_000_000_000]) {
        cache.table.fill(gone, 0, 8);
        cache.lengths[0] = 39;
        const last = cache.step(rows(q, 39, 40), rows(k, 39, 40), rows(v, 39, 40), [1]);
        expect(sameBits(last.readSync(), rows(all, 39, 40).readSync())).toBe(true);
      }
    });
  });

  it('forks: a copied block leaves the original alone', () => {
    scope(() => {
      const pool = tensor(values(3 * 2 * 4), [3, 2, 1, 4]);
      const before = pool.toArray();
      cacheCopyBlock(pool, 0, 2);
      expect(pool.toArray()).toEqual([...before.slice(0, 16), ...before.slice(0, 8)]);
      const placement = {
        blockTable: i32([2], [1, 1]),
        queryOffsets: i32([0, 1]),
        keyLengths: i32([2]),
      };
      cacheWrite(pool, tensor([9, 8, 7, 6], [1, 1, 4], { dtype: 'f64' }), placement);
      expect(pool.toArray()).toEqual([...before.slice(0, 16), ...before.slice(0, 4), 9, 8, 7, 6]);
    });
  });

  it('refuses what is out of range and writes nothing then', () => {
    const attempt = (
      change: { table?: number[]; offsets?: number[]; lengths?: number[] },
      dtype: Dtype = 'f32',
    ) => {
      const found: (string | undefined)[] = [];
      scope(() => {
        const { table = [0, 1, 2, 3], offsets = [0, 2, 3], lengths = [5, 3] } = change;
        const pool = full([4, 4, 1, 8], 0, { dtype });
        const placement = {
          blockTable: i32(table, [2, 2]),
          queryOffsets: i32(offsets),
          keyLengths: i32(lengths),
        };
        for (const run of [
          () => cacheWrite(pool, sample([3, 1, 8], 1, dtype), placement),
          () => void attentionCached(sample([3, 1, 8], 1, dtype), pool, pool, placement),
        ]) {
          try {
            run();
            synchronise(); // a device finds wrong tables while the host goes on
            found.push(undefined);
          } catch (e) {
            found.push(codeOf(e));
            expect(pool.toArray().every((x) => x === 0)).toBe(true);
          }
        }
      });
      return found;
    };
    const argument = 'ERR_LIBMOE_ARGUMENT';
    expect(attempt({})).toEqual([undefined, undefined]);
    for (const change of [
      { table: [0, 4, 2, 3] },
      { table: [0, -1, 2, 3] },
      { lengths: [1, 3] },
      { lengths: [9, 3] },
      { lengths: [-5, 3] },
      { offsets: [0, 2, 4] },
      { offsets: [1, 2, 3] },
      { offsets: [0, 4, 3] },
    ])
      for (const dtype of ['f32', 'bf16'] as const)
        expect(attempt(change, dtype), `${dtype} ${JSON.stringify(change)}`).toEqual([argument, argument]);
    // A page shared for reading is fine, for writing not.
    expect(attempt({ table: [0, 1, 0, 3], lengths: [6, 4] })).toEqual([undefined, undefined]);
    expect(attempt({ table: [0, 1, 1, 3], lengths: [6, 4] })).toEqual([argument, undefined]);
    expect(attempt({ offsets: [0, 3] })).toEqual(['ERR_LIBMOE_SHAPE', 'ERR_LIBMOE_SHAPE']);
    scope(() => {
      const pool = full([4, 4, 1, 8], 0);
      for (const [from, to] of [
        [0, 4],
        [-1, 0],
        [0.5, 1],
      ] as const) {
        let code: string | undefined;
        try {
          cacheCopyBlock(pool, from, to);
        } catch (e) {
          code = codeOf(e);
        }
        expect(code).toBe(argument);
      }
    });
  });
});
