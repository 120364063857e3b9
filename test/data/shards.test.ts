import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type CorpusDocument,
  loadTokenizer,
  openShards,
  PackedLoader,
  type ShardOptions,
  type ShardProgress,
  storySeparator,
  type Tokenizer,
  trainTokenizer,
  writeShards,
  writeTokenizer,
} from '../../ts/data/index.ts';
import { codeOf } from '../../ts/native/index.ts';

const scratch = mkdtempSync(join(tmpdir(), 'libmoe-shards-'));
const mixed = readFileSync(new URL('../golden/tokenizer/mixed.txt', import.meta.url), 'utf8');
const texts = mixed.split('\n');
const documents = (from = texts): CorpusDocument[] =>
  from.map((text, i) => ({ text, id: String(i), meta: {} }));
let tokenizerPath: string;
let tokenizer: Tokenizer;

beforeAll(async () => {
  tokenizerPath = writeTokenizer(
    join(scratch, 'tokenizer'),
    await trainTokenizer([mixed], { vocabularySize: 420 }),
  );
  tokenizer = loadTokenizer(tokenizerPath);
});

const folder = (): string => mkdtempSync(join(scratch, 'out-'));
const options = (out: string, more: Partial<ShardOptions> = {}): ShardOptions => ({
  out,
  tokenizer: tokenizerPath,
  shardCharacters: 300,
  workers: 0,
  ...more,
});
const contents = (out: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(out)
      .sort()
      .map((name) => [name, readFileSync(join(out, name)).toString('hex')]),
  );

async function failure(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    return `${codeOf(error)} | ${(error as Error).message}`;
  }
  return 'no error';
}

