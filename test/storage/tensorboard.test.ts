import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { crc32c, maskedCrc32c } from '../../ts/storage/crc32c.ts';
import { EventWriter } from '../../ts/storage/tensorboard.ts';
import { temporaryFolder } from './temporary.ts';

const root = temporaryFolder();

describe('crc32c', () => {
  it('gives the values of RFC 3720, appendix B.4', () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i))).toBe(0x113fdb5c);
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  });
});

type Wire = Map<number, (bigint | Buffer)[]>;

/** An independent reader of the wire format: field number → values. */
function decode(bytes: Buffer): Wire {
  const fields: Wire = new Map();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    let value: bigint | Buffer;
    if (wire === 0) value = varint();
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : Number(varint());
      value = bytes.subarray(at, at + length);
      at += length;
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value]);
  }
  return fields;
}

function records(path: string): Wire[] {
  const bytes = readFileSync(path);
  const events: Wire[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data));
    events.push(decode(data));
    at += 16 + length;
  }
  return events;
}

const sub = (wire: Wire, field: number, index = 0) => decode(wire.get(field)![index] as Buffer);
const text = (wire: Wire, field: number) => (wire.get(field)![0] as Buffer).toString('utf8');

describe('EventWriter', () => {
  it('writes records that a reader of the format understands', () => {
    const folder = join(root, 'run');
    const writer = new EventWriter(folder, { now: () => 1234.5, resumeAt: 300 });
    writer.scalar('loss', 300, 2.5);
    writer.scalars(301, { 'train/lr': 0.125, 'train/ü': -1 });
    writer.histogram('load', 302, [0, 1, 1, 4], 4);
    writer.text('recipe', 303, '**bold**');
    writer.close();
    expect(readdirSync(folder)).toEqual([expect.stringMatching(/^events\.out\.tfevents\.0000001234\./)]);

    const [version, start, loss, two, histogram, note, ...rest] = records(writer.path);
    expect(rest).toEqual([]);
    expect((version!.get(1)![0] as Buffer).readDoubleLE()).toBe(1234.5);
    expect(text(version!, 3)).toBe('brain.Event:2');
    expect([start!.get(2)![0], sub(start!, 7).get(1)![0]]).toEqual([300n, 1n]);

    const value = sub(sub(loss!, 5), 1);
    expect([loss!.get(2)![0], text(value, 1), (value.get(2)![0] as Buffer).readFloatLE()]).toEqual([
      300n,
      'loss',
      2.5,
    ]);
    const values = [0, 1].map((i) => sub(sub(two!, 5), 1, i));
    expect(values.map((v) => [text(v, 1), (v.get(2)![0] as Buffer).readFloatLE()])).toEqual([
      ['train/lr', 0.125],
      ['train/ü', -1],
    ]);

    const histo = sub(sub(sub(histogram!, 5), 1), 5);
    const double = (field: number) => (histo.get(field)![0] as Buffer).readDoubleLE();
    expect([1, 2, 3, 4, 5].map(double)).toEqual([0, 4, 4, 6, 18]);
    const packed = (field: number) => {
      const bytes = histo.get(field)![0] as Buffer;
      return Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readDoubleLE(i * 8));
    };
    expect([packed(6), packed(7)]).toEqual([
      [1, 2, 3, 4],
      [1, 2, 0, 1],
    ]);

    const written = sub(sub(note!, 5), 1);
    expect(text(sub(sub(written, 9), 1), 1)).toBe('text');
    expect([sub(written, 8).get(1)![0], text(sub(written, 8), 8)]).toEqual([7n, '**bold**']);
  });

  it('never shares a file and refuses misuse', () => {
    const folder = join(root, 'two');
    const writers = [new EventWriter(folder), new EventWriter(folder)];
    expect(readdirSync(folder)).toHaveLength(2);
    for (const writer of writers) writer.close();
    expect(() => writers[0]!.scalar('a', 1, 1)).toThrow('ERR_LIBMOE_STATE');
    expect(() => new EventWriter('/dev/null/x')).toThrow('ERR_LIBMOE_FILE');
    using writer = new EventWriter(folder);
    expect(() => writer.histogram('h', 1, [])).toThrow('ERR_LIBMOE_ARGUMENT');
    expect(() => writer.histogram('h', 1, [Number.NaN])).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});
