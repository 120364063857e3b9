import { describe, expect, it } from 'vitest';
import {
  type Conversations,
  checkBatch,
  conversationsOf,
  conversationTemplate,
  type VisionLanguageBatch,
  VisionLanguageLoader,
  type VisionLanguageLoaderOptions,
} from '../../../ts/data/index.ts';
import type { JsonValue } from '../../../ts/storage/json.ts';
import { visionLanguageBatches } from '../../../ts/training/index.ts';
import { phiTokenizer } from './golden-tokenizer.ts';
import { MadeUpImages, record, someRecords } from './made-up.ts';

const tokenizer = phiTokenizer({ bos: false });
const imageTokenId = tokenizer.tokenToId('<unk>')!;

type Options = Partial<VisionLanguageLoaderOptions>;
const warnings: string[] = [];
function loaderOf(data: Conversations, options: Options = {}): VisionLanguageLoader {
  warnings.length = 0;
  return new VisionLanguageLoader(data, {
    tokenizer,
    template: conversationTemplate('phi3'),
    images: new MadeUpImages(),
    context: 60,
    tokensPerImage: 3,
    imageTokenId,
    batching: { samples: 4 },
    seed: 5,
    epochs: 1,
    warn: (message) => warnings.push(message),
    ...options,
  });
}

const plain = (batch: VisionLanguageBatch): object => ({
  ids: Array.from(batch.ids),
  targets: Array.from(batch.targets),
  offsets: Array.from(batch.sequenceOffsets),
  ...(batch.images && {
    starts: Array.from(batch.images.starts),
    pixels: Array.from(batch.images.pixels),
    rows: batch.images.rows && Array.from(batch.images.rows),
    sequences: batch.images.sequences && Array.from(batch.images.sequences),
  }),
});

async function all(loader: VisionLanguageLoader): Promise<VisionLanguageBatch[]> {
  const batches: VisionLanguageBatch[] = [];
  for await (const batch of loader) batches.push(batch);
  return batches;
}

/** Sequences with what they show, so that batches of several ranks can be put together again. */
function sequences(batch: VisionLanguageBatch): string[] {
  const { ids, targets, sequenceOffsets: offsets, images } = batch;
  return Array.from({ length: offsets.length - 1 }, (_, s) => {
    const [from, to] = [offsets[s]!, offsets[s + 1]!];
    const own = images
      ? Array.from(images.starts.keys()).filter((i) => images.starts[i]! >= from && images.starts[i]! < to)
      : [];
    const shown = own.map((i) => `${images!.starts[i]! - from}:${images!.pixels[i * 12]}`);
    return `${ids.subarray(from, to)}>${targets.subarray(from, to)}>${shown}`;
  });
}

const data = conversationsOf(someRecords(23));
const batchings = [{ samples: 4 }, { tokens: 240 }, { bins: 4, window: 6 }] as const;