describe('writeShards', () => {
  it('stores every document with its separator and finds it again', async () => {
    const out = folder();
    const manifest = await writeShards(documents(['', ...texts, '  \n']), options(out));
    expect(manifest.shards.length).toBeGreaterThan(4);
    expect(manifest).toMatchObject({
      complete: true,
      documents: texts.filter((text) => text !== '').length,
      dtype: 'u16',
      separator: { id: 2 },
    });
    const dataset = openShards(out, { tokenizerHash: tokenizer.hash });
    expect(dataset.length).toBe(manifest.tokens);
    texts
      .filter((text) => text !== '')
      .forEach((text, i) => {
        const ids = dataset.read(dataset.documentOffsets[i]!, dataset.documentOffsets[i + 1]!);
        expect(Array.from(ids)).toEqual([...tokenizer.encode(text), 2]);
      });
    // Any range, across shards.
    const all = dataset.read(0, dataset.length);
    for (let start = 0; start < dataset.length; start += 97) {
      const end = Math.min(dataset.length, start + 400);
      expect(dataset.read(start, end)).toEqual(all.slice(start, end));
    }
    dataset.close();
    expect(await failure(() => dataset.read(0, 1))).toMatch(/^ERR_LIBMOE_DISPOSED/);
  });

  it('writes LibMoE separators as text, or none', async () => {
    const [story, none] = [folder(), folder()];
    await writeShards(documents(['one two', 'three']), options(story, { separator: storySeparator }));
    await writeShards(documents(['one two', 'three']), options(none, { separator: null }));
    const read = (out: string): number[] => {
      const dataset = openShards(out);
      const ids = Array.from(dataset.read(0, dataset.length));
      dataset.close();
      return ids;
    };
    expect(read(story)).toEqual([
      ...tokenizer.encode('one two<STORY_SEP>'),
      ...tokenizer.encode('three<STORY_SEP>'),
    ]);
    expect(read(none)).toEqual([...tokenizer.encode('one two'), ...tokenizer.encode('three')]);
  });

  it('gives the same files for any number of workers', async () => {
    const [alone, pool] = [folder(), folder()];
    const progress: ShardProgress[] = [];
    await writeShards(documents(), options(alone));
    const manifest = await writeShards(
      documents(),
      options(pool, { workers: 2, expectedDocuments: texts.length, onProgress: (now) => progress.push(now) }),
    );
    expect(contents(pool)).toEqual(contents(alone));
    expect(progress.map((now) => now.shards)).toEqual(manifest.shards.map((_, i) => i + 1));
    expect(progress.at(-1)).toMatchObject({ documents: manifest.documents, tokens: manifest.tokens });
    expect(progress.every((now) => now.secondsLeft! >= 0 && now.seconds > 0)).toBe(true);
  });

  it('keeps finished shards when it is interrupted, and finishes to the same files', async () => {
    const [whole, out] = [folder(), folder()];
    await writeShards(documents(), options(whole));
    async function* broken(): AsyncGenerator<CorpusDocument> {
      yield* documents().slice(0, 15);
      throw new Error('the disk is gone');
    }
    expect(await failure(() => writeShards(broken(), options(out)))).toContain('the disk is gone');
    expect(await failure(() => openShards(out))).toMatch(/^ERR_LIBMOE_DATA .*not complete/);
    const finished = readdirSync(out).filter((name) => /^shard-.*\.bin$/.test(name));
    expect(finished.length).toBeGreaterThan(1);
    // Files that are written again would get a new time.
    const past = new Date(2001, 1, 1);
    for (const name of finished) utimesSync(join(out, name), past, past);
    // One of them was damaged meanwhile: only that one is made again.
    writeFileSync(join(out, finished[0]!), 'x');
    await writeShards(documents(), options(out));
    expect(contents(out)).toEqual(contents(whole));
    const kept = finished.filter((name) => statSync(join(out, name)).mtime.getTime() === past.getTime());
    expect(kept).toEqual(finished.slice(1));
  });

  it('drops shards of an earlier, longer corpus', async () => {
    const [short, out] = [folder(), folder()];
    await writeShards(documents(texts.slice(0, 8)), options(short));
    await writeShards(documents(), options(out));
    await writeShards(documents(texts.slice(0, 8)), options(out));
    expect(contents(out)).toEqual(contents(short));
  });

  it('takes complete data as they are when the source is the same, and reads no document', async () => {
    const out = folder();
    const source = [['a.txt', 10, 1.5]];
    const never = (): CorpusDocument[] => {
      throw new Error('the corpus was read');
    };
    const unread = { [Symbol.iterator]: () => never()[Symbol.iterator]() };
    const manifest = await writeShards(documents(), options(out, { source }));
    expect(await writeShards(unread, options(out, { source }))).toEqual(manifest);
    expect(await failure(() => writeShards(unread, options(out)))).toMatch('the corpus was read');
    expect(await failure(() => writeShards(unread, options(out, { source: [['a.txt', 11, 1.5]] })))).toMatch(
      'the corpus was read',
    );
    // A damaged shard is noticed in spite of the same source.
    const good = contents(out);
    writeFileSync(join(out, 'shard-00001.bin'), 'x');
    expect(await failure(() => writeShards(unread, options(out, { source })))).toMatch('the corpus was read');
    await writeShards(documents(), options(out, { source }));
    expect(contents(out)).toEqual(good);
  });

  it('leaves complete data complete until a shard really differs', async () => {
    const out = folder();
    await writeShards(documents(), options(out));
    const good = contents(out);
    const past = new Date(2001, 1, 1);
    utimesSync(join(out, 'manifest.json'), past, past);
    async function* broken(changed = false): AsyncGenerator<CorpusDocument> {
      openShards(out).close(); // another run may begin at any moment
      yield* documents().slice(0, 10);
      openShards(out).close();
      if (changed) yield* documents(['other', 'x'.repeat(400)]);
      throw new Error('the corpus is damaged');
    }
    expect(await failure(() => writeShards(broken(), options(out)))).toMatch('the corpus is damaged');
    await writeShards(documents(), options(out));
    expect(statSync(join(out, 'manifest.json')).mtime).toEqual(past);
    expect(contents(out)).toEqual(good);
    expect(await failure(() => writeShards(broken(true), options(out)))).toMatch('the corpus is damaged');
    expect(await failure(() => openShards(out))).toMatch(/not complete/);
  });

  it.each([0, 2])('stops at a signal with %i workers, and goes on to the same files', async (workers) => {
    const [whole, out] = [folder(), folder()];
    await writeShards(documents(), options(whole));
    const stop = new AbortController();
    const onProgress = ({ shards }: ShardProgress): void => {
      if (shards === 2) stop.abort();
    };
    const stopped = () =>
      writeShards(documents(), options(out, { workers, signal: stop.signal, onProgress }));
    expect(await failure(stopped)).toMatch(/^ERR_LIBMOE_STOPPED .*while tokenising/);
    expect(await failure(() => openShards(out))).toMatch(/not complete/);
    await writeShards(documents(), options(out));
    expect(contents(out)).toEqual(contents(whole));
  });

  it('turns the event loop between documents', async () => {
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 1);
    const many = documents(Array.from({ length: 60 }, (_, i) => `${i} ${mixed}`));
    await writeShards(many, options(folder(), { shardCharacters: mixed.length }));
    clearInterval(timer);
    expect(turns).toBeGreaterThan(2);
  });

  it('refuses bad input and writes nothing', async () => {
    const out = join(scratch, 'never');
    const attempts: [() => unknown, RegExp][] = [
      [() => writeShards([], options(out)), /^ERR_LIBMOE_DATA .*no document with text/],
      [() => writeShards(documents(['', ' ']), options(out)), /^ERR_LIBMOE_DATA .*no document with text/],
      [
        () => writeShards(documents(), options(out, { tokenizer: join(scratch, 'none.json') })),
        /^ERR_LIBMOE_FILE/,
      ],
      [() => writeShards(documents(), options(out, { workers: -1 })), /^ERR_LIBMOE_ARGUMENT/],
      [() => writeShards(documents(), options(out, { shardCharacters: 0 })), /^ERR_LIBMOE_ARGUMENT/],
      [() => writeShards(documents(), options(out, { separator: { id: 420 } })), /^ERR_LIBMOE_ARGUMENT/],
    ];
    for (const [action, message] of attempts) expect(await failure(action)).toMatch(message);
    expect(readdirSync(scratch)).not.toContain('never');
  });

  it('refuses a folder made with other options', async () => {
    const out = folder();
    await writeShards(documents(), options(out));
    const before = contents(out);
    expect(await failure(() => writeShards(documents(), options(out, { separator: null })))).toMatch(
      /^ERR_LIBMOE_DATA .*separator/,
    );
    expect(await failure(() => writeShards(documents(), options(out, { shardCharacters: 500 })))).toMatch(
      /^ERR_LIBMOE_DATA/,
    );
    expect(contents(out)).toEqual(before);
  });

  it('brings the error of a worker home with its code', async () => {
    const path = join(mkdtempSync(join(scratch, 'gone-')), 'tokenizer.json');
    copyFileSync(tokenizerPath, path);
    function* vanishing(): Generator<CorpusDocument> {
      rmSync(path);
      yield* documents();
    }
    expect(
      await failure(() => writeShards(vanishing(), options(folder(), { tokenizer: path, workers: 1 }))),
    ).toMatch(/^ERR_LIBMOE_FILE \| ERR_LIBMOE_FILE: expected a tokenizer/);
  });
});

