import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { registerTask, resolveTask, type TaskInput } from '../../ts/evaluation/index.ts';
import {
  loadAnyRecipe,
  loadRecipe,
  merged,
  planRecipe,
  type RecipeInput,
  type RunOptions,
  type RunResult,
  resolveCheckpoint,
  runPipeline,
  runRecipe,
  runSweep,
} from '../../ts/experiment/index.ts';
import { readJournal, readSafetensors } from '../../ts/storage/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { tinyCorpus, tinyRecipe } from './tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-during-'));
afterAll(() => rmSync(folder, { recursive: true }));
setThreads(1);
const base = tinyRecipe(tinyCorpus(folder));
const place = (...parts: string[]): string => path.join(folder, ...parts);
const go = (
  out: string,
  changes: Record<string, unknown> = {},
  options: RunOptions = {},
): Promise<RunResult> => runRecipe(base, changes, { out: place(out), status: null, ...options });
const text = (...parts: string[]): string => readFileSync(place(...parts), 'utf8');
const json = (...parts: string[]) => JSON.parse(text(...parts));
const lines = (out: string) => readJournal(place(out, 'evaluations.jsonl'));
/** The parameters of a checkpoint as numbers. */
function weights(checkpoint: string): Record<string, number[]> {
  const state = readSafetensors(checkpoint);
  const numbers = Object.fromEntries([...state].map(([name, value]) => [name, value.toArray()]));
  for (const value of state.values()) value.dispose();
  return numbers;
}
const choose: TaskInput = {
  task: 'during-choose',
  output_type: 'multiple_choice',
  doc_to_text: 'question',
  doc_to_choice: '{{[a, b]}}',
  doc_to_target: 0,
  metric_list: [{ metric: 'acc' }, { metric: 'acc_norm' }],
  documents: ['one', 'two', 'three', 'four'].map((question) => ({ question, a: 'five six', b: 'nine' })),
};
const write: TaskInput = {
  task: 'during-write',
  output_type: 'generate_until',
  doc_to_text: 'question',
  doc_to_target: 'a',
  generation_kwargs: { max_new_tokens: 2 },
  documents: choose.documents,
};
registerTask(choose);
registerTask(write);

/** A rate that first helps and then does harm, so that the best is in between. */
const harmful = {
  optimizer: { name: 'sgd' },
  schedule: { name: 'step', learningRate: 0.3, at: [3], factor: 10 },
  clipNorm: 1,
};
const stopping = {
  training: { ...harmful, steps: 8, evaluateEvery: 1, checkpointEvery: 3, keepCheckpoints: 1 },
  evaluation: { best: { metric: 'same/bits_per_byte' }, earlyStopping: { patience: 2 } },
};

describe('a recipe that evaluates during training', () => {
  it('leaves the weights as they are, and keeps the best', async () => {
    const plain = await go('plain');
    const watched = await go('watched', {
      training: { evaluateEvery: 2, evaluateFirst: true },
      evaluation: { best: { metric: 'same/bits_per_byte' } },
    });
    expect(weights(watched.checkpoint!)).toEqual(weights(plain.checkpoint!));
    expect(lines('watched').map(({ step }) => step)).toEqual([0, 2, 4, 6]);
    for (const { step, values } of lines('watched'))
      expect((values as Record<string, number>)['same/bits_per_byte']).toBe(
        json('watched', 'eval', String(step), 'results.json').results.same['bits_per_byte,none'],
      );
    const { best } = watched;
    expect(best).toMatchObject({ metric: 'same/bits_per_byte' });
    expect(resolveCheckpoint(place('watched/checkpoints/best'))).toBe(best!.checkpoint);
    expect(json('watched', 'summary.json').best).toEqual({
      metric: best!.metric,
      step: best!.step,
      value: best!.value,
    });
    expect(json('watched', 'eval/final/results.json').config).toMatchObject({
      training_step: 6,
      weights: 'last',
    });
    // What was asked of the last weights is not asked again.
    const { total, from_journal } = json('watched', 'eval/final/results.json').libmoe.requests;
    expect(from_journal).toBe(total);
  });

  it('may ask something else than at the end, at shares of the steps', async () => {
    await go('other', {
      training: { evaluateAt: [0.5] },
      evaluation: {
        tasks: ['during-choose'],
        during: { tasks: ['during-choose'], limit: 3 },
        best: { metric: 'during-choose/acc_norm' },
      },
    });
    expect(lines('other').map(({ step, values }) => [step, Object.keys(values as object)])).toEqual(
      [3, 6].map((step) => [step, ['during-choose/acc', 'during-choose/acc_norm']]),
    );
    expect(lines('other')[0]).toMatchObject({ higherIsBetter: true, best: true });
    expect(json('other', 'eval/3/results.json')['n-samples']['during-choose'].effective).toBe(3);
    expect(Object.keys(json('other', 'eval/final/results.json').results)).toEqual(['same', 'during-choose']);
  });

  it('takes last words, which are more than likelihoods', async () => {
    const task = { ...resolveTask('lm.lambada'), task: 'during-last-word' };
    registerTask({ ...task, dataset_path: 'inline', documents: [{ text: 'one two three' }] });
    await go('last-word', {
      training: { steps: 1, evaluateEvery: 1 },
      evaluation: {
        during: { tasks: ['during-last-word'] },
        best: { metric: 'during-last-word/last_word_perplexity' },
      },
    });
    expect(lines('last-word')[0]).toMatchObject({ higherIsBetter: false, best: true });
  });

  it('knows the metrics of written answers before any is written', async () => {
    const { best } = await go('written', {
      training: { steps: 1, evaluateEvery: 1 },
      evaluation: { during: { tasks: ['during-write'] }, best: { metric: 'during-write/unparsed_rate' } },
    });
    expect(lines('written')[0]).toMatchObject({ higherIsBetter: false, best: true });
    expect(best!.step).toBe(1);
  });
});

