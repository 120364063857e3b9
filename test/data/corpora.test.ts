import { mkdirSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parquetWriteFile } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import {
  type CorpusDocument,
  type CorpusOptions,
  corpusFiles,
  readCorpus,
  sotuDocuments,
  sotuSplits,
  textsOf,
} from '../../ts/data/index.ts';
import { LibmoeError } from '../../ts/native/index.ts';

const scratch = mkdtempSync(join(tmpdir(), 'libmoe-corpora-'));
const file = (name: string, content: string | Uint8Array): string => {
  const path = join(scratch, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, content);
  return path;
};

async function read(sources: string | string[], options?: CorpusOptions): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of readCorpus(sources, options)) documents.push(document);
  return documents;
}

async function errorOf(sources: string | string[], options?: CorpusOptions): Promise<string> {
  try {
    await read(sources, options);
  } catch (error) {
    expect(error).toBeInstanceOf(LibmoeError);
    return (error as Error).message;
  }
  return 'no error';
}

const rows = [
  { text: 'first\ndocument', source: 'a' },
  { text: 'zweites – Dokument 🙂', source: 'b' },
  { text: '', source: 'c' },
];
const jsonl = `${rows.map((row) => JSON.stringify(row)).join('\r\n')}\n\n`;
// Made by zstd 1.5 from "{"text": "packed by zstd"}\n" and the same line again: two frames, as parallel compressors write them.
const zst = Buffer.from(readFileSync(new URL('../golden/corpus/two-frames.jsonl.zst', import.meta.url)));