describe('openShards', () => {
  it('finds damage and says what to do', async () => {
    const out = folder();
    await writeShards(documents(), options(out));
    const file = (name: string): string => join(out, name);
    const attempt = async (name: string, damage: (path: string) => void, how = {}): Promise<string> => {
      const good = readFileSync(file(name));
      damage(file(name));
      const message = await failure(() => openShards(out, how));
      writeFileSync(file(name), good);
      return message;
    };
    const flip = (path: string): void => {
      const bytes = readFileSync(path);
      bytes[5]! ^= 1;
      writeFileSync(path, bytes);
    };
    expect(await attempt('shard-00001.bin', flip)).toMatch(/^ERR_LIBMOE_DATA .*shard-00001\.bin is damaged/);
    expect(await attempt('shard-00001.idx', flip, { verify: 'sizes' })).toMatch(
      /^ERR_LIBMOE_DATA .*shard-00001\.idx is damaged/,
    );
    expect(await attempt('shard-00002.bin', (path) => truncateSync(path, 10))).toMatch(
      /should have \d+ bytes, has 10/,
    );
    expect(await attempt('shard-00002.bin', (path) => truncateSync(path, 10), { verify: 'sizes' })).toMatch(
      /^ERR_LIBMOE_DATA/,
    );
    expect(await attempt('shard-00003.bin', (path) => rmSync(path))).toMatch(
      /^ERR_LIBMOE_DATA .*cannot be read/,
    );
    expect(await attempt('shard-00003.bin', (path) => rmSync(path), { verify: 'sizes' })).toMatch(
      /is missing/,
    );
    expect(await attempt('manifest.json', (path) => truncateSync(path, 50))).toMatch(/^ERR_LIBMOE_DATA/);
    expect(await attempt('manifest.json', (path) => writeFileSync(path, '{}'))).toMatch(
      /^ERR_LIBMOE_DATA .*not a manifest/,
    );
    expect(await failure(() => openShards(out, { tokenizerHash: 'other' }))).toMatch(
      /^ERR_LIBMOE_DATA .*model's tokenizer/,
    );
    expect(await failure(() => openShards(join(scratch, 'nowhere')))).toMatch(/^ERR_LIBMOE_FILE/);
    openShards(out).close();
  });

  it('feeds a loader', async () => {
    const out = folder();
    await writeShards(documents(), options(out));
    const dataset = openShards(out, { verify: 'sizes' });
    const loader = new PackedLoader(dataset, {
      sequenceLength: 32,
      batchSequences: 4,
      shuffle: 'documents',
      epochs: 1,
    });
    let targets = 0;
    for (const batch of loader) targets += batch.targets.filter((target) => target >= 0).length;
    expect(targets).toBe(dataset.length - 1);
    dataset.close();
  });
});
