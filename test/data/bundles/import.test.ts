import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Binary, Field, List, Struct, Table, tableToIPC, Utf8, vectorFromArray } from 'apache-arrow';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { findBundle, importBundle, openBundle, verifyBundle } from '../../../ts/data/bundles/index.ts';
import { everything, lines, png, put, testFolder, zip } from './sources.ts';

const root = join(import.meta.dirname, '../../..');
const folder = testFolder();
let made = 0;
const bundle = (sources: string[], options: Partial<Parameters<typeof importBundle>[1]> = {}) =>
  importBundle(sources, { id: 'made/up', out: join(folder, `out-${++made}`), ...options });
const place = (files: Record<string, string | Uint8Array>) => put(join(folder, `in-${++made}`), files);
const named = (bytes: Uint8Array, ending: string) =>
  `media/${createHash('sha256').update(bytes).digest('hex')}.${ending}`;

const rows = [
  { question: 'ein "Wort", ja?', answer: 'nein\nzweite Zeile' },
  { question: 'größer', answer: '' },
  { question: 'x,y;\tz', answer: '🐈' },
];
const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;
const table = (separator: string) =>
  ['question', ...rows.map((row) => quote(row.question))]
    .map((question, i) => [question, i === 0 ? 'answer' : quote(rows[i - 1]!.answer)].join(separator))
    .join('\r\n');
const jsonl = rows.map((row) => JSON.stringify(row)).join('\n');
const parquet = () =>
  Buffer.from(
    parquetWriteBuffer({
      rowGroupSize: 2,
      columnData: [
        { name: 'question', data: rows.map((row) => row.question), type: 'STRING' },
        { name: 'answer', data: rows.map((row) => row.answer), type: 'STRING' },
      ],
    }),
  );
const arrow = (form: 'stream' | 'file') =>
  tableToIPC(
    new Table({
      question: vectorFromArray(
        rows.map((row) => row.question),
        new Utf8(),
      ),
      answer: vectorFromArray(
        rows.map((row) => row.answer),
        new Utf8(),
      ),
    }),
    form,
  );

describe('tables of every kind', () => {
  const kinds: Record<string, () => string | Uint8Array> = {
    'test.jsonl': () => jsonl,
    'test.jsonl.gz': () => gzipSync(jsonl),
    'test.json': () => JSON.stringify(rows, null, 2),
    'lines/test.json': () => `${jsonl}\n`,
    'test.csv': () => `\uFEFF${table(',')}\r\n`,
    'test.tsv': () => table('\t'),
    'data/test-00000-of-00001.parquet': parquet,
    'test/data-00000-of-00001.arrow': () => arrow('stream'),
    'test.feather': () => arrow('file'),
    'all.zip': () => zip({ 'some/test.jsonl': jsonl, '__MACOSX/test.jsonl': 'rubbish' }),
  };
  it.each(Object.keys(kinds))('%s', async (name) => {
    const { folder: at, manifest } = await bundle([place({ [name]: kinds[name]!() })]);
    expect(manifest.splits.map(({ split, rows: count, media }) => [split, count, media])).toEqual([
      ['test', 3, 0],
    ]);
    expect(manifest.columns).toEqual({ question: 'string', answer: 'string' });
    expect(lines(join(at, manifest.splits[0]!.file))).toEqual(rows);
    expect(readdirSync(at).sort()).toEqual(['manifest.json', manifest.splits[0]!.file.split('/')[0]].sort());
    await verifyBundle(at);
  });

  it('names the columns of csv without a header', async () => {
    const { folder: at } = await bundle([place({ 'test.csv': '1,2\n"3,",4\n' })], { columns: ['a', 'b'] });
    expect(lines(join(at, 'test.jsonl'))).toEqual([
      { a: '1', b: '2' },
      { a: '3,', b: '4' },
    ]);
  });

  it('keeps values that JSON has no word for: big numbers as text, dates as ISO, NaN as null, lists and structs as they are', async () => {
    const day = new Date(Date.UTC(2026, 1, 3));
    const file = Buffer.from(
      parquetWriteBuffer({
        columnData: [
          { name: 'big', data: [5n, 2n ** 60n], type: 'INT64' },
          { name: 'real', data: [0.5, Number.NaN], type: 'DOUBLE' },
          { name: 'day', data: [day, day], type: 'TIMESTAMP' },
        ],
      }),
    );
    const { folder: at, manifest } = await bundle([place({ 'test.parquet': file })]);
    expect(lines(join(at, 'test.jsonl'))).toEqual([
      { big: 5, real: 0.5, day: day.toISOString() },
      { big: String(2n ** 60n), real: null, day: day.toISOString() },
    ]);
    expect(manifest.columns).toEqual({ big: 'integer | string', real: 'null | number', day: 'string' });
    const texts = new List(new Field('item', new Utf8(), true));
    const nested = vectorFromArray(
      [{ text: ['a', 'b'], label: [] }, null],
      new Struct<{ text: List; label: List }>([
        new Field('text', texts, true),
        new Field('label', texts, true),
      ]),
    );
    const arrows = await bundle([
      place({ 'test.arrow': tableToIPC(new Table({ choices: nested }), 'stream') }),
    ]);
    expect(lines(join(arrows.folder, 'test.jsonl'))).toEqual([
      { choices: { text: ['a', 'b'], label: [] } },
      { choices: null },
    ]);
  });
});

