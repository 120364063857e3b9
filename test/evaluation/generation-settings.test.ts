import { describe, expect, it } from 'vitest';
import { generationsOf } from '../../ts/evaluation/generation-settings.ts';
import { defineTask, type TaskInput } from '../../ts/evaluation/index.ts';
import { readTaskOrGroup, taskFolder, taskPaths } from '../../ts/evaluation/task-files.ts';

const settings = (more: Partial<TaskInput>) =>
  generationsOf(
    defineTask({
      task: 'asked',
      documents: [{}],
      output_type: 'generate_until',
      doc_to_target: 'a',
      ...more,
    } as TaskInput),
  )[0];

describe('what ends a text', () => {
  it('without a word from the task: of texts what lm-eval has, of images what LibMoE has', () => {
    expect(settings({})).toMatchObject({ until: ['\n\n'], maxTokens: 256, temperature: 0 });
    expect(settings({ fewshot_delimiter: '\n###\n' })).toMatchObject({ until: ['\n###\n'] });
    expect(settings({ doc_to_visual: 'image' })).toMatchObject({
      until: [],
      maxTokens: 1024,
      temperature: 0,
    });
  });
  it('is what the task says, alike for both', () => {
    const generation = { until: ['\n', ''], max_gen_toks: 7 };
    for (const more of [{}, { doc_to_visual: 'image' }])
      expect(settings({ generation_kwargs: generation, ...more })).toMatchObject({
        until: ['\n'],
        maxTokens: 7,
      });
    expect(settings({ generation_kwargs: { until: [] } })).toMatchObject({ until: [], maxTokens: 256 });
  });
  it('in all tasks of LibMoE is the end or the limit alone', () => {
    const written = [...taskPaths(taskFolder).values()]
      .filter((path) => path.includes('/vision/'))
      .map((path) => readTaskOrGroup(path))
      .filter((found) => 'output_type' in found)
      .filter(({ output_type: kind }) => kind === 'generate_until');
    expect(written.length).toBeGreaterThan(80);
    for (const task of written)
      for (const { until, maxTokens } of generationsOf(task)) {
        expect(until, task.task).toEqual([]);
        expect(maxTokens, task.task).toBeGreaterThanOrEqual(16);
      }
  });
});
