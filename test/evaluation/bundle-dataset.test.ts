import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, it, vi } from 'vitest';
import { importBundle } from '../../ts/data/bundles/index.ts';
import { loadDocuments } from '../../ts/evaluation/dataset.ts';
import { defineTask, evaluate, type Results, type TaskInput } from '../../ts/evaluation/index.ts';
import { FakeModel } from './fake-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'libmoe-bundle-task-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

const rows = Array.from({ length: 6 }, (_, n) => ({
  question: `Question ${n}`,
  choices: ['one', 'two'],
  answer: n % 2,
  image: `${n % 2}.png`,
}));
const source = join(folder, 'source');
mkdirSync(join(source, 'en'), { recursive: true });
const text = rows.map((row) => JSON.stringify(row)).join('\n');
writeFileSync(join(source, 'en/test.jsonl'), text);
writeFileSync(join(source, 'en/val.jsonl'), text.slice(0, text.indexOf('\n')));
for (const n of [0, 1]) writeFileSync(join(source, `en/${n}.png`), `\x89PNG ${n}`, 'latin1');
const out = join(folder, 'data');
const { folder: bundle, manifest } = await importBundle([source], { id: 'made/up', out });

const task: TaskInput = {
  task: 'from-a-bundle',
  dataset_path: 'made/up',
  dataset_name: 'en',
  test_split: 'test',
  output_type: 'multiple_choice',
  doc_to_text: '{{question}}',
  doc_to_choice: 'choices',
  doc_to_target: 'answer',
};
const load = (change: Partial<TaskInput> = {}, place: string | undefined = out) =>
  loadDocuments(defineTask({ ...task, ...change }), place);

it("a config's name may have characters that no file has", async () => {
  const { folder: again } = await importBundle([source], {
    id: 'made/odd',
    out,
    splits: ['ten (10 options)/test=en/test.jsonl'],
  });
  expect(again).toContain('odd');
  const odd = { dataset_path: 'made/odd', dataset_name: 'ten (10 options)' };
  expect((await load(odd)).rows.length).toBe(6);
  await expect(load({ ...odd, dataset_name: 'ten' })).rejects.toThrow('has no split "ten/test"');
});

it('a task finds the bundle of its hub id; images are files', async () => {
  const { rows: found, sha256 } = await load();
  const test = manifest.splits.find(({ split }) => split === 'test')!;
  expect([found.length, sha256]).toEqual([6, test.sha256]);
  expect(found.map(({ question }) => question)).toEqual(rows.map(({ question }) => question));
  expect(found[5]!.choices).toEqual(['one', 'two']);
  expect([...found].map(({ image }) => readFileSync(String(image), 'latin1'))).toEqual(
    rows.map((_, n) => `\x89PNG ${n % 2}`),
  );
  expect([found[6], found.at(-1)?.question, Array.isArray(found), found.slice(4).length]).toEqual([
    undefined,
    'Question 5',
    true,
    2,
  ]);
  expect(JSON.parse(JSON.stringify(found))).toEqual([...found]);
});

it('a task may name bundle, config and revision itself; LIBMOE_DATA is looked into too', async () => {
  const own: Partial<TaskInput> = {
    dataset_path: 'bundle',
    dataset_name: undefined,
    dataset_kwargs: { id: 'made/up', config: 'en', revision: 'main' },
    test_split: undefined,
    validation_split: 'validation',
  };
  expect((await load(own)).rows).toHaveLength(1);
  await expect(load({ ...own, dataset_kwargs: { id: 'made/up', split: 'x' } })).rejects.toThrow(
    'ERR_LIBMOE_CONFIG: task from-a-bundle: dataset_kwargs of "bundle"',
  );
  const before = process.env.LIBMOE_DATA;
  process.env.LIBMOE_DATA = out;
  try {
    expect((await load({}, join(folder, 'elsewhere'))).rows).toHaveLength(6);
  } finally {
    if (before === undefined) delete process.env.LIBMOE_DATA;
    else process.env.LIBMOE_DATA = before;
  }
});

