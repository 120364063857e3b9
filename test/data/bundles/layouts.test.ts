import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import {
  importBundle,
  openBundle,
  verifyBundle,
  writeConversations,
} from '../../../ts/data/bundles/index.ts';
import { openConversations } from '../../../ts/data/index.ts';
import { developmentData } from '../../development-data.ts';
import { lines, png, put, testFolder, zip } from './sources.ts';

const folder = testFolder();
let made = 0;
const imported = async (layout: string, source: string, options: object = {}) =>
  importBundle([source], { id: 'made/up', out: join(folder, `out-${++made}`), layout, ...options });
const place = (files: Record<string, string | Uint8Array>) => put(join(folder, `in-${++made}`), files);
const rowsOf = ({ folder: at }: { folder: string }, split: string, config?: string) => {
  return [...openBundle(at).rows(split, config)].map((row) =>
    row.image === undefined ? row : { ...row, image: readFileSync(String(row.image), 'latin1').slice(8) },
  );
};

describe('easy-VQA', () => {
  const questions = [
    ['what shape?', 'circle', 7],
    ['is it red?', 'no', 7],
    ['what colour?', 'red', 2],
  ];
  const files = {
    'answers.txt': 'red\nno\ncircle\nyes\n',
    'train/questions.json': JSON.stringify(questions),
    'train/images/7.png': png('seven'),
    'train/images/2.png': png('two'),
    'test/questions.json': JSON.stringify([['is it red?', 'yes', 1]]),
    'test/images/1.png': png('one'),
  };
  const choices = ['red', 'no', 'circle', 'yes'];

  it('comes as rows with choices and kinds, from the folder or its archive alike', async () => {
    const plain = await imported('easy-vqa', place(files));
    expect(rowsOf(plain, 'train')).toEqual([
      { question: 'what shape?', answer: 'circle', image: 'seven', image_id: 7, choices, kind: 'shape' },
      { question: 'is it red?', answer: 'no', image: 'seven', image_id: 7, choices, kind: 'yes/no' },
      { question: 'what colour?', answer: 'red', image: 'two', image_id: 2, choices, kind: 'colour' },
    ]);
    expect(rowsOf(plain, 'test')).toHaveLength(1);
    const packed = await imported('easy-vqa', join(place({ 'easy.zip': zip(files) }), 'easy.zip'));
    expect(packed.manifest.splits).toEqual(plain.manifest.splits);
  });

  it('comes as one conversation per image for training', async () => {
    const { folder: at } = await imported('easy-vqa', place(files));
    const file = join(folder, 'conversations.json');
    expect(writeConversations(openBundle(at), file)).toEqual({ conversations: 2, questions: 3 });
    const text = readFileSync(file, 'utf8');
    const turn = (from: string, value: string) => ({ from, value });
    expect(JSON.parse(text)).toMatchObject([
      {
        id: 'train-0',
        conversations: [
          turn('human', '<image>\nwhat shape?'),
          turn('gpt', 'circle'),
          turn('human', 'is it red?'),
          turn('gpt', 'no'),
        ],
      },
      { id: 'train-1', conversations: [turn('human', '<image>\nwhat colour?'), turn('gpt', 'red')] },
    ]);
    writeConversations(openBundle(at), file);
    expect(readFileSync(file, 'utf8')).toBe(text);
    const read = await openConversations(file);
    expect(read.length).toBe(2);
    expect(writeConversations(openBundle(at), file, { turns: 1 })).toEqual({
      conversations: 3,
      questions: 3,
    });
    expect((JSON.parse(readFileSync(file, 'utf8')) as { id: string }[]).map((each) => each.id)).toEqual([
      'train-0-0',
      'train-0-1',
      'train-1-0',
    ]);
    expect(JSON.parse(readFileSync(file, 'utf8'))[1].conversations).toEqual([
      turn('human', '<image>\nis it red?'),
      turn('gpt', 'no'),
    ]);
    const chosen = { where: { kind: ['shape', 'colour'] } };
    expect(writeConversations(openBundle(at), file, { ...chosen, captions: true })).toEqual({
      conversations: 2,
      questions: 2,
    });
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject([
      { id: 'train-0', conversations: [turn('human', '<image>'), turn('gpt', 'circle')] },
      { id: 'train-1', conversations: [turn('human', '<image>'), turn('gpt', 'red')] },
    ]);
    writeConversations(openBundle(at), file, { captions: true });
    expect(readFileSync(file, 'utf8')).toContain('"circle no"');
    expect(() => writeConversations(openBundle(at), file, { where: { kind: ['x'] } })).toThrow(
      'none of the 3 rows',
    );
    expect(() => writeConversations(openBundle(at), file, { where: { kin: ['x'] } })).toThrow(
      'train.jsonl, row 1 has no column "kin"; it has question, answer',
    );
    expect(() => writeConversations(openBundle(at), file, { turns: 0 })).toThrow(
      'ERR_LIBMOE_ARGUMENT: turns must be',
    );
    expect(() => writeConversations(openBundle(at), file, { answer: 'image_id' })).toThrow(
      'train.jsonl, row 1: expected a text in "image_id", got 7',
    );
  });

  it('names what is wrong', async () => {
    const wrong: [object, RegExp][] = [
      [
        { 'train/questions.json': '[["q","blue",7]]' },
        /question 1: the answer "blue" is not in answers\.txt/,
      ],
      [{ 'train/questions.json': '[["q","red"]]' }, /question 1 must be \[question, answer, image number\]/],
      [
        { 'train/questions.json': '[["q","red",99]]' },
        /question 1: the image 99\.png of column "image" is missing/,
      ],
      [{ 'train/questions.json': '{}' }, /must hold a list/],
    ];
    for (const [change, message] of wrong)
      await expect(imported('easy-vqa', place({ ...files, ...change }))).rejects.toThrow(message);
    await expect(imported('easy-vqa', place({ 'a.txt': '' }))).rejects.toThrow('easy-VQA has answers.txt');
  });
});