describe('early stopping', () => {
  it('ends a run as complete with its best; the end is evaluated by the weights that the recipe says', async () => {
    const said: string[] = [];
    const run = await go('early', stopping, { log: (line) => said.push(line) });
    expect(run.training).toMatchObject({ completed: true });
    expect(run.training.step).toBe(run.best!.step + 2);
    expect(run.training.step).toBeLessThan(8);
    expect(run.training.endedEarly).toMatch(
      /^same\/bits_per_byte has not become better than .* in 2 evaluations/,
    );
    expect(json('early', 'summary.json')).toMatchObject({
      completed: true,
      step: run.training.step,
      endedEarly: run.training.endedEarly,
    });
    expect(said.join('\n')).toContain(`ending at step ${run.training.step} of 8: `);
    expect(lines('early').at(-1)).toMatchObject({ stop: run.training.endedEarly });
    expect(run.checkpoint).toBe(
      place('early/checkpoints', `step-${String(run.training.step).padStart(6, '0')}`),
    );
    const bits = (result: RunResult) => result.evaluation!.results.same!['bits_per_byte,none'];
    expect(bits(run)).toBeGreaterThan(run.best!.value);

    const best = await go('early-best', {
      ...stopping,
      evaluation: { ...stopping.evaluation, finalWeights: 'best' },
    });
    expect(bits(best)).toBe(run.best!.value);
    expect(best.checkpoint).toBe(best.best!.checkpoint);
    expect(best.evaluation!.config).toMatchObject({ training_step: run.best!.step, weights: 'best' });

    // Nothing is left to do.
    const again = await go('early', stopping, { resume: true });
    expect([again.last, again.training]).toEqual([undefined, run.training]);
    expect(bits(again)).toBe(bits(run));
  });

  it('is the same for a run that was stopped on the way', async () => {
    const whole = resolveCheckpoint(place('early'));
    for (const last of [1, 3, 4]) {
      const out = `early-${last}`;
      const controller = new AbortController();
      await go(out, stopping, {
        signal: controller.signal,
        onStep: ({ step }) => step === last && controller.abort(),
      });
      expect(json(out, 'summary.json').completed).toBe(false);
      await go(out, stopping, { resume: true });
      expect(text(out, 'evaluations.jsonl')).toBe(text('early', 'evaluations.jsonl'));
      expect(text(out, 'checkpoints/best')).toBe(text('early', 'checkpoints/best'));
      expect(weights(resolveCheckpoint(place(out)))).toEqual(weights(whole));
    }
  });
});

describe('the best of a run', () => {
  it('can be started from by its name, and the run that did goes on when that has gone', async () => {
    const { tokenizer: _, model: __, ...rest } = base;
    const start = { checkpoint: place('early/checkpoints/best') };
    const options = { out: place('started'), status: null };
    const controller = new AbortController();
    const onStep = (): void => controller.abort();
    await runRecipe({ ...rest, start }, {}, { ...options, signal: controller.signal, onStep });
    const began = loadRecipe(place('started/recipe.yaml')).start!.checkpoint;
    expect(began).toBe(resolveCheckpoint(start.checkpoint));
    rmSync(start.checkpoint);
    const { training } = await runRecipe({ ...rest, start }, {}, { ...options, resume: true });
    expect(training).toMatchObject({ step: 6, completed: true });
  });
});

