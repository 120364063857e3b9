import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Table, tableToIPC, Utf8, vectorFromArray } from 'apache-arrow';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { importBundle, openBundle, verifyBundle } from '../../../ts/data/bundles/index.ts';
import { codeOf } from '../../../ts/native/index.ts';
import { png, put, testFolder, zip } from './sources.ts';

const folder = testFolder();
let made = 0;
const imported = (files: Record<string, string | Uint8Array>, options: object = {}) =>
  importBundle([put(join(folder, `in-${++made}`), files)], {
    id: 'made/up',
    out: join(folder, `out-${++made}`),
    ...options,
  });

/** What a descriptor is of; empty for one that was closed meanwhile. */
function linkOf(descriptor: string): string {
  try {
    return readlinkSync(descriptor);
  } catch {
    return '';
  }
}

const texts = Array.from({ length: 40 }, (_, i) => `text ${i} `.repeat(5));
const parquet = Buffer.from(
  parquetWriteBuffer({ rowGroupSize: 20, columnData: [{ name: 'a', data: texts, type: 'STRING' }] }),
);
const arrow = (form: 'stream' | 'file') =>
  Buffer.from(tableToIPC(new Table({ a: vectorFromArray(texts, new Utf8()) }), form));
const packed = gzipSync(texts.map((a) => JSON.stringify({ a })).join('\n'));

describe('files that are cut off', () => {
  it.each<[string, Buffer, number]>([
    ['test.parquet', parquet, 24],
    ['test.arrow', arrow('stream'), 24],
    ['test.feather', arrow('file'), 24],
    ['test.jsonl.gz', packed, 10],
    ['test.zip', zip({ 'a/test.jsonl': texts.map((a) => JSON.stringify({ a })).join('\n') }), 10],
  ])('%s', async (name, whole, steps) => {
    expect((await imported({ [name]: whole })).manifest.splits[0]!.rows).toBe(40);
    for (let i = 0; i < steps; ++i) {
      const length = Math.floor((i * (whole.length - 16)) / steps);
      const error = await imported({ [name]: whole.subarray(0, length) }).catch((reason: unknown) => reason);
      expect(codeOf(error), `${length} of ${whole.length} bytes: ${String(error)}`).toBe('ERR_LIBMOE_DATA');
      expect((error as Error).message).toContain(name === 'test.zip' ? 'test.zip' : name);
    }
  });

  it('a list of records', async () => {
    await expect(imported({ 'test.json': '[{"a":1},{"a":2}' })).rejects.toThrow(
      /test\.json is cut off after record 1: its list does not end/,
    );
  });
});

it('bytes of a parquet or Arrow file that were changed give an error or other values, never a hang or a crash', async () => {
  for (const [name, whole] of [
    ['test.parquet', parquet],
    ['test.arrow', arrow('stream')],
  ] as const) {
    for (let i = 0; i < 60; ++i) {
      const bytes = Buffer.from(whole);
      // The ends hold the sizes.
      const at = i % 2 === 0 ? bytes.length - 1 - ((i * 7) % 180) : (i * 131) % bytes.length;
      bytes[at] = (bytes[at]! + 1 + ((i * 37) % 254)) % 256;
      const error = await imported({ [name]: bytes }).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (error !== undefined) expect(codeOf(error), `byte ${at}: ${String(error)}`).toBe('ERR_LIBMOE_DATA');
    }
  }
}, 120_000);

