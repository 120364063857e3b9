import { describe, expect, it } from 'vitest';
import { checkExamples, defineTask, type TaskInput, taskNames } from '../../ts/evaluation/index.ts';
import { readTaskOrGroup, taskFolder, taskPaths } from '../../ts/evaluation/task-files.ts';

const tasks = [...taskPaths(taskFolder).values()]
  .map((path) => readTaskOrGroup(path))
  .filter((found) => 'output_type' in found)
  .filter(({ examples = [] }) => examples.length > 0);

describe('the made-up records of task files', () => {
  it('are there to be checked', () => {
    expect(taskNames().length).toBeGreaterThan(10);
    expect(tasks.length).toBeGreaterThan(0);
  });
  it.each(tasks.map((task) => [task.task, task] as const))('%s', async (_, task) => {
    expect(task.examples!.length).toBeGreaterThanOrEqual(3);
    expect(await checkExamples(task)).toEqual([]);
  });
});

describe('a record that does not pass', () => {
  const written: TaskInput = {
    task: 'written',
    documents: [{}],
    output_type: 'generate_until',
    doc_to_text: '{{q}}?',
    doc_to_target: 'a',
    doc_to_visual: 'picture',
    score: { use: 'yes_no', profile: 'pope' },
  };
  const doc = { q: 'Is it', a: 'yes', picture: 'x.png' };
  it.each<[string, NonNullable<TaskInput['examples']>[number], string]>([
    ['by its prompt', { doc, prompt: 'Is it' }, 'the prompt should be "Is it", is "Is it?"'],
    ['by its images', { doc, prompt: 'Is it?', images: ['y.png'] }, 'the images should be ["y.png"]'],
    ['by its target', { doc, prompt: 'Is it?', target: 'no' }, 'the target should be "no"'],
    ['by its column', { doc: { a: 'x', picture: 'y' }, prompt: 'x?' }, 'no "q"'],
    [
      'by what is read out',
      { doc, prompt: 'Is it?', response: 'yes', parsed: 'no' },
      'what is read out (libmoe) should be "no", is "yes"',
    ],
  ])('is named: %s', async (_, example, message) => {
    const found = await checkExamples(defineTask({ ...written, examples: [example] }));
    expect(found.join('\n')).toContain(message);
    expect(found[0]).toMatch(/^task written, example 0: /);
  });

  it('or by what a judge is asked, how often, and what becomes of its replies', async () => {
    const judged: TaskInput = {
      ...written,
      score: { use: 'llm_judge', prompt: 'Q: {{q}} A: {{prediction}}', verdict: 'correctness' },
    };
    const check = (judge: object[], more: object = {}): Promise<string[]> =>
      checkExamples(
        defineTask({
          ...judged,
          examples: [{ doc, prompt: 'Is it?', response: 'yes', judge, scores: { acc: 1 }, ...more }] as never,
        }),
      );
    expect(await check([{ reply: 'correct', asked: 'it A: yes' }])).toEqual([]);
    expect(await check([{ reply: 'correct', asked: 'A: no' }])).toEqual(
      ['libmoe', 'fixed'].map(
        (mode) => `task written, example 0: what the judge is asked (${mode}) should be "A: no", is ": yes"`,
      ),
    );
    expect((await check([{ reply: 'incorrect' }]))[0]).toContain('the scores (libmoe) should be {"acc":1}');
    expect((await check([{ reply: 'correct' }, { reply: 'correct' }]))[0]).toContain(
      'the number of questions to the judge (libmoe) should be 2, is 1',
    );
    // Other replies with the other scorer.
    expect(
      await check([{ reply: 'correct' }], { fixed: { judge: [{ reply: 'hm' }], scores: { acc: null } } }),
    ).toEqual([]);
    expect(await check([{ reply: null }], { scores: { acc: null }, parsed: null })).toEqual([]);
  });

  it('or by its scores, choices and golds', async () => {
    const choice: TaskInput = {
      task: 'choice',
      documents: [{}],
      output_type: 'multiple_choice',
      doc_to_text: 'q',
      doc_to_choice: 'c',
      doc_to_target: 'g',
    };
    const example = { doc: { q: 'Q', c: ['a', 'bb'], g: 1 }, prompt: 'Q', choices: [' a', ' bb'], gold: 1 };
    const check = (more: object): Promise<string[]> =>
      checkExamples(defineTask({ ...choice, examples: [{ ...example, ...more }] }));
    expect(await check({ sums: [-1, -2], scores: { acc: 0, acc_norm: 1 } })).toEqual([
      'task choice, example 0: the scores should be {"acc":0,"acc_norm":1}, is {"acc":0,"acc_norm":0}',
    ]);
    expect(await check({ sums: [-3, -2], scores: { acc: 1, acc_norm: 1 } })).toEqual([]);
    expect((await check({ choices: ['a', 'bb'] }))[0]).toContain('what is scored should be ["a","bb"]');
    expect((await check({ gold: 0 }))[0]).toContain('the right choice should be [0], is [1]');
    expect(await check({ sums: [1] })).toEqual([]);
    expect((await check({ sums: [1], scores: { acc: 1 } }))[0]).toContain('the number of sums');
  });
});