describe('MME', () => {
  const row = (category: string, name: string, question: string, answer: string, image: string) => ({
    question_id: `${category}/${name}`,
    image,
    question,
    answer,
    category,
  });
  const both = [
    row('color', 'a.jpg', 'Is it red? Please answer yes or no.', 'Yes', 'A'),
    row('color', 'a.jpg', 'Is it blue? Please answer yes or no.', 'No', 'A'),
    row('posters', 'b.png', 'Is it a film? Please answer yes or no.', 'No', 'B'),
  ];

  it('comes from a file per category, answers of a model beside them or not', async () => {
    const source = place({
      'color.txt': `a.jpg\t${both[0]!.question}\tYes\na.jpg\t${both[1]!.question}\tNo\tYes\r\n`,
      'posters.txt': `b.png\t${both[2]!.question}\tNo\n`,
      'color/a.jpg': png('A'),
      'posters/images/b.png': png('B'),
    });
    expect(rowsOf(await imported('mme', source), 'test')).toEqual(both);
  });

  it('comes from a file per image', async () => {
    const source = place({
      'MME_Benchmark/color/a.jpg': png('A'),
      'MME_Benchmark/color/a.txt': `${both[0]!.question}\tYes\n${both[1]!.question}\tNo\n`,
      'MME_Benchmark/posters/images/b.png': png('B'),
      'MME_Benchmark/posters/questions_answers_YN/b.txt': `${both[2]!.question}\tNo`,
    });
    expect(rowsOf(await imported('mme', source), 'test')).toEqual(both);
  });

  it('names what is wrong', async () => {
    await expect(imported('mme', place({ 'color.txt': 'a.jpg\tq\tMaybe' }))).rejects.toThrow(
      /color\.txt:1: the answer must be Yes or No, got "Maybe"/,
    );
    await expect(imported('mme', place({ 'color.txt': 'a.jpg\tq\tYes' }))).rejects.toThrow(
      /color\.txt:1: its image is missing/,
    );
    await expect(imported('mme', place({ 'color.txt': 'nothing' }))).rejects.toThrow(
      /color\.txt:1 must have/,
    );
  });
});

it('POPE comes as all of it and by category', async () => {
  const line = (id: number, label: string) =>
    JSON.stringify({
      question_id: id,
      image: 'COCO_val2014_000000000001.jpg',
      text: 'Is there a cat?',
      label,
    });
  const source = place({
    'coco/coco_pope_random.json': `${line(1, 'yes')}\n${line(2, 'no')}\n`,
    'coco/coco_pope_adversarial.json': `${line(1, 'no')}\n`,
    'val2014/COCO_val2014_000000000001.jpg': png('cat'),
  });
  const bundle = await imported('pope', source);
  expect(bundle.manifest.splits.map(({ file, rows }) => `${file} ${rows}`)).toEqual([
    'test.jsonl 3',
    'Full/adversarial.jsonl 1',
    'Full/random.jsonl 2',
  ]);
  const row = (id: string, question_id: string, answer: string, category: string) => ({
    id,
    question_id,
    question: 'Is there a cat?',
    answer,
    image_source: 'COCO_val2014_000000000001',
    image: 'cat',
    category,
  });
  expect(rowsOf(bundle, 'test')).toEqual([
    row('0', '1', 'no', 'adversarial'),
    row('1', '1', 'yes', 'random'),
    row('2', '2', 'no', 'random'),
  ]);
  expect(rowsOf(bundle, 'random', 'Full')).toHaveLength(2);
});

