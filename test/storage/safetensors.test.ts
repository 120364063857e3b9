import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  openSafetensors,
  readSafetensors,
  readSafetensorsHeader,
  writeSafetensors,
  writeShardedSafetensors,
} from '../../ts/storage/safetensors.ts';
import { type Dtype, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();
const dtypes: Dtype[] = ['f32', 'bf16', 'f64', 'f16', 'i32', 'i64', 'u8', 'bool'];

/** Writes a safetensors file from a raw header text and `bytes` zeros of data. */
function raw(name: string, header: string | Buffer, bytes: number): string {
  const text = Buffer.from(header);
  const file = Buffer.alloc(8 + text.length + bytes);
  file.writeBigUInt64LE(BigInt(text.length));
  text.copy(file, 8);
  const path = join(root, name);
  writeFileSync(path, file);
  return path;
}

describe('safetensors', () => {
  it.each(dtypes)('%s comes back with the same bits, scalars and empty tensors too', (dtype) =>
    scope(() => {
      const path = join(root, `${dtype}.safetensors`);
      const tensors = new Map([
        ['b.weight', tensor([0, 1, 1, 0, 1, 1], [2, 3], { dtype })],
        ['scalar', tensor([1], [], { dtype })],
        ['empty', tensor([], [0, 4], { dtype })],
        ['ä.名', tensor([1], [1], { dtype: 'u8' })],
      ]);
      writeSafetensors(path, tensors, { metadata: { step: '7' } });
      const back = readSafetensors(path);
      expect([...back.keys()].sort()).toEqual([...tensors.keys()].sort());
      for (const [name, { dtype: written, shape }] of tensors) {
        expect([back.get(name)!.dtype, back.get(name)!.shape]).toEqual([written, shape]);
        expect(back.get(name)!.readSync()).toEqual(tensors.get(name)!.readSync());
      }
      expect(openSafetensors(path).metadata).toEqual({ format: 'pt', step: '7' });
    }),
  );

  it('aligns every tensor to its element', () =>
    scope(() => {
      const path = join(root, 'aligned.safetensors');
      const make = (dtype: Dtype, n: number) => tensor(new Array(n).fill(1), [n], { dtype });
      writeSafetensors(
        path,
        new Map([
          ['a', make('u8', 3)],
          ['b', make('bf16', 3)],
          ['c', make('f64', 1)],
          ['d', make('f32', 3)],
        ]),
      );
      const { entries } = readSafetensorsHeader(path);
      expect(entries.map((entry) => entry.name)).toEqual(['c', 'd', 'b', 'a']);
      const sizes: Record<string, number> = { a: 1, b: 2, c: 8, d: 4 };
      for (const entry of entries) expect(entry.begin % sizes[entry.name]!).toBe(0);
    }));

  it('converts while reading', () =>
    scope(() => {
      const path = join(root, 'convert.safetensors');
      writeSafetensors(path, new Map([['x', tensor([1.5, -2, 3.25], [3], { dtype: 'f16' })]]));
      const x = openSafetensors(path).read('x', { dtype: 'f32' });
      expect([x.dtype, x.toArray()]).toEqual(['f32', [1.5, -2, 3.25]]);
    }));

  it('splits into shards with an index and reads them as one', () =>
    scope(() => {
      const folder = join(root, 'sharded');
      mkdirSync(folder);
      const tensors = new Map<string, Tensor>();
      for (let i = 0; i < 7; i += 1) tensors.set(`layer.${i}`, tensor([i, i, i, i]));
      const files = writeShardedSafetensors(folder, tensors, { maxShardBytes: 48 });
      expect(files).toEqual([
        'model-00001-of-00003.safetensors',
        'model-00002-of-00003.safetensors',
        'model-00003-of-00003.safetensors',
        'model.safetensors.index.json',
      ]);
      const index = JSON.parse(readFileSync(join(folder, 'model.safetensors.index.json'), 'utf8'));
      expect(index.metadata.total_size).toBe(7 * 16);
      const source = openSafetensors(folder);
      expect(source.names().sort()).toEqual([...tensors.keys()]);
      expect(source.read('layer.5').toArray()).toEqual([5, 5, 5, 5]);

      rmSync(join(folder, files[1]!));
      expect(() => openSafetensors(folder)).toThrow(
        /ERR_LIBMOE_CHECKPOINT.*names model-00002-of-00003.safetensors, which is missing/,
      );
      copyFileSync(join(folder, files[0]!), join(folder, files[1]!));
      expect(() => openSafetensors(folder)).toThrow(/tensor "layer.0" is in both/);
    }));

  it('does not follow an index out of its folder', () => {
    const folder = join(root, 'escape');
    mkdirSync(folder);
    writeFileSync(
      join(folder, 'model.safetensors.index.json'),
      '{"weight_map": {"x": "../f32.safetensors"}}',
    );
    expect(() => openSafetensors(folder)).toThrow(
      /ERR_LIBMOE_CHECKPOINT.*tensor "x" must name a file of the same folder/,
    );
  });

  it('notices a file cut at any byte', () =>
    scope(() => {
      const path = join(root, 'whole.safetensors');
      writeSafetensors(
        path,
        new Map([
          ['a', tensor([1, 2, 3])],
          ['b', tensor([1], [1], { dtype: 'u8' })],
        ]),
      );
      const bytes = readFileSync(path);
      const cut = join(root, 'cut.safetensors');
      writeFileSync(cut, bytes);
      for (let length = bytes.length - 1; length >= 0; length -= 1) {
        truncateSync(cut, length);
        expect(() => readSafetensorsHeader(cut), `${length} bytes`).toThrow(
          /ERR_LIBMOE_CHECKPOINT.*cut\.safetensors/,
        );
      }
      writeFileSync(cut, Buffer.concat([bytes, Buffer.from([0])]));
      expect(() => readSafetensorsHeader(cut)).toThrow('has 1 bytes after its last tensor');
    }));

  const entry = (dtype: unknown, shape: unknown, offsets: unknown) =>
    JSON.stringify({
      good: { dtype: 'U8', shape: [2], data_offsets: [0, 2] },
      bad: { dtype, shape, data_offsets: offsets },
    });
  it.each([
    ['an unknown dtype', entry('F33', [1], [2, 6]), 6, /tensor "bad" has the unknown dtype "F33"/],
    ['a dtype that names something of Object', entry('constructor', [1], [2, 6]), 6, /unknown dtype/],
    [
      'a size that does not fit the shape',
      entry('F32', [2], [2, 6]),
      6,
      /tensor "bad" of dtype F32 and shape \[2\] needs 8 bytes, got 4/,
    ],
    ['an overlap', entry('U8', [2], [1, 3]), 3, /tensor "bad" overlaps/],
    ['a hole', entry('U8', [1], [3, 4]), 4, /tensor "bad" leaves a hole/],
    ['a negative size', entry('U8', [-1], [2, 1]), 2, /tensor "bad" has the shape \[-1\]/],
    ['a fractional size', entry('U8', [0.5], [2, 2.5]), 2, /shape \[0.5\]/],
    ['a huge size', entry('U8', [2 ** 40, 2 ** 40], [2, 3]), 3, /needs .* bytes, got 1/],
    ['no offsets', entry('U8', [1], undefined), 3, /data_offsets undefined/],
    [
      'an entry that is no object',
      '{"bad": 5}',
      0,
      /tensor "bad" must be described by an object, got a number/,
    ],
    ['metadata that is no text', '{"__metadata__": {"a": 1}}', 0, /metadata "a" that is a number/],
    ['a list as header', '[]', 0, /header that is an array/],
    ['broken JSON', '{"a": }', 0, /\(header\):1:7 is not valid JSON/],
    ['no UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), 0, /not UTF-8/],
  ])('refuses %s', (_, header, bytes, message) => {
    const path = raw('bad.safetensors', header, bytes);
    expect(() => readSafetensorsHeader(path)).toThrow(message);
    expect(() => readSafetensorsHeader(path)).toThrow(/^ERR_LIBMOE_CHECKPOINT: .*bad\.safetensors/);
  });

  it('refuses a header that is too long without reading it', () => {
    const path = join(root, 'long.safetensors');
    const file = Buffer.alloc(16);
    file.writeBigUInt64LE(100_000_001n);
    writeFileSync(path, file);
    expect(() => readSafetensorsHeader(path)).toThrow('announces a header of 100000001 bytes');
  });

  it('lists element types that it cannot load and says so when asked for one', () => {
    const path = raw('f8.safetensors', '{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', 2);
    const source = openSafetensors(path);
    expect(source.entry('w').formatDtype).toBe('F8_E4M3');
    expect(() => source.read('w')).toThrow(/ERR_LIBMOE_UNSUPPORTED.*tensor "w" has the dtype F8_E4M3/);
    expect(() => source.read('v')).toThrow(/ERR_LIBMOE_CHECKPOINT.*no tensor "v"/);
  });

  it('leaves no file when writing is refused', () =>
    scope(() => {
      const path = join(root, 'never.safetensors');
      expect(() => writeSafetensors(path, new Map([['__metadata__', tensor([1])]]))).toThrow(
        'ERR_LIBMOE_ARGUMENT',
      );
      const gone = tensor([1]);
      gone.dispose();
      expect(() => writeSafetensors(path, new Map([['gone', gone]]))).toThrow('ERR_LIBMOE_DISPOSED');
      expect(existsSync(path)).toBe(false);
      expect(readdirSync(root).filter((name) => name.startsWith('.never'))).toEqual([]);
    }));

  it('names folders and files that hold nothing', () => {
    const folder = join(root, 'nothing');
    mkdirSync(folder);
    expect(() => openSafetensors(folder)).toThrow(
      'has neither model.safetensors nor model.safetensors.index.json',
    );
    expect(() => openSafetensors(join(root, 'absent'))).toThrow(/ERR_LIBMOE_CHECKPOINT.*no such file/);
  });
});