describe('a pipeline', () => {
  it('goes on from the best of a stage that ended early, resumed too', async () => {
    const {
      tokenizer: _,
      model: __,
      ...rest
    } = merged(base as Record<string, unknown>, {
      training: { steps: 2 },
    });
    const first = merged(merged(base as Record<string, unknown>, stopping), {
      evaluation: { finalWeights: 'best' },
    });
    writeFileSync(place('first.yaml'), stringify(first));
    writeFileSync(place('second.yaml'), stringify({ ...rest, start: { checkpoint: 'nowhere' } }));
    const stages = ['first', 'second'].map((name) => ({ name, recipe: `${name}.yaml` }));
    writeFileSync(place('pipeline.yaml'), stringify({ kind: 'pipeline', name: 'two', stages }));
    const options = { out: place('two'), status: null };
    const whole = await runPipeline(place('pipeline.yaml'), {}, options);
    expect(whole.completed).toBe(true);
    const [one, two] = whole.stages;
    expect(one!.training.endedEarly).toBeDefined();
    expect(one!.checkpoint).toBe(one!.best!.checkpoint);
    expect(loadRecipe(place('two/second/recipe.yaml')).start!.checkpoint).toBe(one!.checkpoint);
    const again = await runPipeline(place('pipeline.yaml'), {}, { ...options, resume: true });
    expect(again.stages.map(({ last }) => last)).toEqual([undefined, undefined]);
    expect(again.stages[1]!.checkpoint).toBe(two!.checkpoint);
  });
});

describe('a sweep', () => {
  it('has runs that ended early among those that are done', async () => {
    const sweep = {
      name: 'ended',
      base: merged(base as Record<string, unknown>, stopping) as RecipeInput,
      axes: { seed: [1, 2] },
      compare: { task: 'same', metric: 'finalLoss' as const },
    };
    const wrong = merged(sweep as never, { base: { evaluation: { best: { metric: 'same/acc' } } } });
    await expect(runSweep(wrong as never, { out: place('sweep') })).rejects.toThrow(/gives "same\/acc"/);
    const options = { out: place('sweep'), status: null };
    const { results } = await runSweep(sweep, options);
    expect(results.runs.map(({ status }) => status)).toEqual(['done', 'done']);
    const lines: string[] = [];
    await runSweep(sweep, { ...options, log: (line) => lines.push(line) });
    expect(lines.join('\n')).not.toContain('evaluation at step');
  });
});

describe('what is wrong', () => {
  const failing = async (changes: Record<string, unknown>): Promise<string> => {
    try {
      await go('wrong', changes);
    } catch (error) {
      return (error as Error).message;
    }
    return 'no error';
  };
  const during = { evaluateEvery: 2 };

  it.each([
    ['during-write/exact', /gives "during-write\/exact"; did you mean "during-write\/exact_match"\?/],
    ['same/bits', /no evaluation during training gives "same\/bits"; did you mean "same\/bits_per_byte"\?/],
    [
      'piqa/acc',
      /no evaluation during training gives "piqa\/acc"; expected TASK\/METRIC: same\/.*bits_per_byte/,
    ],
  ])('the metric %s is refused before training begins', async (metric, message) => {
    const said = await failing({
      training: during,
      evaluation: { tasks: ['during-write'], best: { metric } },
    });
    expect(said).toMatch(/^ERR_LIBMOE_RECIPE: evaluation\.best\.metric: /);
    expect(said).toMatch(message);
    expect(existsSync(place('wrong/metrics.jsonl'))).toBe(false);
    // Where the task alone says so, nothing is prepared and a plan says it too.
    if (metric.startsWith('during-write/')) return;
    const changes = { training: during, evaluation: { tasks: ['during-write'], best: { metric } } };
    expect(() => planRecipe(base, changes)).toThrow(message);
  });

  it('so is a best of nothing', async () => {
    const said = await failing({
      data: { heldOut: undefined },
      training: during,
      evaluation: { best: { metric: 'x/y' } },
    });
    expect(said).toMatch(/nothing is evaluated during training: set data\.heldOut or evaluation\.tasks/);
  });

  it.each([
    [{ evaluation: { earlyStopping: { patience: 2 } } }, /earlyStopping needs evaluations during training/],
    [{ evaluation: { best: { metric: 'same/x' } } }, /best needs evaluations during training: set training/],
    [{ evaluation: { during: { limit: 2 } } }, /during says what is asked during training, and nothing is/],
    [{ evaluation: { finalWeights: 'best' } }, /finalWeights: best needs evaluation\.best\.metric/],
    [{ training: during, evaluation: { earlyStopping: { patience: 2 } } }, /needs evaluation\.best\.metric/],
    [{ training: { evaluateEvery: 1.5 } }, /training\.evaluateEvery/],
    [{ training: during, evaluation: { best: { metrics: 'a' } } }, /did you mean "metric"/],
  ])('%j', (changes, message) => {
    expect(() => loadRecipe(base, changes)).toThrow(message);
  });

  it('of a tower that learns from captions', () => {
    const recipe = {
      kind: 'image-text',
      name: 'x',
      tokenizer: 'x.json',
      data: { train: { conversations: 'x.json' }, batchSamples: 2 },
      model: {
        vision: {
          kind: 'siglip',
          hidden: 8,
          dModel: 8,
          layers: 1,
          heads: 1,
          imageSize: 4,
          patchSize: 2,
          pool: 'mean',
        },
      },
      training: { evaluateEvery: 2 },
    };
    expect(() => loadAnyRecipe(recipe as never)).toThrow(/leave training\.evaluateEvery, evaluateAt and/);
  });
});