describe('readCorpus', () => {
  it('cuts text files before each line that matches', async () => {
    const path = file('texts/stories.txt', 'the end of one\nOnce a\n\nthen b\n\n\nOnce c\n');
    expect(await read(path, { textDocuments: { begin: '^Once' } })).toEqual([
      { text: 'Once a\n\nthen b', id: `${path}:2`, meta: { file: path } },
      { text: 'Once c', id: `${path}:7`, meta: { file: path } },
    ]);
    expect(await read(path, { textDocuments: { begin: '^Twice' } })).toEqual([]);
  });

  it('reads text files whole or by blocks', async () => {
    const path = file('texts/one.txt', 'a\nb\n\n\n  \nc\r\n');
    expect(await read(path)).toEqual([{ text: 'a\nb\n\n\n  \nc', id: path, meta: { file: path } }]);
    expect(await read(path, { textDocuments: 'blocks' })).toEqual([
      { text: 'a\nb', id: `${path}:1`, meta: { file: path } },
      { text: 'c', id: `${path}:6`, meta: { file: path } },
    ]);
  });

  it('reads JSON lines, plain and packed, with chosen columns', async () => {
    const plain = file('rows/a.jsonl', jsonl);
    const packed = file('rows/b.jsonl.gz', gzipSync(jsonl));
    for (const path of [plain, packed]) {
      const documents = await read(path, { metaColumns: ['source'] });
      expect(documents.map((document) => document.text)).toEqual(rows.map((row) => row.text));
      expect(documents[1]).toMatchObject({ id: `${path}:2`, meta: { file: path, source: 'b' } });
    }
    expect((await read(plain, { column: 'source' })).map((document) => document.text)).toEqual([
      'a',
      'b',
      'c',
    ]);
    expect((await read(file('z.jsonl.zst', zst))).map((document) => document.text)).toEqual([
      'packed by zstd',
      'packed by zstd',
    ]);
  });

  it('reads parquet files, several row groups', async () => {
    const path = join(scratch, 'rows.parquet');
    const many = Array.from({ length: 250 }, (_, i) => ({ text: `row ${i} ü`, year: i }));
    parquetWriteFile({
      filename: path,
      rowGroupSize: 100,
      columnData: [
        { name: 'text', data: many.map((row) => row.text), type: 'STRING' },
        { name: 'year', data: many.map((row) => row.year), type: 'INT32' },
      ],
    });
    const documents = await read(path, { metaColumns: ['year'] });
    expect(documents.map((document) => ({ text: document.text, year: document.meta.year }))).toEqual(many);
    expect(documents[120]!.id).toBe(`${path}:121`);
    expect(await errorOf(path, { column: 'body' })).toMatch(
      /ERR_LIBMOE_DATA: .*no column "body"; it has text, year/,
    );
    expect(await errorOf(path, { column: 'year' })).toMatch(
      /ERR_LIBMOE_DATA: .*rows\.parquet:1 must have a string in "year", got a number/,
    );
    truncateSync(path, 500);
    expect(await errorOf(path)).toMatch(/ERR_LIBMOE_DATA: .*not a whole parquet file/);
  });

  it('reads folders and patterns in a fixed order', async () => {
    for (const name of ['b/2.txt', 'a/1.txt', 'a/10.txt', 'a/deep/3.txt', 'a/readme.md'])
      file(`tree/${name}`, name);
    const tree = join(scratch, 'tree');
    const names = (source: string): string[] =>
      corpusFiles(source).map((path) => path.slice(tree.length + 1));
    expect(names(tree)).toEqual(['a/1.txt', 'a/10.txt', 'a/deep/3.txt', 'b/2.txt']);
    expect(names(join(tree, '*/*.txt'))).toEqual(['a/1.txt', 'a/10.txt', 'b/2.txt']);
    expect(names(join(tree, '**/?.txt'))).toEqual(['a/1.txt', 'a/deep/3.txt', 'b/2.txt']);
    const texts: string[] = [];
    for await (const text of textsOf(readCorpus([join(tree, 'b'), join(tree, 'a/1.txt')]))) texts.push(text);
    expect(texts).toEqual(['b/2.txt', 'a/1.txt']);
  });

  it('gives no document for files without text', async () => {
    expect(
      await read([file('e/empty.txt', ''), file('e/white.txt', ' \n\n'), file('e/empty.jsonl', '')]),
    ).toEqual([]);
  });

  it('says what is wrong, with file and line', async () => {
    expect(await errorOf(join(scratch, 'none.txt'))).toMatch(/ERR_LIBMOE_FILE: .*none\.txt does not exist/);
    expect(await errorOf(join(scratch, 'no-*.txt'))).toMatch(/ERR_LIBMOE_FILE/);
    expect(await errorOf(file('x.csv', 'a,b'))).toMatch(/ERR_LIBMOE_FILE: .*must end in \.txt/);
    expect(await errorOf(file('bad.jsonl', '{"text": "a"}\n{"text": "b"\n'))).toMatch(
      /ERR_LIBMOE_DATA: .*bad\.jsonl:2 is not JSON/,
    );
    expect(await errorOf(file('list.jsonl', '[1]'))).toMatch(
      /ERR_LIBMOE_DATA: .*list\.jsonl:1 must be a JSON object/,
    );
    expect(await errorOf(file('col.jsonl', '{"body": "a"}'))).toMatch(
      /col\.jsonl:1 must have a string in "text", got only body/,
    );
    expect(await errorOf(file('cut.jsonl.gz', gzipSync(jsonl).subarray(0, 40)))).toMatch(
      /ERR_LIBMOE_DATA: .*cut\.jsonl\.gz is damaged/,
    );
    expect(await errorOf(file('cut.jsonl.zst', zst.subarray(0, zst.length - 9)))).toMatch(
      /ERR_LIBMOE_DATA: .*cut\.jsonl\.zst is damaged/,
    );
    expect(await errorOf(file('not.jsonl.zst', 'plain text, not packed'))).toMatch(
      /ERR_LIBMOE_DATA: .*not\.jsonl\.zst is damaged/,
    );
  });
});

describe('sotu', () => {
  it('has all addresses with year, party and speaker', () => {
    const documents = sotuDocuments();
    expect(documents).toHaveLength(233);
    expect(documents[0]!.meta).toEqual({
      year: 1790,
      party: expect.any(String),
      speaker: expect.stringContaining('Washington'),
    });
    expect(new Set(documents.map((document) => document.id)).size).toBe(233);
    expect(documents.every((document) => document.text.length > 1000)).toBe(true);
  });

  it('splits by document, late years apart', () => {
    const { train, heldOut, shifted } = sotuSplits();
    expect(train.length + heldOut.length + shifted.length).toBe(233);
    expect(shifted.every((document) => document.meta.year >= 1990)).toBe(true);
    expect([...train, ...heldOut].every((document) => document.meta.year < 1990)).toBe(true);
    const ids = new Set(train.map((document) => document.id));
    expect(heldOut.some((document) => ids.has(document.id))).toBe(false);
    expect(heldOut.length).toBeGreaterThan(15);
    expect(() => sotuSplits({ shiftedFrom: 3000 })).toThrow(/ERR_LIBMOE_ARGUMENT/);
    expect(() => sotuSplits({ heldOutEvery: 1 })).toThrow(/ERR_LIBMOE_ARGUMENT/);
  });
});