it('GQA comes with its images joined to the questions', async () => {
  const images = (names: string[]) =>
    Buffer.from(
      parquetWriteBuffer({
        schema: [
          { name: 'root', num_children: 2 },
          { name: 'id', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'REQUIRED' },
          { name: 'image', num_children: 2, repetition_type: 'OPTIONAL' },
          { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
          { name: 'path', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
        ],
        columnData: [
          { name: 'id', data: names },
          { name: 'image', data: names.map((name) => ({ bytes: png(name), path: null })) },
        ],
      }),
    );
  const question = (id: string, imageId: string) =>
    `${JSON.stringify({ id, imageId, question: 'q', answer: 'a' })}\n`;
  const files = {
    'testdev_balanced_images/testdev-00000-of-00001.parquet': images(['n1', 'n2', 'n3']),
    'testdev_balanced_instructions/testdev-00000-of-00001.jsonl':
      question('1', 'n2') + question('2', 'n1') + question('3', 'n2'),
  };
  const bundle = await imported('gqa', place(files));
  expect(bundle.manifest.splits.map(({ file, rows, media }) => [file, rows, media])).toEqual([
    ['testdev_balanced_instructions/testdev.jsonl', 3, 2],
  ]);
  expect(rowsOf(bundle, 'testdev').map(({ id, image }) => `${id} ${image}`)).toEqual([
    '1 n2',
    '2 n1',
    '3 n2',
  ]);
  await verifyBundle(bundle.folder);
  await expect(
    imported(
      'gqa',
      place({ ...files, 'testdev_balanced_instructions/testdev-00000-of-00001.jsonl': question('1', 'n9') }),
    ),
  ).rejects.toThrow(/there is no image "n9" in testdev_balanced_images/);
});

it('MMLU comes by subject and as all of it', async () => {
  const source = place({
    'dev/anatomy_dev.csv': 'q0,a,b,c,d,A\n',
    'test/anatomy_test.csv': '"the ""first"" of\ntwo",1,2,"3,5",None,C\nWhat is "x"?,a,b,c,d,D\n',
    'test/virology_test.csv': 'v,,b,c,d,B\n',
  });
  const bundle = await imported('mmlu', source);
  expect(bundle.manifest.splits.map(({ file, rows }) => `${file} ${rows}`)).toEqual([
    'all/dev.jsonl 1',
    'anatomy/dev.jsonl 1',
    'all/test.jsonl 3',
    'anatomy/test.jsonl 2',
    'virology/test.jsonl 1',
  ]);
  expect(rowsOf(bundle, 'test', 'all')).toEqual([
    { question: 'the "first" of\ntwo', subject: 'anatomy', choices: ['1', '2', '3,5', 'None'], answer: 2 },
    { question: 'What is "x"?', subject: 'anatomy', choices: ['a', 'b', 'c', 'd'], answer: 3 },
    { question: 'v', subject: 'virology', choices: ['', 'b', 'c', 'd'], answer: 1 },
  ]);
  await expect(imported('mmlu', place({ 'test/x_test.csv': 'q,a,b,c,d,E\n' }))).rejects.toThrow(
    /x_test\.csv:1: the answer must be A, B, C or D, got "E"/,
  );
  await expect(imported('mmlu', place({ 'test/x_test.csv': 'q,a,b,c,d,A\nq,a,b\n' }))).rejects.toThrow(
    /is no table: Invalid Record Length: .* on line 2/,
  );
});

describe('the real files', () => {
  const data = developmentData('lm_eval/hf_arrow');
  it.skipIf(!data)(
    'of easy-VQA, MMLU, POPE and six Arrow files',
    async () => {
      const from = (name: string) => join(data!, name);
      const easy = await imported('easy-vqa', from('vlm_train/easy_vqa/easy_vqa_data.zip'));
      expect(easy.manifest.splits.map(({ file, rows, media }) => [file, rows, media])).toEqual([
        ['test.jsonl', 9673, 1000],
        ['train.jsonl', 38575, 4000],
      ]);
      await verifyBundle(easy.folder);
      const mmlu = await imported('mmlu', from('lm_eval/mmlu/mmlu_dev_val_test.zip'));
      expect(
        mmlu.manifest.splits.filter(({ config }) => config === 'all').map(({ split, rows }) => [split, rows]),
      ).toEqual([
        ['dev', 285],
        ['validation', 1531],
        ['test', 14042],
      ]);
      const pope = await imported('pope', from('vlm_eval/pope/coco'), { missingImages: 'name' });
      expect(pope.manifest.splits.map(({ rows }) => rows)).toEqual([8910, 3000, 3000, 2910]);
      const counts: Record<string, number> = {
        'ai2_arc_ARC-Easy': 570,
        openbookqa_main: 500,
        piqa_plain_text: 1838,
        social_i_qa_none: 1954,
        tau_commonsense_qa_none: 1221,
        winogrande_winogrande_xl: 1267,
      };
      for (const [name, count] of Object.entries(counts)) {
        const { manifest, folder: at } = await imported(
          'files',
          from(`lm_eval/hf_arrow/${name}_validation.arrow`),
        );
        expect(manifest.splits.map(({ file, rows }) => [file, rows])).toEqual([['validation.jsonl', count]]);
        if (name.startsWith('tau'))
          expect(lines(join(at, 'validation.jsonl'))[0]).toMatchObject({
            choices: { label: ['A', 'B', 'C', 'D', 'E'] },
          });
      }
    },
    240_000,
  );
});
