import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type KeyedRequest, piecesFor } from '../../ts/evaluation/asking.ts';
import {
  type EvalModel,
  type EvaluateOptions,
  evaluate,
  heldOutTextTask,
  languageAdapter,
  MersenneTwister,
  type Results,
  type TaskInput,
} from '../../ts/evaluation/index.ts';
import type { LanguageModel } from '../../ts/models/language/model.ts';
import { byteTokenizer } from './fake-model.ts';
import { smallModel } from './small-models.ts';

// Issue 6: predictions are the same for batch sizes 1, 2 and 8, any order of tasks, one and two processes. In fp32.
const dense = smallModel('dense', 160);
const mixture = smallModel('mixture', 160);
let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-invariance-'));
});
afterAll(() => {
  dense.dispose();
  mixture.dispose();
  rmSync(folder, { recursive: true });
});

const random = new MersenneTwister(11);
vi.setConfig({ testTimeout: 300_000 }); // on a busy machine
const words = 'one two three four five six seven eight nine ten'.split(' ');
const sentence = (least: number): string =>
  Array.from({ length: least + random.below(6) }, () => random.choice(words)).join(' ');
const documents = Array.from({ length: 12 }, () => ({
  q: sentence(1),
  c: [sentence(1), sentence(1), sentence(2)],
  g: random.below(3),
  a: random.choice(words),
}));
const choice: TaskInput = {
  task: 'choice',
  documents,
  output_type: 'multiple_choice',
  doc_to_text: '{{q}}:',
  doc_to_choice: 'c',
  doc_to_target: 'g',
  num_fewshot: 1,
  metric_list: [{ metric: 'acc' }, { metric: 'acc_norm' }, { metric: 'brier_score' }],
};
const written: TaskInput = {
  task: 'written',
  documents,
  output_type: 'generate_until',
  doc_to_text: '{{q}}?',
  doc_to_target: 'a',
  generation_kwargs: { until: [...'etaoinsrhl'], max_new_tokens: 12 },
};
const drawn: TaskInput = {
  ...written,
  task: 'drawn',
  repeats: 2,
  generation_kwargs: { until: [], max_new_tokens: 6, temperature: 0.8, top_p: 0.9, seed: 5 },
};
const rolling = heldOutTextTask(
  'rolling',
  Array.from({ length: 5 }, (_, i) => ({ id: String(i), text: sentence(10 + 15 * i) })),
);
const tasks = [choice, written, drawn, rolling];

let runs = 0;
interface Outcome {
  results: Results;
  samples: Record<string, string>;
}
async function run(model: EvalModel, options: Partial<EvaluateOptions> = {}): Promise<Outcome> {
  const out = options.out ?? join(folder, String(runs++));
  const steps = evaluate(model, { tasks, bootstrapResamples: 100, ...options, out });
  for (;;) {
    const step = await steps.next();
    if (step.done) return { results: step.value, samples: samplesIn(out) };
  }
}
function samplesIn(out: string): Record<string, string> {
  const files = readdirSync(out).filter((name) => name.startsWith('samples_'));
  return Object.fromEntries(files.map((name) => [name, readFileSync(join(out, name), 'utf8')]));
}
/** Predictions and numbers, to the last bit. */
const predicted = ({ results, samples }: Outcome): unknown => ({
  samples,
  rows: Object.entries(results.results).toSorted(([a], [b]) => (a < b ? -1 : 1)),
});

const adapter = (model: LanguageModel, batchSize?: number): EvalModel =>
  languageAdapter(model, { tokenizer: byteTokenizer, ...(batchSize && { batchSize }) });

describe.each([
  ['dense', dense],
  ['mixture', mixture],
] as const)('scores that do not move (%s)', (_, model) => {
  let reference: Outcome;
  beforeAll(async () => {
    reference = await run(adapter(model, 1));
    expect(Object.keys(reference.samples)).toHaveLength(4);
    // Something is there to go wrong: texts differ and stop in different ways.
    expect(reference.results.libmoe.generated.written!.stop).toBeGreaterThan(0);
    expect(reference.results.libmoe.generated.written!.length).toBeGreaterThan(0);
  }, 60_000);

  it.each([2, 8, undefined])('with batch size %s', async (batchSize) => {
    expect(predicted(await run(adapter(model, batchSize)))).toEqual(predicted(reference));
  });

  it('in any order of tasks, or each alone', async () => {
    expect(predicted(await run(adapter(model, 8), { tasks: tasks.toReversed() }))).toEqual(
      predicted(reference),
    );
    for (const task of tasks) {
      const { results, samples } = await run(adapter(model, 4), { tasks: [task] });
      expect(results.results[task.task]).toEqual(reference.results.results[task.task]);
      const file = `samples_${task.task}.jsonl`;
      expect(samples[file]).toBe(reference.samples[file]);
    }
  });

  it('by two processes that share a folder', async () => {
    const out = join(folder, String(runs++));
    const both = await Promise.all(
      [0, 1].map((rank) => run(adapter(model, 8), { out, share: { rank, world: 2 } })),
    );
    for (const outcome of both) expect(predicted(outcome)).toEqual(predicted(reference));
    const lines = [0, 1].map(
      (rank) =>
        readFileSync(join(out, `journal.${rank}.jsonl`), 'utf8')
          .trim()
          .split('\n').length,
    );
    const { total } = reference.results.libmoe.requests;
    // Both worked; only the piece that both happened to have in hand at the end was done twice.
    expect(Math.min(...lines)).toBeGreaterThan(total / 8);
    expect(lines[0]! + lines[1]!).toBeLessThan(total * 1.4);
  });

  it('by one of two processes, the other killed: it does all of the work', async () => {
    const out = join(folder, String(runs++));
    const outcome = await run(adapter(model, 8), { out, share: { rank: 1, world: 2 } });
    expect(predicted(outcome)).toEqual(predicted(reference));
  });
});

describe('the common work', () => {
  const requests = Array.from({ length: 100 }, (_, i): KeyedRequest[] =>
    [0, 1, 2].map((k) => ({
      key: `${i}.${k}`,
      request: { kind: 'loglikelihood', context: [i], continuation: [k] },
    })),
  );
  it('is dealt into pieces that keep a document together; each process ends with the pieces of the others, last first', () => {
    const keys = (rank: number, world: number): string[][] =>
      piecesFor(requests, { rank, world }).map((piece) => piece.map(({ key }) => key));
    const [first, second] = [keys(0, 2), keys(1, 2)];
    expect(first.flat().toSorted()).toEqual(
      requests
        .flat()
        .map(({ key }) => key)
        .toSorted(),
    );
    expect(second.flat().toSorted()).toEqual(first.flat().toSorted());
    for (const piece of first)
      expect(new Set(piece.map((key) => key.split('.')[0])).size * 3).toBe(piece.length);
    expect(first[0]).toEqual(second.at(-1));
    expect(second[0]).toEqual(first.at(-1));
    expect(keys(0, 1)).toHaveLength(1);
  });
});
