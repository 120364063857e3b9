import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  defineTask,
  readTaskFile,
  registerTask,
  resolveTask,
  type TaskInput,
  taskNames,
} from '../../ts/evaluation/index.ts';
import { readTaskOrGroup, taskFolder, taskPaths } from '../../ts/evaluation/task-files.ts';

const choice: TaskInput = {
  task: 'toy',
  documents: [{ q: 'a', c: ['x', 'y'], g: 0 }],
  output_type: 'multiple_choice',
  doc_to_text: 'q',
  doc_to_choice: 'c',
  doc_to_target: 'g',
};

describe('a task is data', () => {
  it('gets its defaults', () => {
    const task = defineTask(choice);
    expect(task.target_delimiter).toBe(' ');
    expect(task.pair).toEqual({ mode: 'joint', bos: 'auto', score: 'continuation' });
  });
  it.each<[Record<string, unknown>, string]>([
    [{ ...choice, doc_to_txt: 'q' }, 'unknown key "doc_to_txt", did you mean "doc_to_text"?'],
    [{ ...choice, pair: { mod: 'joint' } }, 'unknown key "pair.mod", did you mean "mode"?'],
    [{ ...choice, output_type: 'guess' }, 'output_type'],
    [{ ...choice, num_fewshot: -1 }, 'num_fewshot'],
    [{ ...choice, doc_to_choice: undefined }, 'needs doc_to_choice'],
    [{ ...choice, documents: undefined }, 'has no data'],
    [{ ...choice, dataset_path: 'json' }, 'both documents and dataset_path'],
    [{ ...choice, task: 'a b' }, 'task name'],
  ])('refuses %#', (input, message) => {
    expect(() => defineTask(input)).toThrow('ERR_LIBMOE_CONFIG');
    expect(() => defineTask(input)).toThrow(message);
  });
  it('registers, lists, finds and overrides', () => {
    registerTask({ ...choice, task: 'registered-toy' });
    expect(taskNames()).toContain('registered-toy');
    expect(resolveTask('registered-toy').doc_to_text).toBe('q');
    expect(resolveTask({ task: 'registered-toy', target_delimiter: '' }).target_delimiter).toBe('');
    expect(resolveTask({ task: 'registered-toy', target_delimiter: '' }).doc_to_choice).toBe('c');
    expect(() => resolveTask('registered-to')).toThrow('did you mean "registered-toy"?');
  });
});

describe('the tasks of the package', () => {
  it('are all valid and named as their files', () => {
    const names = taskNames().filter((name) => name !== 'registered-toy');
    expect(names).toEqual(
      expect.arrayContaining([
        'arc_easy',
        'blimp',
        'held-out-text',
        'lm.blimp',
        'lm.piqa',
        'multiple-choice',
        'piqa',
        'word-order',
      ]),
    );
    expect(names.filter((name) => name.startsWith('_'))).toEqual([]);
    for (const name of names) {
      const found = readTaskOrGroup(taskPaths(taskFolder).get(name)!);
      expect('output_type' in found ? found.task : found.group).toBe(name);
    }
  });
  it('take data files by override', () => {
    const task = resolveTask({
      task: 'lm.piqa',
      dataset_path: 'json',
      dataset_kwargs: { data_files: '/else/where.jsonl' },
    });
    expect(task.dataset_kwargs).toEqual({ data_files: '/else/where.jsonl' });
    expect(task.pair.mode).toBe('separate');
  });
});

describe('include', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'libmoe-tasks-'));
    const write = (name: string, text: string): void => writeFileSync(join(folder, name), text);
    write(
      '_base.yaml',
      'dataset_path: json\noutput_type: loglikelihood\ndescription: base\ndataset_kwargs: {data_files: a.jsonl}\n',
    );
    write('_other.yaml', 'description: other\ntarget_delimiter: ""\n');
    write('own.yaml', 'include: [_base.yaml, _other.yaml]\ndoc_to_target: text\npair: {bos: never}\n');
    write('circle.yaml', 'include: circle.yaml\n');
    write('list.yaml', '- 1\n');
    write('bad.yaml', 'a: [1\n');
    write('lost.yaml', 'include: nowhere.yaml\n');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('merges bases, the last listed first, own keys last; the file names the task', () => {
    const task = readTaskFile(join(folder, 'own.yaml'));
    expect(task).toMatchObject({
      task: 'own',
      description: 'base',
      target_delimiter: '',
      doc_to_target: 'text',
      folder,
    });
    expect(task.pair.bos).toBe('never');
  });
  it.each([
    ['circle.yaml', 'ERR_LIBMOE_CONFIG', 'includes itself'],
    ['list.yaml', 'ERR_LIBMOE_CONFIG', 'map of keys'],
    ['bad.yaml', 'ERR_LIBMOE_CONFIG', 'not valid YAML'],
    ['lost.yaml', 'ERR_LIBMOE_FILE', 'nowhere.yaml'],
  ])('refuses %s', (file, code, message) => {
    expect(() => readTaskFile(join(folder, file))).toThrow(code);
    expect(() => readTaskFile(join(folder, file))).toThrow(message);
  });
});
