import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { processRows } from '../../ts/evaluation/document-steps.ts';
import {
  defineTask,
  evaluate,
  type Results,
  scoreRecords,
  type TaskInput,
} from '../../ts/evaluation/index.ts';
import { RequestImages } from '../../ts/evaluation/request-images.ts';
import { FakeModel } from './fake-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'libmoe-image-steps-'));
afterAll(() => rmSync(folder, { recursive: true }));
const png = (text: string): Buffer => Buffer.from(`\x89PNG\r\n\x1a\n${text}, and enough of it`, 'latin1');
writeFileSync(join(folder, 'a.png'), png('one'));
writeFileSync(join(folder, 'b.png'), png('two'));

class Seeing extends FakeModel {
  readonly imagePlaceholder = '<image>';
}
const task: TaskInput = {
  task: 'drawn',
  documents: [
    { image: 'a.png', box: [1, 2, 3, 4] },
    { image: 'a.png', box: [1, 2, 3, 5] },
  ],
  output_type: 'generate_until',
  doc_to_visual: 'image',
  doc_to_text: 'What is there?',
  process_docs: { function: 'draw_box', box: 'box', colour: '#ff0000' },
  folder,
};
async function finish(model: FakeModel, change: Partial<TaskInput>, out?: string): Promise<Results> {
  const steps = evaluate(model, { tasks: [defineTask({ ...task, ...change })], ...(out && { out }) });
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}
const blocks = (process_docs: unknown) => defineTask({ ...task, process_docs } as TaskInput).process_docs;

describe('steps that say how an image is made', () => {
  it('put a recipe in place of the image', () => {
    const row = { image: 'a.png', bbox: [1, 2, 3, 4], segmentation: [1, 2, 3, 4, 5, 6.5] };
    const step = (block: object) => processRows([row], blocks(block), 'drawn')[0]!.image;
    expect(step({ function: 'draw_box', colour: '#ff0000' })).toEqual({
      make: 'box',
      files: ['a.png'],
      box: [1, 2, 3, 4],
      colour: '#ff0000',
      width: 1,
    });
    expect(step({ function: 'draw_box', form: 'size', colour: '#00ff00', width: 3 })).toEqual({
      make: 'box',
      files: ['a.png'],
      box: [1, 2, 4, 6],
      colour: '#00ff00',
      width: 3,
    });
    expect(step({ function: 'draw_polygon', colour: '#ffffff' })).toEqual({
      make: 'polygon',
      files: ['a.png'],
      points: [1, 2, 3, 4, 5, 6.5],
      colour: '#ffffff',
    });
    const group = {
      function: 'group_images',
      images: "{{[image, doc.get('other')]}}",
      into: 'all',
      size: 100,
    };
    expect(processRows([row, { image: null }], blocks(group), 'drawn').map(({ all }) => all)).toEqual([
      { make: 'group', files: ['a.png'], size: 100 },
      null,
    ]);
  });

  it('are left out where predictions are scored, which need no images', async () => {
    const doc = { answer: '42', question_type: 'open', options: '[]', id: 'validation_Math_3' };
    const scores = await scoreRecords('mmmu_val_group_img', [{ doc, response: 'It is 42.' }]);
    expect(scores.numbers.mmmu_acc!.value).toBe(1);
    const choice = {
      type: '选择',
      option1: '猫',
      option2: '狗',
      option3: '鱼',
      option4: '鸟',
      answer: 'A',
      subcategory: '生物',
    };
    const { numbers } = await scoreRecords('cmmmu_val', [{ doc: choice, response: 'A' }]);
    expect([numbers.cmmmu_acc!.value, numbers['cmmmu_acc/subcategory/科学']!.value]).toEqual([1, 1]);
  });

  it('name row and column where they cannot', () => {
    const attempt = (row: object, block: object) => () =>
      processRows([{ image: 'a.png', bbox: [1, 2, 3, 4] }, row as never], blocks(block), 'drawn');
    const box = { function: 'draw_box', colour: '#ff0000' };
    expect(attempt({ image: 'a.png', bbox: [1, 2, 3] }, box)).toThrow(
      /^ERR_LIBMOE_DATA: process_docs, row 1: the column "bbox" must hold four numbers, got \[1,2,3\]; the row has image, bbox/,
    );
    expect(attempt({ image: 'a.png' }, box)).toThrow(
      'row 1: the column "bbox" must hold four numbers, got nothing',
    );
    expect(attempt({ bbox: [1, 2, 3, 4] }, box)).toThrow(
      'row 1: the column "image" must name an image file, got nothing',
    );
    expect(attempt({ image: 7, bbox: [] }, box)).toThrow(
      'row 1: the column "image" must name an image file, got 7',
    );
    expect(attempt({ image: 'b', bbox: [1, Number.NaN, 2, 3] }, box)).toThrow('must hold four numbers');
    expect(() =>
      processRows(
        [{ image: 'a', segmentation: [1, 2, 3] }],
        blocks({ function: 'draw_polygon', colour: '#ffffff' }),
        'drawn',
      ),
    ).toThrow('pairs of numbers');
    expect(() => blocks({ ...box, colour: 'red' })).toThrow('a colour is written "#rrggbb"');
    expect(() => blocks({ ...box, thickness: 2 })).toThrow('unknown key "thickness"');
    const many = { function: 'group_images', images: '{{images}}', into: 'all', size: 100 };
    expect(() => processRows([{ images: Array(10).fill('a.png') }], blocks(many), 'drawn')).toThrow(
      'at most nine image files',
    );
  });
});

