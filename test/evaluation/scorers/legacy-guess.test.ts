import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  compareResults,
  evaluate,
  MersenneTwister,
  type Results,
  rescore,
  scoreRecords,
  type TaskInput,
} from '../../../ts/evaluation/index.ts';
import { FakeModel } from '../fake-model.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-guess-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => path.join(folder, name);

// Eight choice("ABCD") after seed(0), run in CPython (evaluation specification §1.16).
const drawn = [...'DDACDDCD'];
const golds = [...'DABCDACD'];
const right = drawn.filter((letter, i) => letter === golds[i]).length;
const task = (more: object = {}): TaskInput => ({
  task: 'asked',
  documents: golds.map((answer, i) => ({ question: `Which, ${i}?`, answer })),
  output_type: 'generate_until',
  doc_to_text: 'question',
  doc_to_target: 'answer',
  score: {
    use: 'parse_choice',
    profile: 'mmmu',
    letters: 'A-D',
    gold: 'letter',
    legacy_guess: 0,
    ...more,
  },
});
const records = golds.map((answer) => ({ doc: { answer }, response: 'who knows' }));

describe("the original's guesses where nothing can be read", () => {
  it('are those of Python, drawn for unread answers alone, which stay unparsed', async () => {
    const plain = await scoreRecords(task(), records);
    expect([plain.numbers.acc!.value, plain.unparsed]).toEqual([0, 8]);
    const guessing = { legacyRandomFallback: true };
    const guessed = await scoreRecords(task(), records, guessing);
    expect(guessed.documents.map(({ score }) => score.detail!.guessed)).toEqual(drawn);
    expect([guessed.numbers.acc!.value, guessed.unparsed]).toEqual([right / 8, 8]);
    // An answer that can be read takes no draw.
    const read = records.map((record, i) => (i === 1 ? { ...record, response: '(A)' } : record));
    const some = await scoreRecords(task(), read, guessing);
    expect(some.documents.map(({ score }) => score.detail!.guessed)).toEqual([
      'D',
      undefined,
      ...drawn.slice(1, 7),
    ]);
    expect(some.unparsed).toBe(7);
  });

  it('are of the seed of the task, and of tasks that name one', async () => {
    const python = new MersenneTwister(2680);
    const wanted = golds.map(() => python.choice(['A', 'B', 'C', 'D']));
    const other = await scoreRecords(task({ legacy_guess: 2680 }), records, { legacyRandomFallback: true });
    expect(other.documents.map(({ score }) => score.detail!.guessed)).toEqual(wanted);
    const { score, ...rest } = task();
    const { legacy_guess: _, ...without } = score as Record<string, unknown> & { use: string };
    const none = await scoreRecords({ ...rest, score: without } as TaskInput, records, {
      legacyRandomFallback: true,
    });
    expect(none.numbers.acc!.value).toBe(0);
    const fixed = await scoreRecords(task(), records, { legacyRandomFallback: true, scorer: 'fixed' });
    expect(fixed.numbers.acc!.value).toBe(0);
  });

  it('are made by benchmarks whose original makes them', async () => {
    const rows = Array.from({ length: 8 }, (_, i) => ({
      doc: {
        id: `validation_Art_${i}`,
        question_type: 'multiple-choice',
        question: 'Which?',
        options: "['one', 'two', 'three', 'four']",
        answer: golds[i],
      },
      response: 'who knows',
    }));
    const scores = await scoreRecords('mmmu_val', rows, { legacyRandomFallback: true });
    expect(scores.numbers.mmmu_acc!.value).toBe(right / 8);
    expect((await scoreRecords('mmmu_val', rows)).numbers.mmmu_acc!.value).toBe(0);
  });

  it('are part of an evaluation, of rescoring, and of what can be compared', async () => {
    const run = async (name: string, legacyRandomFallback: boolean): Promise<Results> => {
      const model = new FakeModel({ fingerprint: name, say: () => 'who knows' });
      const steps = evaluate(model, {
        tasks: [task()],
        out: at(name),
        bootstrapResamples: 10,
        legacyRandomFallback,
      });
      for (;;) {
        const step = await steps.next();
        if (step.done) return step.value;
      }
    };
    const acc = ({ results }: Results): unknown => results.asked!['acc,none'];
    expect(acc(await run('plain', false))).toBe(0);
    const guessed = await run('guessed', true);
    expect([acc(guessed), guessed.libmoe.legacy_random_fallback]).toEqual([right / 8, true]);
    const kept = readFileSync(at('guessed/samples_asked.jsonl'), 'utf8').trim().split('\n');
    expect(kept.map((line) => JSON.parse(line).libmoe.detail.guessed)).toEqual(drawn);
    const both = [at('plain'), at('guessed')];
    expect(() => compareResults(both)).toThrow(/guessed has random guesses.*plain has none/);
    // As before where nothing else is said.
    expect(acc(await rescore(at('guessed'), { out: at('same'), recorded: true }))).toBe(right / 8);
    const again = { recorded: true, legacyRandomFallback: false };
    expect(acc(await rescore(at('guessed'), { ...again, out: at('without') }))).toBe(0);
    expect(compareResults([at('plain'), at('without')]).runs[0]!.numbers[0]!.difference).toBe(0);
    const added = { out: at('added'), recorded: true, legacyRandomFallback: true };
    expect(acc(await rescore(at('plain'), added))).toBe(right / 8);
  });
});