describe('texts that are wrong', () => {
  const bad = Buffer.from([0x22, 0xff, 0xfe, 0x22]);
  it('no UTF-8', async () => {
    const json = Buffer.concat([Buffer.from('{"a":1}\n{"a":'), bad, Buffer.from('}')]);
    await expect(imported({ 'test.jsonl': json })).rejects.toThrow(/test\.jsonl, record 2 is not UTF-8/);
    const csv = Buffer.concat([Buffer.from('a,b\n1,2\n3,'), bad]);
    await expect(imported({ 'test.csv': csv })).rejects.toThrow(/test\.csv is not UTF-8 after line \d/);
  });

  it('no table, no JSON, no records', async () => {
    const wrong: [Record<string, string>, RegExp][] = [
      [
        { 'test.csv': 'a,b\n1,2\n3\n' },
        /test\.csv is no table: Invalid Record Length: columns length is 2, got 1 on line 3/,
      ],
      [{ 'test.csv': 'a,b\n1,"2\n3' }, /test\.csv is no table: Quote Not Closed/],
      [{ 'test.csv': 'a,a\n1,2' }, /test\.csv: two columns are named "a".*--columns/],
      [
        { 'test.jsonl': '{"a":1}\n{"a":}\n' },
        /test\.jsonl, record 2:1:6 is not valid JSON: expected a value, got "}"/,
      ],
      [{ 'test.jsonl': '{"a":1}\n[1]\n' }, /record 2 must be a JSON object, got \[1\]/],
      [{ 'test.json': '[]' }, /the split test would have no rows/],
      [{ 'test.jsonl': '{"__proto__":1}' }, /a column must not be named __proto__/],
    ];
    for (const [files, message] of wrong) await expect(imported(files)).rejects.toThrow(message);
  });
});

describe('archives that do harm', () => {
  const row = '{"a":1}\n';
  it('are refused and leave nothing behind', async () => {
    const outside = join(folder, 'outside.jsonl');
    const wrong: [Buffer, RegExp][] = [
      [zip({ '../../outside.jsonl': row }), /unsafe one: invalid relative path: \.\.\/\.\.\/outside\.jsonl/],
      [zip({ [outside]: row }), /unsafe one: absolute path/],
      [zip({ 'a\\..\\..\\b.jsonl': row }), /unsafe one/],
      [
        zip({ 'test.jsonl': row }, { claims: { 'test.jsonl': 3_000_000_000 } }),
        /says that its 10 bytes unpack to 3000000000/,
      ],
      [zip({ 'test.jsonl': row }, { claims: { 'test.jsonl': 20 } }), /test\.zip is no whole zip archive/],
      [
        zip({ 'test.jsonl': '/etc/passwd' }, { modes: { 'test.jsonl': 0o120777 } }),
        /test\.jsonl is a link or a device/,
      ],
    ];
    for (const [content, message] of wrong)
      await expect(imported({ 'test.zip': content })).rejects.toThrow(message);
    expect(existsSync(outside)).toBe(false);
  });

  it('with a wrong checksum are refused', async () => {
    const bytes = zip({ 'test.jsonl': row });
    bytes[14]! ^= 1;
    const listed = bytes.indexOf('PK\x01\x02');
    bytes[listed + 16]! ^= 1;
    await expect(imported({ 'test.zip': bytes })).rejects.toThrow(
      /test\.zip: test\.jsonl is damaged: its checksum is/,
    );
  });

  it('within archives are unpacked, and errors say in which', async () => {
    const inner = zip({ 'test.jsonl': `${row}{` });
    await expect(imported({ 'outer.zip': zip({ 'deep/inner.zip': inner }) })).rejects.toThrow(
      /outer\.zip\/deep\/inner\.zip\/test\.jsonl, record 2/,
    );
    const good = await imported({ 'outer.zip': zip({ 'deep/inner.zip': zip({ 'test.jsonl': row }) }) });
    expect(good.manifest.splits[0]!.rows).toBe(1);
  });

  it('within archives within archives: three deep, and no deeper', async () => {
    const nested = (depth: number): Buffer =>
      depth === 1 ? zip({ 'test.jsonl': row }) : zip({ [`in-${depth - 1}.zip`]: nested(depth - 1) });
    expect((await imported({ 'in-3.zip': nested(3) })).manifest.splits[0]!.rows).toBe(1);
    await expect(imported({ 'in-4.zip': nested(4) })).rejects.toThrow(
      /^ERR_LIBMOE_DATA: \/.*\/in-4\.zip\/in-3\.zip\/in-2\.zip\/in-1\.zip is an archive within 3 others: unpack/,
    );
    // Neither does a part of a bundle stay behind.
    expect(existsSync(join(folder, `out-${made}`, 'made/up/main'))).toBe(false);
  });
});

