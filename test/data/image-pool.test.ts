import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, it } from 'vitest';
import {
  decodeImage,
  ImagePool,
  type ImagePoolOptions,
  imageProcessor,
  type PooledImage,
} from '../../ts/data/index.ts';
import { codeOf } from '../../ts/native/index.ts';

const folder = fileURLToPath(new URL('../golden/image/files/', import.meta.url));
const names = readdirSync(folder);
const processor = { image_processor_type: 'SiglipImageProcessor', size: { height: 16, width: 16 } };
const scratch = mkdtempSync(join(tmpdir(), 'libmoe-pool-'));
writeFileSync(join(scratch, 'broken.jpg'), 'nothing');
afterAll(() => rmSync(scratch, { recursive: true }));
/** What can be compared without printing thousands of numbers. */
const brief = (image: PooledImage): unknown =>
  'pixels' in image
    ? [
        image.tiles,
        createHash('sha256').update(new Uint8Array(image.pixels.buffer)).digest('hex').slice(0, 12),
      ]
    : image;
const missing = join(scratch, 'missing.jpg');
const broken = join(scratch, 'broken.jpg');

async function using(
  options: Partial<ImagePoolOptions>,
  run: (pool: ImagePool) => Promise<void>,
): Promise<void> {
  const pool = new ImagePool({ processor, folder, ...options });
  try {
    await run(pool);
  } finally {
    await pool.close();
  }
}
const codeFrom = async (run: () => unknown): Promise<unknown> => {
  try {
    await run();
  } catch (error) {
    return codeOf(error);
  }
  return undefined;
};

describe('ImagePool', () => {
  it.each([0, 2])(
    'loads in the order asked for, with %i workers; what is broken is a value',
    async (workers) => {
      const one = imageProcessor(processor, { mode: 'pad' });
      const expected: unknown[] = [];
      for (const name of names) expected.push(brief(one.process(await decodeImage(join(folder, name)))));
      await using({ workers, mode: 'pad' }, async (pool) => {
        const paths = [...names, missing, broken, ...names];
        const list = (await pool.load(paths)).map(brief);
        expect(list.length).toBe(paths.length);
        const at = names.length;
        expect(list.slice(0, at)).toEqual(expected);
        expect(list.slice(at + 2)).toEqual(expected);
        expect(list[at]).toEqual({
          path: missing,
          reason: 'missing',
          error: expect.stringContaining(missing),
        });
        expect(list[at + 1]).toEqual({
          path: broken,
          reason: 'broken',
          error: expect.stringContaining(broken),
        });
        expect(pool.counts).toEqual({ loaded: 2 * at, missing: 1, broken: 1 });
        expect([pool.side, ...pool.black]).toEqual([16, -1, -1, -1]);
        expect(await pool.load([])).toEqual([]);
      });
    },
  );

  it('streams in order, never further ahead than asked for', async () => {
    await using({ workers: 1, prefetch: 3 }, async (pool) => {
      const asked: string[] = [];
      const paths = function* (): Generator<string> {
        for (const name of [...names, ...names]) {
          asked.push(name);
          yield name;
        }
      };
      const expected = await pool.load([...names, ...names]);
      const seen: PooledImage[] = [];
      for await (const image of pool.stream(paths())) {
        seen.push(image);
        expect(asked.length).toBeLessThanOrEqual(seen.length + 2);
      }
      expect(seen.map(brief)).toEqual(expected.map(brief));
    });
  });

  it('can be left in the middle of a stream and closed with images on the way', async () => {
    const pool = new ImagePool({ processor, folder, workers: 1, prefetch: 5 });
    for await (const image of pool.stream(names)) {
      expect('pixels' in image).toBe(true);
      break;
    }
    const late = pool.load(names.slice(0, 2));
    await pool.close();
    expect((await late).length).toBe(2);
    await pool.close();
    expect(await codeFrom(() => pool.load(['rgb.jpg']))).toBe('ERR_LIBMOE_STATE');
  });

  it('leaves no thread behind, and a load that is cut short says so', async () => {
    const started: Worker[] = [];
    const note = (worker: Worker) => started.push(worker);
    process.on('worker', note);
    const pool = new ImagePool({ processor, folder, workers: 2 });
    await pool.load(names.slice(0, 4));
    process.off('worker', note);
    expect(started.length).toBeGreaterThan(0);
    expect(started.every((worker) => worker.threadId > 0)).toBe(true);
    const cut = codeFrom(() => pool.load([...names, ...names, ...names]));
    await pool.close();
    expect(await cut).toBe('ERR_LIBMOE_STATE');
    expect(started.map((worker) => worker.threadId)).toEqual(started.map(() => -1)); // ended
  });

  it('refuses an elongated image as broken, naming it', async () => {
    const sharp = (await import('sharp')).default;
    const strip = join(scratch, 'strip.png');
    await sharp({ create: { width: 1, height: 30000, channels: 3, background: '#123' } })
      .png()
      .toFile(strip);
    await using({ workers: 0, mode: 'pad' }, async (pool) => {
      expect(await pool.load([strip])).toEqual([
        { path: strip, reason: 'broken', error: expect.stringMatching(/30000 x 30000.*strip\.png/) },
      ]);
    });
  });

  it('keeps images up to a number of bytes, the first ones, and makes none twice at the same time', async () => {
    const file = (name: string) => join(scratch, `${name}.jpg`);
    for (const name of ['a', 'b', 'c']) copyFileSync(join(folder, 'rgb.jpg'), file(name));
    const bytes = imageProcessor(processor).process(await decodeImage(file('a'))).pixels.byteLength;
    await using({ keepBytes: 2 * bytes, workers: 0 }, async (pool) => {
      const [a, again] = await pool.load([file('a'), file('a')]);
      expect(again).toBe(a);
      for (const name of ['b', 'a', 'c']) await pool.load([file(name)]);
      for (const name of ['a', 'b', 'c']) rmSync(file(name));
      const [first, second, beyond] = await pool.load([file('a'), file('b'), file('c')]);
      expect(first).toBe(a);
      expect(second).toHaveProperty('pixels');
      expect(beyond).toMatchObject({ reason: 'missing' });
      expect(pool.counts).toEqual({ loaded: 7, missing: 1, broken: 0 });
    });
    copyFileSync(join(folder, 'rgb.jpg'), file('a'));
    await using({ keepBytes: 0, workers: 0 }, async (pool) => {
      await pool.load([file('a')]);
      rmSync(file('a'));
      expect((await pool.load([file('a')]))[0]).toMatchObject({ reason: 'missing' });
    });
  });

  it('refuses options that cannot be, at once', async () => {
    for (const options of [{ workers: -1 }, { workers: 1.5 }, { prefetch: 0 }, { keepBytes: -1 }])
      expect(await codeFrom(() => new ImagePool({ processor, ...options }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(await codeFrom(() => new ImagePool({ processor: { size: 'x' } }))).toBe('ERR_LIBMOE_CONFIG');
  });
});
