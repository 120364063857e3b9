import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chooseTasks, evaluate, listTasks, printTable, type Results } from '../../ts/evaluation/index.ts';
import { readTaskOrGroup } from '../../ts/evaluation/task-files.ts';
import { FakeModel } from './fake-model.ts';

let folder = '';
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-groups-'));
  const write = (name: string, text: string): void => writeFileSync(at(`${name}.yaml`), text);
  const rows = (count: number): string =>
    Array.from({ length: count }, (_, i) => `  - { q: Q${i}, c: [yes it is, no], g: ${i % 2} }`).join('\n');
  const task = (count: number, more = ''): string =>
    `${more}output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: g\nmetric_list: [{ metric: acc }, { metric: acc_norm }]\ndocuments:\n${rows(count)}\n`;
  write('toy.one', task(4, 'tag: toys\n'));
  write('toy.two', task(9, 'tag: [toys, big]\n'));
  write('old.a', task(3, 'group: old\n'));
  write('old.b', task(7, 'group: [old, other]\n'));
  write(
    'toys-all',
    'group: toys-all\ngroup_alias: all toys\ntask: [toy.one, toy.two]\naggregate_metric_list:\n  - { metric: acc, weight_by_size: true }\n  - { metric: acc_norm, weight_by_size: false }\nmetadata: { version: 3 }\n',
  );
  write(
    'nested',
    'group: nested\ntask:\n  - toys-all\n  - group: inner\n    task: [old.a]\n    aggregate_metric_list: { metric: acc }\n  - task: old.b\n    task_alias: renamed\naggregate_metric_list: { metric: acc }\n',
  );
  write(
    'within',
    'group: within\ntask:\n  - group: inner\n    task: [toy.one]\n    agregate_metric_list: []\n',
  );
  write('odd', 'group: odd\ntask: [toy.one]\naggregate_metric_list: [{ metric: f1 }]\n');
  write('lost', 'group: lost\ntask: [toy.tow]\n');
  write('wrong', 'group: wrong\ntask: [toy.one]\nagregate_metric_list: []\n');
});
afterAll(() => rmSync(folder, { recursive: true }));

const names = (...choices: string[]): string[] => chooseTasks(choices, folder).tasks.map(({ task }) => task);
async function finish(tasks: string[]): Promise<Results> {
  const run = evaluate(new FakeModel(), { tasks, bootstrapResamples: 100 });
  for (;;) {
    const step = await run.next();
    if (step.done) return step.value;
  }
}

describe('tasks are chosen', () => {
  it('by name, group, tag, wildcard and path, each once', () => {
    expect(names('toy.one')).toEqual(['toy.one']);
    expect(names('toys')).toEqual(['toy.one', 'toy.two']);
    expect(names('toy.*')).toEqual(['toy.one', 'toy.two']);
    expect(names('*.[ab]')).toEqual(['old.a', 'old.b']);
    expect(names('old')).toEqual(['old.a', 'old.b']);
    expect(names('big', 'toys-all', 't?y.one')).toEqual(['toy.two', 'toy.one']);
    expect(names(at('toys-all.yaml'), 'old.a')).toEqual(['toy.one', 'toy.two', 'old.a']);
    expect(names('nested')).toEqual(['toy.one', 'toy.two', 'old.a', 'old.b']);
  });

  it.each<[string, string[], string]>([
    ['an unknown name', ['toy.on'], 'did you mean "toy.one"'],
    ['an unknown tag', ['toyz'], 'did you mean "toys"'],
    ['a wildcard that is none', ['toy.[z-a]*'], 'ERR_LIBMOE_CONFIG: "toy.[z-a]*" is no wildcard'],
    ['a misspelt key of a group within', ['within'], 'group inner: unknown key "agregate_metric_list"'],
    ['a wildcard for nothing', ['x*'], 'no task fits "x*"'],
    ['a task named twice', ['toy.one', 'toy.one'], 'listed twice'],
    ['a member that is lost', ['lost'], 'no task "toy.tow", did you mean "toy.two"'],
    ['a misspelt key of a group', ['wrong'], 'did you mean "aggregate_metric_list"'],
    ['a task meant in two ways', ['old.b', 'nested'], 'meant in two ways'],
  ])('refuses %s', (_, choices, message) => {
    // The files that are wrong stand in the way of nobody else.
    expect(() => names(...choices)).toThrow(message);
  });

  it('lists what there is', () => {
    const known = listTasks(folder).filter(({ name }) => name === 'toy.two' || name === 'nested');
    expect(known).toEqual([
      { name: 'nested', kind: 'group', data: '3 members', tags: [] },
      { name: 'toy.two', kind: 'multiple_choice', data: 'inline', tags: ['toys', 'big'] },
    ]);
  });
});

