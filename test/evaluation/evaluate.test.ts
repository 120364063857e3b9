import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type EvalProgress,
  type EvaluateOptions,
  evaluate,
  heldOutTextTask,
  printTable,
  type Results,
  readDocumentValues,
  readResults,
  type TaskInput,
  wordOrderTask,
} from '../../ts/evaluation/index.ts';
import { bigram, byteTokenizer, FakeModel } from './fake-model.ts';

const questions: TaskInput = {
  task: 'toy',
  documents: Array.from({ length: 12 }, (_, i) => ({
    q: `Question ${i}`,
    c: ['yes', 'no', `perhaps ${i}`],
    g: i % 3,
    part: i % 2 ? 'odd' : 'even',
  })),
  output_type: 'multiple_choice',
  doc_to_text: '{{q}}?',
  doc_to_choice: 'c',
  doc_to_target: 'g',
  group_by: 'part',
  metric_list: [{ metric: 'acc' }, { metric: 'acc_norm' }, { metric: 'acc_token' }],
  metadata: { version: 3 },
};
const texts = heldOutTextTask('texts', [
  { id: 'a', text: 'It was the best of times, it was the worst of times. '.repeat(5) },
  { id: 'b', text: 'Short.' },
]);
const quick = { bootstrapResamples: 1000 };

async function finish(
  model: FakeModel,
  options: EvaluateOptions,
  seen: EvalProgress[] = [],
): Promise<Results> {
  const run = evaluate(model, { ...quick, ...options });
  for (;;) {
    const step = await run.next();
    if (step.done) return step.value;
    seen.push(step.value);
  }
}

/** Everything of the results that a second run must repeat. */
function lasting(results: Results): unknown {
  const { date: _, total_evaluation_time_seconds: __, libmoe, ...rest } = results;
  return { ...rest, libmoe: { ...libmoe, requests: undefined } };
}

let out = '';
beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), 'libmoe-eval-'));
});
afterEach(() => rmSync(out, { recursive: true, force: true }));