describe('VisionLanguageLoader', () => {
  it('gives every sample of an epoch once, images at their rows', async () => {
    for (const batching of batchings) {
      const batches = await all(loaderOf(data, { batching }));
      const seen = batches.flatMap(sequences);
      expect(seen.length).toBe(23);
      expect(new Set(seen).size).toBe(23);
      for (const batch of batches) {
        checkBatch(batch, tokenizer.vocabularySize);
        const { images, ids, targets } = batch;
        expect(Array.from(ids).filter((id) => id === imageTokenId).length).toBe(3 * (images?.count ?? 0));
        for (const start of images?.starts ?? []) {
          expect(Array.from(ids.subarray(start, start + 3))).toEqual([
            imageTokenId,
            imageTokenId,
            imageTokenId,
          ]);
          expect(Array.from(targets.subarray(start, start + 3))).toEqual([-1, -1, -1]);
        }
      }
      const names = batches.flatMap(({ images }) =>
        images ? Array.from({ length: images.count }, (_, i) => images.pixels[i * 12]!) : [],
      );
      expect(names.sort((a, b) => a - b)).toEqual(
        Array.from({ length: 23 }, (_, i) => i).filter((i) => i % 3 !== 2),
      );
    }
  });

  it('keeps to its sizes', async () => {
    for (const batch of await all(loaderOf(data, { batching: { tokens: 240 } })))
      expect(batch.ids.length).toBeLessThanOrEqual(240);
    const packed = await all(loaderOf(data, { batching: { bins: 4, window: 6 } }));
    for (const batch of packed) expect(batch.ids.length).toBeLessThanOrEqual(4 * 60);
    expect(packed.length).toBeLessThan((await all(loaderOf(data, { batching: { samples: 4 } }))).length);
  });

  it('goes on anywhere as if it had never stopped, with any speed of images', async () => {
    for (const batching of batchings) {
      const slow = new MadeUpImages({
        delay: (path) => (path.length * 7 + Number.parseInt(path.split('/').at(-1)!, 10) * 5) % 13,
      });
      const whole = (await all(loaderOf(data, { batching, epochs: 2, prefetch: 0 }))).map(plain);
      expect(
        (await all(loaderOf(data, { batching, epochs: 2, prefetch: 3, images: slow }))).map(plain),
      ).toEqual(whole);
      for (const stop of [0, 1, 3, whole.length - 1]) {
        const first = loaderOf(data, { batching, epochs: 2 });
        for (let i = 0; i < stop; ++i) await first.next();
        const state = JSON.parse(JSON.stringify(first.state())) as JsonValue;
        const second = loaderOf(data, { batching, epochs: 2 });
        await second.next();
        second.restore(state);
        expect((await all(second)).map(plain)).toEqual(whole.slice(stop));
      }
    }
  });

  it('shares each batch among any number of ranks', async () => {
    for (const batching of batchings)
      for (const order of 'samples' in batching
        ? (['shuffle', 'modality'] as const)
        : (['shuffle'] as const)) {
        const one = await all(loaderOf(data, { batching, order }));
        for (const world of [2, 4]) {
          const ranks = Array.from({ length: world }, (_, rank) =>
            loaderOf(data, { batching, order, rank, world }),
          );
          for (const batch of one) {
            const parts = await Promise.all(ranks.map((loader) => loader.next()));
            const filled = ranks.reduce((sum, { tally }) => sum + tally.filledIn, 0);
            const together = parts.flatMap(sequences);
            if (filled === 0) expect(together.sort()).toEqual(sequences(batch).sort());
            else expect(together).toEqual(expect.arrayContaining(sequences(batch)));
            expect(new Set(ranks.map((loader) => JSON.stringify(loader.state()))).size).toBe(1);
            for (const part of parts) expect(visionLanguageBatches.targets(part)).toBeGreaterThan(0);
          }
        }
      }
  });

  it('leaves out samples without their image, or shows black, or stops', async () => {
    const records = someRecords(12);
    records[4] = record(['<image>\nwhat?', 'the cat'], 'missing.png');
    const broken = conversationsOf(records);
    const skipping = loaderOf(broken);
    const kept = (await all(skipping)).flatMap(sequences);
    expect(kept.length).toBe(11);
    expect(skipping.tally).toMatchObject({ samples: 11, skipped: 1, missingImages: 1 });
    expect(warnings).toEqual([
      expect.stringMatching(/^records, record 5: .*missing\.png: no such file; the sample is left out$/),
    ]);
    const black = loaderOf(broken, { onMissingImage: 'black' });
    const batches = await all(black);
    expect(batches.flatMap(sequences).length).toBe(12);
    expect(black.tally).toMatchObject({ samples: 12, skipped: 0, missingImages: 1 });
    const pixels = batches.flatMap(({ images }) => (images ? Array.from(images.pixels) : []));
    expect(pixels.filter((value) => value === -2).length).toBe(4);
    const stopping = loaderOf(broken, { onMissingImage: 'stop', batching: { samples: 12 } });
    await expect(stopping.next()).rejects.toThrow(
      /ERR_LIBMOE_DATA: records, record 5: .*missing\.png: no such file/,
    );
  });

  it('fills a share that would be empty, and gives up where nothing is left', async () => {
    const records = someRecords(6);
    records[1] = record(['<image>\nwhat?', 'the cat'], 'missing.png');
    const loader = loaderOf(conversationsOf(records), { order: 'none', batching: { samples: 1 } });
    const batches = await all(loader);
    expect(batches.length).toBe(6);
    expect(loader.tally).toMatchObject({ samples: 6, skipped: 1, filledIn: 1 });
    expect(sequences(batches[1]!)).toEqual(sequences(batches[2]!));
    const hopeless = conversationsOf([record(['<image>\nwhat?', 'the cat'], 'missing.png')]);
    await expect(loaderOf(hopeless).next()).rejects.toThrow(/ERR_LIBMOE_DATA: none of 1000 samples/);
  });

  it('cuts at the context, before an image that does not fit', async () => {
    const ids = (text: string) => tokenizer.encode(text).length;
    const first = ids('<|user|>\n') + 3;
    const long = conversationsOf([
      record(['<image>\nwhat is it?', 'the cat', '<image> and it?', 'the dog'], ['1.png', '2.png']),
    ]);
    const whole = await loaderOf(long).next();
    const second = whole.images!.starts[1]!;
    expect(Array.from(whole.images!.starts)).toEqual([first - 3, second]);
    const loader = loaderOf(long, { context: second + 2 });
    const cut = await loader.next();
    expect(cut.ids).toEqual(whole.ids.subarray(0, second));
    expect(cut.images!.count).toBe(1);
    expect(loader.tally).toMatchObject({ cut: 1 });
    expect(warnings[0]).toMatch(/record 1 is longer than the context of \d+ tokens and is cut/);
    const nothing = loaderOf(long, { context: first + 1, onBad: 'stop' });
    await expect(nothing.next()).rejects.toThrow(
      /ERR_LIBMOE_DATA: records, record 1: no answer begins within the context/,
    );
  });

  it('splits a batch with its images', async () => {
    const batch = await loaderOf(data, { batching: { samples: 9 }, order: 'none' }).next();
    for (const parts of [1, 2, 4, 20]) {
      const split = visionLanguageBatches.split(batch, parts);
      expect(split.length).toBe(Math.min(parts, 9));
      expect(split.flatMap(sequences)).toEqual(sequences(batch));
      for (const part of split) checkBatch(part, tokenizer.vocabularySize);
      expect(split.reduce((sum, part) => sum + (part.images?.count ?? 0), 0)).toBe(batch.images!.count);
    }
  });

  it('gives tiles rows of their own', async () => {
    const tiled = { images: new MadeUpImages({ tiles: 2 }), batching: { samples: 1 } };
    const batch = await loaderOf(conversationsOf([record(['<image>\nwhat?', 'cat'], '7.png')]), tiled).next();
    expect(Array.from(batch.images!.starts.map((start) => start - batch.images!.starts[0]!))).toEqual([0, 3]);
    expect([batch.images!.pixels[0], batch.images!.pixels[12]]).toEqual([7, Math.fround(7.1)]);
    await expect(loaderOf(data, { ...tiled, batching: { tokens: 240 } }).next()).rejects.toThrow(
      /expected one tile .* got 2 .*use \{ samples \}/,
    );
  });

  it('refuses options that do not fit, and places of other runs', async () => {
    expect(() => loaderOf(data, { images: undefined })).toThrow(/ERR_LIBMOE_ARGUMENT.*have images/);
    expect(() => loaderOf(data, { rank: 2, world: 2 })).toThrow(/rank must lie in 0…1/);
    expect(() => loaderOf(data, { world: 8 })).toThrow(/each of 8 ranks/);
    expect(() => loaderOf(data, { order: 'length', batching: { tokens: 240 } })).toThrow(/groups batches of/);
    const own = { imageTokenId: tokenizer.tokenToId('<|user|>')!, onBad: 'stop' } as const;
    await expect(loaderOf(data, own).next()).rejects.toThrow(
      /record \d+: the text gives token \d+, which stands for rows of images/,
    );
    expect(() => loaderOf(data, { groups: 3 })).toThrow(/multiple of the 3 groups/);
    const state = loaderOf(data).state();
    expect(() => loaderOf(data, { seed: 6 }).restore(state)).toThrow(/ERR_LIBMOE_STATE.*seed must be those/);
    expect(() => loaderOf(data, { template: conversationTemplate('phi35') }).restore(state)).toThrow(
      /ERR_LIBMOE_STATE/,
    );
    const finished = loaderOf(data);
    await all(finished);
    expect(finished.done).toBe(true);
    await expect(finished.next()).rejects.toThrow(/ERR_LIBMOE_STATE.*epochs of this loader are over/);
  });

  it('adds a zero image without rows to text alone under compat libmoe', async () => {
    const records = [record(['what?', 'cat']), record(['what? <image>', 'dog'], '3.png')];
    const loader = loaderOf(conversationsOf(records, { compat: 'libmoe' }), { order: 'none' });
    const { images, ...batch } = await loader.next();
    expect(images!.count).toBe(2);
    expect(images!.starts[0]).toBe(-1);
    expect(Array.from(images!.pixels.subarray(0, 12))).toEqual(new Array(12).fill(0));
    expect(Array.from(images!.sequences!)).toEqual([0, 1]);
    const [text, shown] = visionLanguageBatches.split({ ...batch, images }, 2);
    expect([text!.images!.count, shown!.images!.count]).toEqual([1, 1]);
    expect(Array.from(text!.images!.starts)).toEqual([-1]);
    expect(Array.from(shown!.images!.sequences!)).toEqual([0]);
    expect(shown!.ids[shown!.images!.starts[0]!]).toBe(imageTokenId);
  });
});