describe('images', () => {
  const [one, two] = [png('one'), png('two')];

  const pictures = [
    { bytes: one, path: 'one.png' },
    { bytes: two, path: null },
    { bytes: one, path: 'again.png' },
    null,
  ];
  const expected = [named(one, 'png'), named(two, 'png'), named(one, 'png'), null];
  const hubParquet = () =>
    Buffer.from(
      parquetWriteBuffer({
        schema: [
          { name: 'root', num_children: 1 },
          { name: 'image', num_children: 2, repetition_type: 'OPTIONAL' },
          { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
          { name: 'path', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
        ],
        columnData: [{ name: 'image', data: pictures }],
      }),
    );
  const hubArrow = () =>
    tableToIPC(
      new Table({
        image: vectorFromArray(
          pictures,
          new Struct<{ bytes: Binary; path: Utf8 }>([
            new Field('bytes', new Binary(), true),
            new Field('path', new Utf8(), true),
          ]),
        ),
      }),
      'stream',
    );

  it.each([
    ['parquet', hubParquet],
    ['arrow', hubArrow],
  ] as const)(
    'of {bytes, path} in %s keep their bytes; the same one is kept once',
    async (ending, content) => {
      const { folder: at, manifest } = await bundle([place({ [`test.${ending}`]: content() })]);
      expect(lines(join(at, 'test.jsonl'))).toEqual(expected.map((image) => ({ image })));
      expect(manifest).toMatchObject({ media: { count: 2, bytes: 22 }, columns: { image: 'media | null' } });
      expect(readFileSync(join(at, named(two, 'png')))).toEqual(Buffer.from(two));
      const opened = openBundle(at).rows('test');
      expect([...opened].map((row) => row.image)).toEqual(expected.map((name) => name && join(at, name)));
      await verifyBundle(at);
    },
  );

  it('beside the records are found by their names, in lists and structs too', async () => {
    const source = place({
      'test.jsonl': [
        { image: 'images/a.png', more: ['b.PNG', 'images/a.png'], said: 'this is no.png' },
        { image: 'b.PNG', more: [], said: 'x' },
      ]
        .map((row) => JSON.stringify(row))
        .join('\n'),
      'images/a.png': one,
      'b.PNG': two,
    });
    const { folder: at, manifest } = await bundle([source]);
    expect(lines(join(at, 'test.jsonl'))).toEqual([
      { image: named(one, 'png'), more: [named(two, 'png'), named(one, 'png')], said: 'this is no.png' },
      { image: named(two, 'png'), more: [], said: 'x' },
    ]);
    expect(manifest.columns).toEqual({ image: 'media', more: 'list<media>', said: 'string' });
  });

  it('that are missing are named with their record, unless names will do', async () => {
    const source = place({ 'test.jsonl': '{"image":"a.png"}\n{"image":"b.png"}', 'a.png': one });
    await expect(bundle([source])).rejects.toThrow(
      /^ERR_LIBMOE_DATA: .*test\.jsonl, record 2: the image b\.png of column "image" is missing: looked in/,
    );
    const { folder: at } = await bundle([source], { missingImages: 'name' });
    expect(lines(join(at, 'test.jsonl'))).toEqual([{ image: named(one, 'png') }, { image: 'b.png' }]);
    const other = place({ 'test.jsonl': '{"image":"a.png"}\n{"image":"b.png"}', 'b.png': one });
    await expect(bundle([other])).rejects.toThrow(
      'the image b.png of column "image" is here, but those of earlier',
    );
    const elsewhere = place({ 'a.png': one, 'b.png': two });
    const rowsOnly = place({ 'test.jsonl': '{"image":"a.png"}\n{"image":"b.png"}' });
    expect((await bundle([rowsOnly], { images: elsewhere })).manifest.media.count).toBe(2);
  });

  it('in columns of base64 text become media, when it is said which columns', async () => {
    const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    const [three, four] = [png('a third picture, long enough'), png('a fourth picture, longer still')];
    const wrapped = text(four).replace(/.{20}/g, '$&\n');
    const source = place({
      'test.jsonl': [
        { picture: text(three), more: [wrapped, `data:image/png;base64,${text(three)}`], said: text(three) },
        { picture: null, more: [], said: '' },
      ]
        .map((row) => JSON.stringify(row))
        .join('\n'),
    });
    const { folder: at, manifest } = await bundle([source], { base64Images: ['picture', 'more'] });
    expect(lines(join(at, 'test.jsonl'))).toEqual([
      {
        picture: named(three, 'png'),
        more: [named(four, 'png'), named(three, 'png')],
        said: text(three),
      },
      { picture: null, more: [], said: '' },
    ]);
    expect(manifest.columns).toEqual({ picture: 'media | null', more: 'list<media>', said: 'string' });
    expect([manifest.media.count, manifest.made.base64Images]).toEqual([2, ['picture', 'more']]);
    expect(readFileSync(join(at, named(four, 'png')))).toEqual(Buffer.from(four));
    // A column of bytes without a word of what they are.
    const bytes = parquetWriteBuffer({
      columnData: [
        { name: 'picture', data: [Buffer.from(text(three)), Buffer.from(four)], type: 'BYTE_ARRAY' },
      ],
    });
    const packed = await bundle([place({ 'test.parquet': Buffer.from(bytes) })], {
      base64Images: ['picture'],
    });
    expect(lines(join(packed.folder, 'test.jsonl'))).toEqual([
      { picture: named(three, 'png') },
      { picture: named(four, 'png') },
    ]);
  });

  it('in such a column that are none are named with their record', async () => {
    const row = (picture: unknown): string => JSON.stringify({ picture });
    const good = Buffer.from(png('a third picture, long enough')).toString('base64');
    for (const [picture, got] of [
      ['a.png', '"a.png"'],
      [Buffer.from('a text that is no picture at all').toString('base64'), '"YSB0'],
      [`${good}*`, '"iVBO'],
      [7, 'a value that is no text (number)'],
    ] as const)
      await expect(
        bundle([place({ 'test.jsonl': `${row(good)}\n${row(picture)}` })], { base64Images: ['picture'] }),
      ).rejects.toThrow(
        new RegExp(
          `^ERR_LIBMOE_DATA: .*test\\.jsonl, record 2: column "picture" should hold an image as base64 text, got ${got.replace(/[()]/g, '\\$&')}`,
        ),
      );
    await expect(bundle([place({ 'test.jsonl': row(good) })], { base64Images: ['image'] })).rejects.toThrow(
      'no row has the column "image" that should hold images as base64 text; there are picture',
    );
  });

  it('of another bundle come along', async () => {
    const first = await bundle([place({ 'test.jsonl': '{"image":"a.png"}', 'a.png': one })]);
    const again = await bundle([first.folder]);
    expect(everything(join(again.folder, 'media'))).toEqual(everything(join(first.folder, 'media')));
    const torn = place({ 'test.jsonl': JSON.stringify({ image: named(one, 'png') }) });
    await expect(bundle([torn])).rejects.toThrow(/names media\/.*png, which is not beside the records/);
  });

  it('outside of the sources are never read', async () => {
    writeFileSync(join(folder, 'secret.png'), png('secret'));
    const source = place({
      'test.jsonl': JSON.stringify({ image: '../secret.png', other: join(folder, 'secret.png') }),
    });
    const { folder: at, manifest } = await bundle([source]);
    expect(manifest.media.count).toBe(0);
    expect(lines(join(at, 'test.jsonl'))).toEqual([
      { image: '../secret.png', other: join(folder, 'secret.png') },
    ]);
  });
});

describe('splits', () => {
  const row = '{"a":1}\n';
  const filesOf = async (files: Record<string, string>, splits: string[] = []) =>
    (await bundle([place(files)], { splits })).manifest.splits.map(
      ({ file, rows: count }) => `${file} ${count}`,
    );

  it('come from names', async () => {
    expect(
      await filesOf({
        'data/test-00000-of-00002.jsonl': row,
        'data/test-00001-of-00002.jsonl': row,
        'data/testmini-00000-of-00001-abc123.jsonl': row,
        'en/dev-00000-of-00001.jsonl': row,
        'fr/sub/val.json': row,
        'dataset_infos.json': '{}',
        'README.md': '# no front matter',
      }),
    ).toEqual(['en/dev.jsonl 1', 'fr-sub/validation.jsonl 1', 'test.jsonl 2', 'testmini.jsonl 1']);
    expect(
      await filesOf({ 'ARC-Easy/validation/data-00000-of-00001.jsonl': row, 'ARC-Easy/test/x.jsonl': row }),
    ).toEqual(['ARC-Easy/test.jsonl 1', 'ARC-Easy/validation.jsonl 1']);
    expect(await filesOf({ 'piqa.jsonl': row })).toEqual(['train.jsonl 1']);
    expect(await filesOf({ 'some_validation.jsonl': row, 'contest.jsonl': row })).toEqual([
      'train.jsonl 1',
      'validation.jsonl 1',
    ]);
  });

  it('come from the card of a hub data set, its licence too', async () => {
    const card = `---
license: cc-by-4.0
configs:
  - config_name: default
    data_files: [{ split: test, path: data/a-* }]
  - config_name: IMG
    data_files:
      - split: testdev
        path: ["img/*.jsonl"]
---
# text`;
    const source = place({
      'README.md': card,
      'data/a-1.jsonl': row,
      'img/x.jsonl': row,
      'img/y.jsonl': row,
      'other.jsonl': row,
    });
    const { manifest } = await bundle([source]);
    expect(manifest.splits.map(({ file }) => file)).toEqual(['IMG/testdev.jsonl', 'test.jsonl']);
    expect(manifest.license).toBe('cc-by-4.0');
  });

  it('come from patterns', async () => {
    const files = { 'data/one.jsonl': row, 'data/two.jsonl': row, 'x/two.csv': 'a\n1\n' };
    expect(await filesOf(files, ['{config}/train=data/{config}.jsonl'])).toEqual([
      'one/train.jsonl 1',
      'two/train.jsonl 1',
    ]);
    expect(await filesOf(files, ['test=**/t?o.jsonl', 'c/d=**/*.csv'])).toEqual([
      'c/d.jsonl 1',
      'test.jsonl 1',
    ]);
    await expect(filesOf(files, ['test=*.parquet'])).rejects.toThrow(
      /matches no file; there are data\/one\.jsonl/,
    );
    await expect(filesOf(files, ['test'])).rejects.toThrow('NAME=PATTERN');
    await expect(filesOf(files, ['test=**/two.*'])).rejects.toThrow(/would be made of jsonl and csv files/);
    await expect(filesOf({ 'a.txt': '' })).rejects.toThrow('hold no table');
  });
});

describe('a bundle', () => {
  it('has the same bytes every time, wherever the source lies; another one is not overwritten', async () => {
    const files = { 'b.jsonl': '{"z":1,"image":"x.png"}\n', 'train/a.jsonl': '{"z":2}\n', 'x.png': png('x') };
    const first = await bundle([place(files)]);
    const second = await bundle([place(files)]);
    expect(everything(second.folder)).toEqual(everything(first.folder));
    const out = join(folder, 'same');
    const source = place(files);
    const made = await bundle([source], { out });
    expect([made.unchanged, (await bundle([source], { out })).unchanged]).toEqual([false, true]);
    put(source, { 'b.jsonl': '{"z":3}\n' });
    await expect(bundle([source], { out })).rejects.toThrow(/^ERR_LIBMOE_BUNDLE: .*--replace replaces it/);
    expect((await bundle([source], { out, replace: true })).manifest.columns).toEqual({ z: 'integer' });
    expect(findBundle([join(folder, 'nothing'), out], 'made/up')).toBe(join(out, 'made/up/main'));
    await bundle([source], { out, revision: 'v2' });
    expect(findBundle([out], 'made/up')).toBe(join(out, 'made/up/main'));
    expect(findBundle([out], 'made/up', 'v2')).toBe(join(out, 'made/up/v2'));
    expect([findBundle([out], 'made/up', 'v3'), findBundle([out], 'no/such')]).toEqual([
      undefined,
      undefined,
    ]);
    await bundle([source], { out, id: 'other/one', revision: 'a' });
    await bundle([source], { out, id: 'other/one', revision: 'b' });
    expect(() => findBundle([out], 'other/one')).toThrow('has the revisions a, b: name one');
  });

  it('of a large source takes little memory', () => {
    const line = `${JSON.stringify({ text: 'x'.repeat(8000) })}\n`;
    const peak = (rows: number) => {
      const source = place({ 'test.jsonl': line.repeat(rows) });
      const script = `
        const { importBundle } = await import(${JSON.stringify(join(root, 'dist/data/bundles/index.js'))});
        await importBundle([${JSON.stringify(source)}], { id: 'big', out: ${JSON.stringify(`${source}-out`)} });
        console.log(process.resourceUsage().maxRSS)`;
      return Number(execFileSync(process.execPath, ['--input-type=module', '-e', script])) / 1024;
    };
    const [small, large] = [peak(100), peak(20_000)];
    expect(large - small).toBeLessThan(100); // MiB, of a source of 153
  }, 120_000);

  it('that was not finished leaves nothing', async () => {
    const out = join(folder, 'unfinished');
    const source = place({ 'test.jsonl': `{"a":1}\n{"a":2}\n{"a":` });
    await expect(bundle([source], { out })).rejects.toThrow('record 3');
    expect(readdirSync(join(out, 'made'))).toEqual(['up']);
    expect(readdirSync(join(out, 'made/up'))).toEqual([]);
    const controller = new AbortController();
    controller.abort();
    const whole = place({ 'test.jsonl': '{"a":1}\n' });
    await expect(bundle([whole], { out, signal: controller.signal })).rejects.toThrow('ERR_LIBMOE_STOPPED');
    expect(existsSync(join(out, 'made/up/main'))).toBe(false);
  });

  it('refuses ids and revisions that are no file names', async () => {
    const source = place({ 'test.jsonl': '{"a":1}\n' });
    for (const id of ['../up', 'a/b/c', '/abs', 'a/..', '', 'a b'])
      await expect(bundle([source], { id })).rejects.toThrow('ERR_LIBMOE_ARGUMENT: the id must be');
    await expect(bundle([source], { revision: '../x' })).rejects.toThrow('a revision has letters');
    await expect(bundle([source], { layout: 'constructor' })).rejects.toThrow('no layout "constructor"');
    await expect(bundle([join(folder, 'nowhere')])).rejects.toThrow('ERR_LIBMOE_FILE: there is no');
  });
});