describe('a bundle that was changed', () => {
  const fresh = async () => {
    const { folder: at, manifest } = await imported({
      'test.jsonl': '{"n":1,"image":"a.png"}\n{"n":2,"image":"b.png"}\n',
      'train.jsonl': '{"n":3}\n',
      'a.png': png('a'),
      'b.png': png('b'),
    });
    return { at, manifest };
  };

  it('is noticed, and the first file that differs is named', async () => {
    const { at, manifest } = await fresh();
    expect(await verifyBundle(at)).toMatchObject({ files: 4, unknown: [] });
    writeFileSync(join(at, 'media/other.png'), '');
    expect((await verifyBundle(at)).unknown).toEqual(['media/other.png']);
    const rows = readFileSync(join(at, 'test.jsonl'), 'utf8');
    writeFileSync(join(at, 'test.jsonl'), rows.replace('"n":1', '"n":7'));
    const message =
      /^ERR_LIBMOE_BUNDLE: .*test\.jsonl is not the file that was imported \(its SHA-256 is another\)/;
    await expect(verifyBundle(at)).rejects.toThrow(message);
    expect(() => openBundle(at).rows('test')).toThrow(message);
    expect(openBundle(at).rows('train').at(0)).toEqual({ n: 3 });
    writeFileSync(join(at, 'test.jsonl'), rows.slice(1));
    expect(() => openBundle(at).rows('test')).toThrow(/test\.jsonl is not .* \(\d+ bytes, expected \d+\)/);
    writeFileSync(join(at, 'test.jsonl'), rows);
    const picture = join(at, (JSON.parse(rows.split('\n')[1]!) as { image: string }).image);
    writeFileSync(picture, png('B'));
    await expect(verifyBundle(at)).rejects.toThrow(`${picture} is damaged`);
    rmSync(picture);
    await expect(verifyBundle(at)).rejects.toThrow(`${picture} is missing`);
    rmSync(join(at, 'train.jsonl'));
    expect(() => openBundle(at).rows('train')).toThrow('train.jsonl is missing');
    const broken = { ...manifest, splits: [{ ...manifest.splits[0]!, file: '../../etc/passwd' }] };
    writeFileSync(join(at, 'manifest.json'), JSON.stringify(broken));
    expect(() => openBundle(at)).toThrow(/manifest\.json: .*splits/);
    rmSync(join(at, 'manifest.json'));
    expect(() => openBundle(at)).toThrow('is no data bundle');
  });

  it('says which splits and rows there are', async () => {
    const { at } = await fresh();
    expect(() => openBundle(at).rows('val')).toThrow(/has no split "val": it has test, train/);
    const rows = openBundle(at).rows('test');
    expect(() => rows.at(2)).toThrow('has the rows 0…1, got 2');
    expect([...rows.allStored()]).toEqual([0, 1].map((i) => rows.stored(i)));
    writeFileSync(join(at, 'test.jsonl'), '{}\n{}\n');
    expect(() => rows.at(0)).toThrow(/test\.jsonl is not the file that was imported \(6 bytes/);
    expect(() => [...rows]).toThrow('is not the file that was imported');
  });

  it('can be open by the hundred, since no file stays open between reads', async () => {
    const { at } = await fresh();
    const open = (): string[] =>
      readdirSync('/proc/self/fd').filter((name) => linkOf(`/proc/self/fd/${name}`).startsWith(at));
    const many = Array.from({ length: 300 }, () => openBundle(at).rows('test'));
    expect(many.map((rows) => rows.at(1)).length).toBe(300);
    expect(open()).toEqual([]);
    // A file is open while its rows are gone through, and not after a caller left off.
    for (const row of many[0]!) {
      expect(open()).toHaveLength(1);
      if (row !== undefined) break;
    }
    expect(open()).toEqual([]);
  });
});