describe('evaluate', () => {
  it('gives the numbers of a direct computation', async () => {
    const results = await finish(new FakeModel(), { tasks: [questions, texts] });
    const log = (context: string, continuation: string): number => {
      const tokens = [256, ...byteTokenizer.encode(context + continuation)];
      let sum = 0;
      for (let i = tokens.length - byteTokenizer.encode(continuation).length; i < tokens.length; i++)
        sum += bigram(tokens[i - 1]!, tokens[i]!);
      return sum;
    };
    const right = (questions.documents as { q: string; c: string[]; g: number }[]).map(({ q, c, g }) => {
      const sums = c.map((choice) => log(`${q}?`, ` ${choice}`));
      return Number(sums.indexOf(Math.max(...sums)) === g);
    });
    expect(results.results.toy?.['acc,none']).toBeCloseTo(right.reduce((a, b) => a + b) / 12, 12);
    expect(results.results.toy?.['acc/even,none']).toBeCloseTo(
      right.filter((_, i) => i % 2 === 0).reduce((a, b) => a + b) / 6,
      12,
    );
    const documents = texts.documents as { text: string }[];
    const bits =
      -documents.reduce((sum, { text }) => sum + log('', text), 0) /
      Math.LN2 /
      documents.reduce((n, { text }) => n + text.length, 0);
    expect(results.results.texts?.['bits_per_byte,none']).toBeCloseTo(bits, 10);
  });

  it('writes results and samples in lm-eval’s shape', async () => {
    const seen: EvalProgress[] = [];
    const results = await finish(
      new FakeModel(),
      { tasks: [questions, texts], out, scorer: 'fixed', gitHash: 'abc' },
      seen,
    );
    expect(readResults(out)).toEqual(JSON.parse(JSON.stringify(results)));
    expect(results).toMatchObject({
      versions: { toy: 3, texts: 1 },
      'n-shot': { toy: 0 },
      'n-samples': { toy: { original: 12, effective: 12 } },
      higher_is_better: { toy: { acc: true }, texts: { bits_per_byte: false } },
      git_hash: 'abc',
      libmoe: {
        scorer_mode: 'fixed',
        unparsed: { toy: 0 },
        boundary_merged: { toy: 0 },
        bos: { toy: { added: true } },
      },
      configs: { toy: { doc_to_text: '{{q}}?', documents: { count: 12 } } },
    });
    const samples = readFileSync(join(out, 'samples_toy.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(samples).toHaveLength(12);
    expect(samples[4]).toMatchObject({
      doc_id: 4,
      target: 1,
      filter: 'none',
      metrics: ['acc', 'acc_norm', 'acc_token'],
      arguments: { gen_args_2: { arg_0: 'Question 4?', arg_1: ' perhaps 4' } },
      libmoe: { tokens: [4, 3, 10], chars: [3, 2, 9], group: 'even' },
    });
    expect(typeof samples[0].resps[0][0][0]).toBe('string');
    expect(readDocumentValues(out, 'texts', 'bits_per_byte').map(({ value }) => [value].flat()[1])).toEqual([
      265, 6,
    ]);
    expect(() => readDocumentValues(out, 'texts', 'acc')).toThrow(
      'has no value of "acc", it has bits_per_byte',
    );
    expect(() => readDocumentValues(out, 'none', 'acc')).toThrow('ERR_LIBMOE_FILE');
    expect(seen[0]).toMatchObject({ stage: 'prepare', task: 'toy' });
    const scores = seen.filter(({ stage }) => stage === 'score').map(({ done }) => done);
    expect(scores).toEqual(scores.toSorted((a, b) => a - b));
    expect(scores.at(-1)).toBe(38);
    const table = printTable(results);
    expect(table.split('\n')[0]).toMatch(/^\|Tasks *\|Version\|Filter\|n-shot\|Metric/);
    expect(table).toContain('|bits_per_byte');
    expect(table).toMatch(/\|texts *\| {6}1\|none {2}\| {5}0\|bits_per_byte *\|↓\|/);
  });

  it('continues after a kill without asking anything twice, and ends with the same results', async () => {
    const undisturbed = await finish(new FakeModel(), { tasks: [questions, texts] });
    const killed = new FakeModel({ failAfter: 17 });
    await expect(finish(killed, { tasks: [questions, texts], out })).rejects.toThrow('killed');
    expect(existsSync(join(out, 'results.json'))).toBe(false);
    appendFileSync(join(out, 'journal.jsonl'), '{"key":"torn in mid-wri'); // what a crash of the machine leaves
    const resumed = new FakeModel();
    const results = await finish(resumed, { tasks: [questions, texts], out });
    expect(resumed.asked).toHaveLength(38 - 17);
    expect(results.libmoe.requests).toEqual({ total: 38, from_journal: 17 });
    expect(lasting(results)).toEqual(lasting(undisturbed));
    const third = new FakeModel();
    await finish(third, { tasks: [questions, texts], out });
    expect(third.asked).toHaveLength(0);
  });

  it('never takes another model’s answers, and asks again for what changed only', async () => {
    await finish(new FakeModel(), { tasks: [questions], out });
    const other = new FakeModel({ fingerprint: 'fake-2' });
    expect((await finish(other, { tasks: [questions], out })).libmoe.requests.from_journal).toBe(0);
    expect(other.asked).toHaveLength(36);
    const edited = new FakeModel();
    const documents = (questions.documents ?? []).map((row, i) => (i === 5 ? { ...row, q: 'Edited' } : row));
    await finish(edited, { tasks: [{ ...questions, task: 'renamed', documents }], out });
    expect(edited.asked).toHaveLength(3);
  });

  it('stops the model when it is left early or aborted', async () => {
    const model = new FakeModel();
    for await (const step of evaluate(model, { tasks: [questions, texts], out, ...quick }))
      if (step.stage === 'score' && step.done > 3) break;
    expect(model.asked.length).toBeLessThan(30);
    const controller = new AbortController();
    const aborted = evaluate(new FakeModel(), { tasks: [questions], signal: controller.signal, ...quick });
    await aborted.next();
    controller.abort(new Error('enough'));
    await expect(
      (async () => {
        for (;;) if ((await aborted.next()).done) return;
      })(),
    ).rejects.toThrow('enough');
  });

  it('asks for equal pairs once', async () => {
    const model = new FakeModel();
    await finish(model, { tasks: [questions, { ...questions, task: 'again' }] });
    expect(model.asked).toHaveLength(36);
  });

  it('takes a limit per task, as a number or a share', async () => {
    const both = [questions, { ...questions, task: 'half', documents: questions.documents?.slice(0, 5) }];
    const counted = await finish(new FakeModel(), { tasks: both, limit: 7 });
    expect(counted['n-samples']).toEqual({
      toy: { original: 12, effective: 7 },
      half: { original: 5, effective: 5 },
    });
    const shared = await finish(new FakeModel(), { tasks: both, limit: 0.3 });
    expect(shared['n-samples']).toMatchObject({ toy: { effective: 4 }, half: { effective: 2 } });
  });

  it('scores WinoGrande’s way: several contexts, one continuation', async () => {
    const model = new FakeModel({ logProbability: (previous) => (previous === 66 ? 0 : -1) }); // likes what follows a B
    const task: TaskInput = {
      task: 'partial',
      documents: [{ options: ['it is A', 'it is B'], gold: '1', end: 'now' }],
      output_type: 'multiple_choice',
      doc_to_text: 'gold',
      doc_to_choice: 'options',
      doc_to_target: 'end',
      metric_list: [{ metric: 'acc' }],
    };
    expect((await finish(model, { tasks: [task] })).results.partial?.['acc,none']).toBe(1);
  });

  it('counts answers that are no numbers as wrong and does not keep them', async () => {
    const model = new FakeModel({ logProbability: () => Number.NaN });
    const results = await finish(model, { tasks: [questions], out });
    expect(results.results.toy?.['acc,none']).toBe(0);
    expect(results.libmoe.not_finite.toy).toBe(12);
    expect(readFileSync(join(out, 'journal.jsonl'), 'utf8')).toBe('');
  });

  it('reads jsonl, json, text files and folders, and the word-order data set', async () => {
    writeFileSync(join(out, 'rows.jsonl'), '{"t":"one"}\n\n{"t":"two"}\n');
    writeFileSync(join(out, 'rows.json'), '[{"t":"one"}]');
    writeFileSync(join(out, 'a.txt'), 'The quick brown fox jumps over the lazy dog today.');
    const rolling = {
      output_type: 'loglikelihood_rolling',
      dataset_path: 'json',
      doc_to_target: 't',
    } as const;
    const results = await finish(new FakeModel(), {
      dataFolder: out,
      tasks: [
        {
          ...rolling,
          task: 'lines',
          dataset_kwargs: { data_files: { test: 'rows.jsonl' } },
          test_split: 'test',
        },
        { ...rolling, task: 'list', dataset_kwargs: { data_files: ['rows.json'] } },
        { task: 'held-out-text', dataset_kwargs: { data_files: '.' } },
        { task: 'word-order', dataset_kwargs: { data_files: 'a.txt' } },
        wordOrderTask('from-memory', ['The quick brown fox jumps over the lazy dog today.']),
      ],
    });
    expect(Object.entries(results['n-samples']).map(([name, { effective }]) => [name, effective])).toEqual([
      ['lines', 2],
      ['list', 1],
      ['held-out-text', 1],
      ['word-order', 1],
      ['from-memory', 1],
    ]);
    expect(results.results['from-memory']?.['acc,none']).toBe(results.results['word-order']?.['acc,none']);
    expect(results.libmoe.dataset_manifest.lines?.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it.each<[string, Partial<EvaluateOptions>, string, string]>([
    ['no tasks', { tasks: [] }, 'ERR_LIBMOE_ARGUMENT', 'at least one task'],
    ['an unknown task', { tasks: ['piq'] }, 'ERR_LIBMOE_CONFIG', 'did you mean "piqa"'],
    ['a task twice', { tasks: [questions, questions] }, 'ERR_LIBMOE_ARGUMENT', 'listed twice'],
    ['a bad limit', { limit: -1 }, 'ERR_LIBMOE_ARGUMENT', 'limit'],
    ['half a document', { limit: 1.5 }, 'ERR_LIBMOE_ARGUMENT', 'limit'],
    ['a bad scorer', { scorer: 'compat' as 'libmoe' }, 'ERR_LIBMOE_ARGUMENT', 'libmoe or fixed'],
    [
      'an unknown metric',
      { tasks: [{ ...questions, metric_list: [{ metric: 'accu' }] }] },
      'ERR_LIBMOE_CONFIG',
      'no metric "accu"',
    ],
    [
      'a metric of another kind',
      { tasks: [{ ...questions, metric_list: [{ metric: 'bits_per_byte' }] }] },
      'ERR_LIBMOE_CONFIG',
      'loglikelihood_rolling',
    ],
    ['a missing file', { tasks: ['piqa'] }, 'ERR_LIBMOE_DATA', 'piqa.jsonl'],
    [
      'an unknown data set',
      { tasks: [{ ...questions, documents: undefined, dataset_path: 'jsom' } as TaskInput] },
      'ERR_LIBMOE_CONFIG',
      'no data set "jsom"',
    ],
    [
      'a missing column',
      { tasks: [{ ...questions, doc_to_target: '{{label}}' }] },
      'ERR_LIBMOE_DATA',
      'task toy, document 0: the document has no "label"',
    ],
    [
      'a gold outside',
      { tasks: [{ ...questions, documents: [{ q: 'a', c: ['x', 'y'], g: 2, part: '' }] }] },
      'ERR_LIBMOE_DATA',
      'below 2',
    ],
    ['no documents', { tasks: [{ ...questions, documents: [] }] }, 'ERR_LIBMOE_DATA', 'no documents'],
    [
      'an empty text',
      { tasks: [heldOutTextTask('e', [{ id: 'a', text: '' }])] },
      'ERR_LIBMOE_DATA',
      'task e, document 0',
    ],
  ])('refuses %s before the model runs', async (_, options, code, message) => {
    const model = new FakeModel();
    const error = await finish(model, { tasks: [questions], out, ...options }).catch((cause: Error) => cause);
    expect(String(error)).toContain(code);
    expect(String(error)).toContain(message);
    expect(model.asked).toHaveLength(0);
    expect(existsSync(join(out, 'results.json'))).toBe(false);
  });
});
