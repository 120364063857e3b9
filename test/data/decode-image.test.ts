import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { type DecodedImage, decodeImage, type ImageDecodeOptions } from '../../ts/data/index.ts';
import { codeOf } from '../../ts/native/index.ts';

const folder = fileURLToPath(new URL('../golden/image/files/', import.meta.url));
const golden: Record<string, [width: number, height: number, sha256: string]> = JSON.parse(
  readFileSync(new URL('../golden/image/files.json', import.meta.url), 'utf8'),
);
const scratch = mkdtempSync(join(tmpdir(), 'libmoe-decode-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const summary = ({ width, height, rgb }: DecodedImage) => {
  expect(rgb.length).toBe(3 * width * height);
  return [width, height, createHash('sha256').update(rgb).digest('hex').slice(0, 16)];
};
const written = (name: string, bytes: string | Uint8Array): string => {
  writeFileSync(join(scratch, name), bytes);
  return join(scratch, name);
};
const errorOf = async (source: string | Uint8Array, options: ImageDecodeOptions = {}): Promise<string> => {
  try {
    await decodeImage(source, options);
  } catch (error) {
    return `${codeOf(error)} ${(error as Error).message}`;
  }
  return '';
};

/** A PNG whose header promises `side` x `side` pixels. */
function promising(side: number): Buffer {
  const chunk = (kind: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const size = Buffer.alloc(4);
    size.writeUInt32BE(data.length);
    return Buffer.concat([size, body, crc32(body)]);
  };
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = deflateSync(Buffer.alloc(1000));
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', data),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc32(bytes: Buffer): Buffer {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  const out = Buffer.alloc(4);
  out.writeUInt32BE(~crc >>> 0);
  return out;
}

describe('decodeImage', () => {
  it.each(readdirSync(folder))('gives what Pillow gives: %s', async (name) => {
    const expected = golden[name];
    expect(expected).toBeDefined();
    expect(summary(await decodeImage(join(folder, name)))).toEqual(expected);
    expect(summary(await decodeImage(readFileSync(join(folder, name))))).toEqual(expected);
  });

  it('turns an image upright when asked to', async () => {
    const file = join(folder, 'turned.jpg');
    expect(summary(await decodeImage(file, { orientation: 'apply' }))).toEqual(golden['turned.jpg, upright']);
    const other = await decodeImage(join(folder, 'rgb.png'), { orientation: 'apply' });
    expect(summary(other)).toEqual(golden['rgb.png']);
  });

  it('names the file and the reason', async () => {
    expect(await errorOf(join(scratch, 'none.jpg'))).toMatch(
      /^ERR_LIBMOE_IMAGE_MISSING .*none\.jpg does not exist/,
    );
    expect(await errorOf(join(written('plain.txt', 'x'), 'a.jpg'))).toMatch(/^ERR_LIBMOE_IMAGE_MISSING /);
    mkdirSync(join(scratch, 'folder.jpg'));
    expect(await errorOf(join(scratch, 'folder.jpg'))).toMatch(/^ERR_LIBMOE_IMAGE .*folder\.jpg is no file/);
    for (const [name, content] of [
      ['text.jpg', 'not an image'],
      ['empty.png', ''],
      ['drawing.svg', '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'],
    ] as const)
      expect(await errorOf(written(name, content))).toMatch(
        new RegExp(`^ERR_LIBMOE_IMAGE .*${name} is no image of a known format \\(JPEG, PNG, GIF, WebP\\)`),
      );
    expect(await errorOf(new Uint8Array(9))).toMatch(/^ERR_LIBMOE_IMAGE .*an image in memory/);
  });

  it.each(['rgb.jpg', 'progressive.jpg', 'rgb.png', 'lossy.webp', 'one.gif'])(
    'refuses a file that was cut off: %s',
    async (name) => {
      const bytes = readFileSync(join(folder, name));
      for (const share of [0.8, 0.6]) {
        const file = written(`cut-${name}`, bytes);
        truncateSync(file, Math.floor(bytes.length * share));
        expect(await errorOf(file), `${share}`).toMatch(/^ERR_LIBMOE_IMAGE .*cut-.* cannot be decoded \(/);
      }
    },
  );

  it('takes a file with bytes behind its end', async () => {
    const bytes = Buffer.concat([readFileSync(join(folder, 'rgb.jpg')), Buffer.from('and more')]);
    expect(summary(await decodeImage(written('more.jpg', bytes)))).toEqual(golden['rgb.jpg']);
  });

  it('keeps its limits, before it takes memory', async () => {
    const bomb = written('bomb.png', promising(30000));
    expect(await errorOf(bomb)).toMatch(/^ERR_LIBMOE_IMAGE .*bomb\.png has .*limit \(maxPixels\)/);
    const file = join(folder, 'rgb.png');
    expect(await errorOf(file, { maxPixels: 33 * 21 - 1 })).toMatch(
      /ERR_LIBMOE_IMAGE .*rgb\.png has .*maxPixels/,
    );
    expect(await errorOf(file, { maxPixels: 33 * 21 })).toBe('');
    expect(await errorOf(file, { maxFileBytes: 50 })).toMatch(
      /ERR_LIBMOE_IMAGE .*rgb\.png has \d+ bytes.*maxFileBytes\) is 50/,
    );
    expect(await errorOf(readFileSync(file), { maxFileBytes: 50 })).toMatch(/maxFileBytes/);
  });
});
