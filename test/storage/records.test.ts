import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { RecordReader, RecordWriter } from '../../ts/storage/records.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();

function write(path: string, steps: readonly number[]): void {
  using writer = new RecordWriter(path);
  for (const step of steps) {
    writer.append(
      { step, layer: 'blocks.3.moe' },
      {
        token: Uint32Array.from([7, 8, 9]),
        flag: Uint8Array.from([1, 0, 1]),
        experts: { data: Int32Array.from([0, 1, 2, -1, step, 5]), width: 2 },
        weights: { data: Float32Array.from([0.5, 0.25, 0.125, 0, 1, -1]), width: 2 },
        entropy: Float64Array.from([Math.PI, 0, step]),
        small: Uint16Array.from([1, 2, 65535]),
      },
    );
  }
}

const steps = (path: string) => {
  using reader = new RecordReader(path);
  return [...reader.blocks()].map((block) => block.attributes.step);
};

describe('record files', () => {
  it('come back by column and by row range', () => {
    const path = join(root, 'deep/a.records');
    write(path, [1, 2]);
    write(path, [3]);
    using reader = new RecordReader(path);
    const blocks = [...reader.blocks()];
    expect(blocks.map((block) => [block.rows, block.attributes])).toEqual(
      [1, 2, 3].map((step) => [3, { step, layer: 'blocks.3.moe' }]),
    );
    const last = blocks[2]!;
    expect(reader.column(last, 'experts')).toEqual(Int32Array.from([0, 1, 2, -1, 3, 5]));
    expect(reader.column(last, 'experts', 1, 2)).toEqual(Int32Array.from([2, -1]));
    expect(reader.column(last, 'weights', 2)).toEqual(Float32Array.from([1, -1]));
    expect(reader.column(last, 'entropy')).toEqual(Float64Array.from([Math.PI, 0, 3]));
    expect(reader.column(last, 'flag')).toEqual(Uint8Array.from([1, 0, 1]));
    expect(reader.column(last, 'small')).toEqual(Uint16Array.from([1, 2, 65535]));
    expect(reader.column(last, 'token', 3)).toEqual(new Uint32Array());
    for (const block of blocks) reader.verify(block);
    expect(() => reader.column(last, 'nothing')).toThrow(/no column "nothing".*token, flag/);
    expect(() => reader.column(last, 'token', 2, 4)).toThrow('rows [2, 4)');
  });

  it('lose only a torn last block, cut at any byte', () => {
    const path = join(root, 'cut-anywhere.records');
    write(path, [1, 2]);
    using reader = new RecordReader(path);
    const firstEnd = [...reader.blocks()][0]!.end;
    for (let length = readFileSync(path).length - 1; length >= 0; length -= 1) {
      truncateSync(path, length);
      expect([...reader.blocks()].length, `${length} bytes`).toBe(length >= firstEnd ? 1 : 0);
    }
  });

  it('go on behind a torn block', () => {
    const path = join(root, 'torn.records');
    write(path, [1, 2]);
    const bytes = readFileSync(path);
    const firstEnd = (() => {
      using reader = new RecordReader(path);
      return [...reader.blocks()][0]!.end;
    })();
    for (const length of [
      0,
      5,
      16,
      30,
      firstEnd - 1,
      firstEnd,
      firstEnd + 1,
      firstEnd + 40,
      bytes.length - 1,
    ]) {
      writeFileSync(path, bytes.subarray(0, length));
      const whole = length >= firstEnd ? [1] : [];
      write(path, [9]);
      expect(steps(path)).toEqual([...whole, 9]);
    }
  });

  it('report a changed byte', () => {
    const path = join(root, 'changed.records');
    write(path, [1, 2]);
    const bytes = readFileSync(path);
    using reader = new RecordReader(path);
    const [first, second] = [...reader.blocks()];
    const flip = (at: number) => {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 4;
      writeFileSync(path, copy);
    };
    flip(0);
    expect(() => [...reader.blocks()]).toThrow('is not a libmoe record file');
    flip(first!.end);
    expect(() => [...reader.blocks()]).toThrow(/the block at byte \d+ does not begin as a block/);
    flip(first!.end + 30);
    expect(() => [...reader.blocks()]).toThrow('damaged header');
    flip(first!.end + 8); // the data length
    expect(() => [...reader.blocks()]).toThrow('damaged header');
    flip(second!.dataStart + 1);
    expect(() => reader.verify([...reader.blocks()][1]!)).toThrow('is damaged (checksum)');
  });

  it('are cut where a run goes back to', () => {
    const path = join(root, 'cut.records');
    write(path, [1, 2, 3]);
    {
      using writer = new RecordWriter(path);
      writer.truncate((block) => (block.attributes.step as number) <= 1);
      writer.append({ step: 7 }, { x: Uint8Array.of(1) });
    }
    expect(steps(path)).toEqual([1, 7]);
  });

  it('refuse columns that do not fit together', () => {
    const path = join(root, 'refused.records');
    using writer = new RecordWriter(path);
    expect(() => writer.append({}, {})).toThrow('at least one column');
    expect(() => writer.append({}, { a: new Uint8Array(2), b: new Uint8Array(3) })).toThrow(
      'column "b" has 3 rows, "a" 2',
    );
    expect(() => writer.append({}, { a: { data: new Uint8Array(3), width: 2 } })).toThrow(
      'not a multiple of its width 2',
    );
    expect(() => writer.append({}, { a: [1] as unknown as Uint8Array })).toThrow('not a typed array');
    writeFileSync(join(root, 'other'), 'something else altogether');
    expect(() => new RecordWriter(join(root, 'other'))).toThrow('is not a libmoe record file');
    expect(readFileSync(join(root, 'other'), 'utf8')).toBe('something else altogether');
    expect(steps(path)).toEqual([]);
  });
});
