import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors, readSafetensorsHeader, writeSafetensors } from '../../ts/storage/safetensors.ts';
import { type Dtype, full, scope, type Tensor, tensor, view, zeros } from '../../ts/tensor/index.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();
const counted = (count: number, dtype: Dtype = 'f32'): Tensor =>
  tensor(
    Array.from({ length: count }, (_, i) => (i * 7) % 120),
    undefined,
    { dtype },
  );

/** The file with its tensors `shift` bytes further back: the header is padded with spaces, as any writer may do. */
function shifted(path: string, shift: number): string {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE());
  const moved = Buffer.concat([
    file.subarray(0, 8 + length),
    Buffer.alloc(shift, ' '),
    file.subarray(8 + length),
  ]);
  moved.writeBigUInt64LE(BigInt(length + shift));
  writeFileSync(`${path}.${shift}`, moved);
  return `${path}.${shift}`;
}

describe('mapped reading', () => {
  const dtypes: Dtype[] = ['f32', 'bf16', 'f64', 'f16', 'i32', 'i64', 'u8'];
  it.each(dtypes)('%s: any alignment, as it is and converted', (dtype) =>
    scope(() => {
      const path = join(root, `a-${dtype}.safetensors`);
      const values = counted(5000, dtype);
      writeSafetensors(
        path,
        new Map([
          ['odd', full([3], 1, { dtype: 'u8' })],
          ['x', values],
        ]),
      );
      for (const shift of [0, 1, 2, 3, 4, 5, 7, 8]) {
        const file = openSafetensors(shifted(path, shift));
        for (const wanted of dtypes)
          expect(file.read('x', { dtype: wanted }).toArray(), `${wanted} ${shift}`).toEqual(values.toArray());
      }
    }),
  );

  it('takes boxes of a stored tensor in another order of axes, converted or not', () =>
    scope(() => {
      const path = join(root, 'box.safetensors');
      writeSafetensors(path, new Map([['x', view(counted(2 * 300 * 70), [2, 300, 70])]]));
      const stored = counted(2 * 300 * 70).toArray();
      for (const source of [path, shifted(path, 3)])
        for (const dtype of ['f32', 'f64', 'bf16'] as const) {
          const target = zeros([70, 2, 40], { dtype });
          openSafetensors(source).readInto('x', target, { offset: 70 * 11, strides: [1, 300 * 70, 70 * 3] });
          const expected = Array.from({ length: 70 * 2 * 40 }, (_, i) => {
            const [a, b, c] = [Math.floor(i / 80), Math.floor(i / 40) % 2, i % 40];
            return stored[70 * 11 + a + b * 300 * 70 + c * 70 * 3]!;
          });
          expect(target.toArray()).toEqual(expected);
        }
    }));

  it('goes on over pieces of more than 32 MB', () =>
    scope(() => {
      const path = join(root, 'large.safetensors');
      const rows = (33 << 20) / 1024;
      const large = zeros([rows, 1024], { dtype: 'u8' });
      const bytes = new Uint8Array(large.size);
      for (let i = 0; i < bytes.length; i++) bytes[i] = i * 31 + (i >> 10);
      large.write(bytes);
      writeSafetensors(path, new Map([['x', large]]));
      expect(Buffer.compare(openSafetensors(path).read('x').readSync() as Uint8Array, bytes)).toBe(0);
      const column = zeros([rows], { dtype: 'f32' });
      openSafetensors(path).readInto('x', column, { offset: 5, strides: [1024] });
      expect(column.toArray()).toEqual(Array.from({ length: rows }, (_, i) => bytes[i * 1024 + 5]!));
    }));

  it('refuses a file that changed since its header was read, boxes that lie outside and other counts', () =>
    scope(() => {
      const path = join(root, 'changed.safetensors');
      writeSafetensors(path, new Map([['x', counted(4096)]]));
      const file = openSafetensors(path);
      const target = full([4096], 3);
      expect(() => file.readInto('x', full([4095], 0))).toThrow(/ERR_LIBMOE_SHAPE.*does not fill \[4095\]/);
      expect(() => file.readInto('x', target, { offset: 1, strides: [1] })).toThrow(/ERR_LIBMOE_SHAPE/);
      const { size } = { size: readSafetensorsHeader(path).entries[0]!.fileSize };
      truncateSync(path, size - 4096);
      expect(() => file.readInto('x', target)).toThrow(
        /ERR_LIBMOE_CHECKPOINT: .*changed\.safetensors has \d+ bytes, it had \d+ when its header was read/,
      );
      truncateSync(path, size);
      appendFileSync(path, 'x');
      expect(() => file.read('x')).toThrow(/ERR_LIBMOE_CHECKPOINT: .*is being changed or was truncated/);
      expect(target.toArray().every((x) => x === 3)).toBe(true);
      expect(() => openSafetensors(path)).toThrow(/ERR_LIBMOE_CHECKPOINT/);
    }));
});