it('says how to get what is not here', async () => {
  await expect(load({ dataset_path: 'lmms-lab/ChartQA' })).rejects.toThrow(
    /^ERR_LIBMOE_DATA: there is no bundle of lmms-lab\/ChartQA in .*data import SOURCE --id lmms-lab\/ChartQA.*data download lmms-lab\/ChartQA/,
  );
  await expect(load({ dataset_kwargs: { revision: 'v7', token: true } })).rejects.toThrow(
    'no bundle of made/up at v7',
  );
  await expect(load({ test_split: 'train' })).rejects.toThrow(
    /^ERR_LIBMOE_BUNDLE: .* has no split "en\/train": it has en\/test, en\/validation/,
  );
  await expect(load({ dataset_name: 'fr' })).rejects.toThrow('has no split "fr/test"');
  await expect(load({ test_split: undefined })).rejects.toThrow(
    'has the splits test, validation: the task must name one',
  );
  await expect(load({ dataset_path: 'nothing' })).rejects.toThrow('no data set "nothing"');
});

it('evaluation opens no connection', async () => {
  const connect = vi.spyOn(Socket.prototype, 'connect').mockImplementation(() => {
    throw new Error('a connection was opened');
  });
  const fetched = vi.spyOn(globalThis, 'fetch').mockImplementation(() => {
    throw new Error('something was fetched');
  });
  const run = evaluate(new FakeModel(), { tasks: [task], dataFolder: out });
  let results: Results | undefined;
  for (;;) {
    const step = await run.next();
    if (step.done) {
      results = step.value;
      break;
    }
  }
  expect(results.results['from-a-bundle']).toBeDefined();
  expect([connect.mock.calls.length, fetched.mock.calls.length]).toEqual([0, 0]);
  // The watch itself works.
  expect(() => new Socket().connect(1)).toThrow('a connection was opened');
});

it('refuses rows that were changed, with the name of the file', async () => {
  const file = join(bundle, 'en/test.jsonl');
  const whole = readFileSync(file, 'utf8');
  writeFileSync(file, whole.replace('Question 3', 'Question 9'));
  await expect(load()).rejects.toThrow(`ERR_LIBMOE_BUNDLE: ${file} is not the file that was imported`);
  writeFileSync(file, whole);
  expect((await load()).rows).toHaveLength(6);
});

it('the config * stands for all that have the split', async () => {
  const several = join(folder, 'several');
  for (const config of ['a', 'b', 'c']) {
    mkdirSync(join(several, config), { recursive: true });
    const split = config === 'c' ? 'train' : 'test';
    writeFileSync(join(several, config, `${split}.jsonl`), `{"n": "${config}1"}\n{"n": "${config}2"}\n`);
  }
  await importBundle([several], { id: 'made/several', out });
  const all = await load({ dataset_path: 'made/several', dataset_name: '*' });
  expect(all.rows).toEqual(['a1', 'a2', 'b1', 'b2'].map((n) => ({ n })));
  const one = await load({ dataset_path: 'made/several', dataset_name: 'a' });
  expect(one.sha256).not.toBe(all.sha256);
  await expect(load({ dataset_path: 'made/several', dataset_name: '*', test_split: 'dev' })).rejects.toThrow(
    'ERR_LIBMOE_DATA',
  );
});

it('a config of questions is joined with one of images', async () => {
  const joined = join(folder, 'joined');
  mkdirSync(join(joined, 'questions'), { recursive: true });
  mkdirSync(join(joined, 'images'), { recursive: true });
  const lines = (rows: object[]): string => rows.map((row) => JSON.stringify(row)).join('\n');
  const question = (imageId: string) => ({ question: `What is ${imageId}?`, imageId });
  writeFileSync(join(joined, 'questions/test.jsonl'), lines(['b', 'a', 'b', 'c'].map(question)));
  const pictures = ['a', 'b'].map((id) => ({ id, image: `${id}.png` }));
  writeFileSync(join(joined, 'images/test.jsonl'), lines(pictures));
  for (const { image } of pictures)
    writeFileSync(join(joined, 'images', image), `\x89PNG ${image}`, 'latin1');
  await importBundle([joined], { id: 'made/joined', out });
  const { rows: found } = await load({
    dataset_path: 'made/joined',
    dataset_name: 'questions',
    dataset_kwargs: { join: { config: 'images', on: 'imageId', key: 'id', columns: ['image'] } },
  });
  expect(found.slice(0, 3).map(({ image }) => readFileSync(String(image), 'latin1'))).toEqual(
    ['b', 'a', 'b'].map((id) => `\x89PNG ${id}.png`),
  );
  expect(() => found[3]).toThrow(/made\/joined, row 3: config images has no row with id "c"/);
});

it('a task of videos is listed and refused', async () => {
  const video = { ...task, requires: ['video' as const] };
  const run = evaluate(new FakeModel(), { tasks: [video], dataFolder: out });
  await expect(run.next()).rejects.toThrow(/from-a-bundle asks about videos.*ffmpeg/);
});