describe('what stands for an image in the journal', () => {
  const images = new RequestImages();
  const of = async (...references: Parameters<RequestImages['of']>[1]) =>
    (await images.of(defineTask(task), references)).map(({ sha256 }) => sha256);

  it('is its files and what is done with them', async () => {
    const box = { make: 'box', files: ['a.png'], box: [1, 2, 3, 4], colour: '#ff0000', width: 1 } as const;
    const ids = await of(
      'a.png',
      box,
      { ...box, width: 2 },
      { ...box, box: [1, 2, 3, 4.5] },
      { ...box, files: ['b.png'] },
      { make: 'group', files: ['a.png', 'b.png'], size: 100 },
      { make: 'group', files: ['b.png', 'a.png'], size: 100 },
    );
    expect(new Set(ids).size).toBe(7);
    expect(await of({ ...box })).toEqual([ids[1]]);
    // Where the file lies does not matter.
    expect(await of({ ...box, files: [join(folder, 'a.png')] })).toEqual([ids[1]]);
    await expect(of({ ...box, files: ['c.png'] })).rejects.toThrow('there is no image c.png');
  });

  it('so another box asks again, and the same one does not', async () => {
    const out = join(folder, 'out');
    const asked = async (change: Partial<TaskInput>): Promise<number> => {
      const model = new Seeing();
      await finish(model, change, out);
      return model.prompts.length;
    };
    expect(await asked({})).toBe(2);
    expect(await asked({})).toBe(0);
    expect(
      await asked({ process_docs: { function: 'draw_box', box: 'box', colour: '#00ff00' } as never }),
    ).toBe(2);
    const model = new Seeing();
    await finish(model, {});
    expect(model.prompts.map(({ images }) => images![0]!.recipe)).toEqual([
      expect.objectContaining({ files: [join(folder, 'a.png')], box: [1, 2, 3, 5] }),
      expect.objectContaining({ files: [join(folder, 'a.png')], box: [1, 2, 3, 4] }),
    ]);
  });
});

describe('images as base64 text', () => {
  const rows = (lines: readonly object[]): void =>
    writeFileSync(join(folder, 'rows.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'));
  const text = png('one').toString('base64');
  const plain: Partial<TaskInput> = {
    dataset_path: 'json',
    dataset_kwargs: { data_files: 'rows.jsonl', base64_images: ['image'] },
    documents: undefined,
    process_docs: undefined,
  };

  it('in plain json are shown when the column is named', async () => {
    rows([
      { image: text },
      { image: `data:image/png;base64,${text}` },
      { image: [text, png('two').toString('base64')] },
    ]);
    const model = new Seeing();
    await finish(model, plain);
    // The first two are the same picture and the same question: asked once.
    expect(model.prompts).toHaveLength(2);
    const [both, one] = model.prompts.map(({ images }) => images!);
    const known = await new RequestImages().of(defineTask(task), ['a.png', 'b.png']);
    expect(one!.map(({ sha256 }) => sha256)).toEqual([known[0]!.sha256]);
    expect(both!.map(({ sha256 }) => sha256)).toEqual(known.map(({ sha256 }) => sha256));
  });

  it('that are none name file, record and column', async () => {
    rows([{ image: text }, { image: 'a.png' }]);
    await expect(finish(new Seeing(), plain)).rejects.toThrow(
      /ERR_LIBMOE_DATA: .*rows\.jsonl, record 2: column "image" should hold an image as base64 text/,
    );
    rows([{ image: text }, { picture: text }]);
    await expect(
      finish(new Seeing(), { ...plain, dataset_kwargs: { data_files: 'rows.jsonl' } }),
    ).rejects.toThrow(
      /task drawn, document 0: .*base64 text: import the data set with --base64-images COLUMN/,
    );
  });
});