describe('a group', () => {
  it('has the mean of its tasks, of documents or of tasks', async () => {
    const results = await finish([at('toys-all.yaml')]);
    const { 'toy.one': one, 'toy.two': two } = results.results;
    const row = results.groups!['toys-all']!;
    const [a, b] = [one!['acc,none'] as number, two!['acc,none'] as number];
    expect(row['acc,none']).toBeCloseTo((4 * a + 9 * b) / 13, 12);
    expect(row['acc_norm,none']).toBeCloseTo(
      ((one!['acc_norm,none'] as number) + (two!['acc_norm,none'] as number)) / 2,
      12,
    );
    const [x, y] = [one!['acc_stderr,none'] as number, two!['acc_stderr,none'] as number];
    expect(row['acc_stderr,none']).toBeCloseTo(Math.sqrt((3 * 4 * x * x + 8 * 9 * y * y) / 11 / 13), 12);
    expect(results.group_subtasks['toys-all']).toEqual(['toy.one', 'toy.two']);
    expect(results.versions['toys-all']).toBe(3);
    expect(row).toMatchObject({ alias: 'all toys', sample_len: 13 });
    expect(printTable(results)).toMatch(/\|Groups +\|Version[\s\S]*\|all toys *\| *3\|none +\|/);
  });

  it('holds groups, and keys of its own for a task', async () => {
    const results = await finish([at('nested.yaml')]);
    expect(Object.keys(results.groups!)).toEqual(['toys-all', 'inner', 'nested']);
    expect(results.groups!.nested!.sample_len).toBe(23);
    expect(results.groups!.inner).toMatchObject({ alias: 'inner', sample_len: 3 });
    expect(results.groups!.inner!['acc,none']).toBe(results.results['old.a']!['acc,none']);
    expect(results.libmoe.groups![0]!.members[1]).toMatchObject({
      aggregates: [{ metric: 'acc', aggregation: 'mean', weight_by_size: true }],
    });
    expect(results.results['old.b']?.alias).toBe('renamed');
  });

  it('needs a metric that all of its tasks have', async () => {
    await expect(finish([at('odd.yaml')])).rejects.toThrow('not all of its tasks have the metric "f1"');
  });
});

describe('an error in a task file', () => {
  it('names file, line and key', () => {
    writeFileSync(at('_base.yaml'), 'output_type: multiple_choice\ndoc_to_choice: c\npair:\n  mod: joint\n');
    writeFileSync(at('bad.yaml'), '# a comment\ninclude: _base.yaml\ndocuments: [{}]\ndoc_to_target: g\n');
    expect(() => readTaskOrGroup(at('bad.yaml'))).toThrow(
      `${at('_base.yaml')}:4: task bad: unknown key "pair.mod", did you mean "mode"?`,
    );
    writeFileSync(
      at('bad.yaml'),
      'output_type: generate_until\ndocuments: [{}]\ngeneration_kwargs:\n  until: []\n  max_new_tokens: many\n',
    );
    expect(() => readTaskOrGroup(at('bad.yaml'))).toThrow(
      `${at('bad.yaml')}:5: task bad: generation_kwargs.max_new_tokens`,
    );
    rmSync(at('bad.yaml'));
  });
});
