import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type EvaluateOptions,
  evaluate,
  printTable,
  type Results,
  readDocumentValues,
  registerTask,
  rescore,
  type Sample,
  type TaskInput,
} from '../../ts/evaluation/index.ts';
import { requestKey } from '../../ts/evaluation/journal.ts';
import { FakeModel, type FakeOptions } from './fake-model.ts';

/** Sums that the model below gets wrong when the first number is odd. */
const sums: TaskInput = {
  task: 'sums',
  documents: Array.from({ length: 10 }, (_, i) => ({
    a: i,
    b: 2,
    sum: String(i + 2),
    kind: i < 4 ? 'low' : 'high',
  })),
  output_type: 'generate_until',
  doc_to_text: 'What is {{a}} + {{b}}?',
  doc_to_target: 'sum',
  generation_kwargs: { until: ['\n'], max_new_tokens: 8 },
  score: { use: 'exact_match' },
  report: {
    exact: { of: 'exact_match' },
    exact_low: { of: 'exact_match', where: { kind: 'low' } },
  },
  group_by: 'kind',
  metadata: { version: 2 },
};
const adder: FakeOptions = {
  say: (prompt) => {
    const [a = 0, b = 0] = [...prompt.matchAll(/\d+/g)].map(Number).slice(-2);
    return ` ${a + b + (a % 2)}\nWhat is next?`;
  },
};

async function finish(model: FakeModel, options: EvaluateOptions): Promise<Results> {
  const run = evaluate(model, { bootstrapResamples: 1000, ...options });
  for (;;) {
    const step = await run.next();
    if (step.done) return step.value;
  }
}

let out = '';
beforeEach(() => {
  out = mkdtempSync(join(tmpdir(), 'libmoe-texts-'));
});
afterEach(() => rmSync(out, { recursive: true, force: true }));
const samplesOf = (task: string): Sample[] =>
  readFileSync(join(out, `samples_${task}.jsonl`), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Sample);

describe('a task that asks for texts', () => {
  it('gets its numbers from scorer and report', async () => {
    const model = new FakeModel(adder);
    const results = await finish(model, { tasks: [sums], out });
    expect(model.prompts[0]!.generation).toMatchObject({ until: ['\n'], maxTokens: 8, temperature: 0 });
    expect(results.results.sums).toMatchObject({
      'exact,none': 0.5,
      'exact_low,none': 0.5,
      'unparsed_rate,none': 0,
      sample_len: 10,
    });
    expect(results.results.sums?.['exact_stderr,none']).toBeCloseTo(Math.sqrt(0.25 / 9), 12);
    expect(results.libmoe).toMatchObject({
      unparsed: { sums: 0 },
      unparsed_rate: { sums: 0 },
      generated: { sums: { stop: 10, eos: 0, length: 0, not_finite: 0 } },
    });
    expect(results.higher_is_better.sums).toEqual({ exact: true, exact_low: true, unparsed_rate: false });
    expect(printTable(results)).toMatch(/\|exact_low +\|↑\|/);
    const samples = samplesOf('sums');
    expect(samples[3]).toMatchObject({
      doc_id: 3,
      target: '5',
      arguments: {
        gen_args_0: { arg_0: 'What is 3 + 2?', arg_1: { until: ['\n'], max_gen_toks: 8, temperature: 0 } },
      },
      resps: [[' 6']],
      filtered_resps: [' 6'],
      filter: 'none',
      metrics: ['exact_match'],
      exact_match: 0,
      libmoe: { parsed: '6', ended: ['stop'], group: 'low' },
    });
    expect(readDocumentValues(out, 'sums', 'exact_match').map(({ value }) => value)).toEqual([
      1, 0, 1, 0, 1, 0, 1, 0, 1, 0,
    ]);
  });

  it('counts what could not be read', async () => {
    const letters: TaskInput = {
      ...sums,
      task: 'letters',
      doc_to_text: '{{a}}: A or B?',
      doc_to_target: "{{['A', 'B'][a - a]}}",
      score: { use: 'parse_choice', profile: 'robust', letters: 'A-B' },
    };
    delete letters.report;
    delete letters.group_by;
    const model = new FakeModel({
      say: (prompt) => (/[0-6]:/.test(prompt) ? 'The answer is A.' : 'no idea'),
    });
    const results = await finish(model, { tasks: [letters], scorer: 'fixed' });
    expect(results.libmoe.unparsed.letters).toBe(3);
    expect(results.libmoe.unparsed_rate.letters).toBeCloseTo(0.3, 12);
    expect(printTable(results)).toMatch(/unparsed_rate *\|↓\| *0\.3000/);
  });

  it('without a scorer is lm-eval’s exact match with its flags', async () => {
    const { score: _, report: __, ...plain } = sums;
    const task = {
      ...plain,
      metric_list: [
        { metric: 'exact_match', aggregation: 'mean', higher_is_better: true, ignore_punctuation: true },
      ],
    };
    const model = new FakeModel({ say: () => '2!' });
    expect((await finish(model, { tasks: [task] })).results.sums?.['exact_match,none']).toBe(0.1);
    await expect(finish(model, { tasks: [{ ...plain, metric_list: [{ metric: 'acc' }] }] })).rejects.toThrow(
      'exact_match alone',
    );
  });

  it('has a number per pipeline of filters, over repeats too', async () => {
    const task: TaskInput = {
      ...sums,
      repeats: 3,
      generation_kwargs: { until: [], temperature: 0.5, seed: 3 },
      filter_list: [
        {
          name: 'first',
          filter: [
            { function: 'regex', regex_pattern: '#### (\\-?[0-9\\.\\,]+)' },
            { function: 'take_first' },
          ],
        },
        {
          name: 'vote',
          filter: [{ function: 'regex', regex_pattern: '#### (\\d+)' }, { function: 'majority_vote' }],
        },
      ],
    };
    // The first of three samples is wrong.
    const model = new FakeModel({
      say: (prompt, { generation }) => {
        const [a = 0, b = 0] = [...prompt.matchAll(/\d+/g)].map(Number).slice(-2);
        return `I think\n#### ${generation.repeat === 0 ? 99 : a + b}`;
      },
    });
    const results = await finish(model, { tasks: [task], out });
    expect(model.prompts).toHaveLength(30);
    expect(results.results.sums).toMatchObject({ 'exact,first': 0, 'exact,vote': 1 });
    const samples = samplesOf('sums');
    expect(samples).toHaveLength(20);
    expect(samples[0]!.resps[0]).toHaveLength(3);
    expect(readDocumentValues(out, 'sums', 'exact_match', 'vote').every(({ value }) => value === 1)).toBe(
      true,
    );
    // Asked for greedily, three times the same is asked once.
    const greedy = new FakeModel(adder);
    await finish(greedy, { tasks: [{ ...sums, repeats: 3 }] });
    expect(greedy.prompts).toHaveLength(10);
  });

  it('goes on after a kill, asks nothing twice, and only what changed again', async () => {
    const undisturbed = await finish(new FakeModel(adder), { tasks: [sums] });
    const killed = new FakeModel({ ...adder, failAfter: 4 });
    await expect(finish(killed, { tasks: [sums], out })).rejects.toThrow('killed');
    const resumed = new FakeModel(adder);
    const results = await finish(resumed, { tasks: [sums], out });
    expect(resumed.prompts).toHaveLength(6);
    expect(results.results).toEqual(undisturbed.results);
    const again = new FakeModel(adder);
    await finish(again, { tasks: [sums], out, limit: 0.25 });
    expect(again.prompts).toHaveLength(0);
    await finish(again, { tasks: [sums], out, limit: 3, generation: { max_new_tokens: 9 } });
    expect(again.prompts).toHaveLength(3);
    const other = new FakeModel({ ...adder, fingerprint: 'other' });
    await finish(other, { tasks: [sums], out, samples: { sums: [7, 1] } });
    expect(other.prompts).toHaveLength(2);
  });

  it('is scored again without the model, by either scorer or both at once', async () => {
    const yes: TaskInput = {
      ...sums,
      task: 'yes',
      doc_to_text: 'Is {{a}} low?',
      doc_to_target: "{{'yes'}}",
      score: { use: 'yes_no', profile: 'pope' },
    };
    delete yes.report;
    const model = new FakeModel({ say: (prompt) => (/[02468] low/.test(prompt) ? 'Yes, it is' : 'yes') });
    const results = await finish(model, { tasks: [yes], out, scorer: 'both' });
    const rows = samplesOf('yes').map((sample) => sample.resps);
    const fixed = await rescore(out, { scorer: 'fixed', out: join(out, 'fixed') });
    expect(fixed.libmoe.scorer_mode).toBe('fixed');
    expect(fixed.results).toEqual(results.libmoe.fixed_results);
    expect(fixed.results).not.toEqual(results.results);
    const back = await rescore(join(out, 'fixed'), { scorer: 'libmoe' });
    expect(back.results).toEqual(results.results);
    expect(samplesOf('yes').map((sample) => sample.resps)).toEqual(rows);
    expect(printTable(results)).toContain('With the scorer "fixed"');
  });

  it('and one of likelihoods is scored again to the same numbers', async () => {
    const choice: TaskInput = {
      task: 'choice',
      documents: Array.from({ length: 8 }, (_, i) => ({ q: `Q${i}`, c: ['yes', `no ${i}`], g: i % 2 })),
      output_type: 'multiple_choice',
      doc_to_text: 'q',
      doc_to_choice: 'c',
      doc_to_target: 'g',
      num_fewshot: 2,
      metric_list: [
        { metric: 'acc' },
        { metric: 'acc_norm' },
        { metric: 'acc_token' },
        { metric: 'brier_score' },
      ],
    };
    const results = await finish(new FakeModel(), { tasks: [choice], out });
    const before = readFileSync(join(out, 'samples_choice.jsonl'), 'utf8');
    const again = await rescore(out);
    expect(again.results).toEqual(results.results);
    expect(again).toEqual(JSON.parse(JSON.stringify(results)));
    expect(readFileSync(join(out, 'samples_choice.jsonl'), 'utf8')).toBe(before);
    writeFileSync(join(out, 'results.json'), '{}');
    await expect(rescore(out)).rejects.toThrow('ERR_LIBMOE_FILE');
  });

  it.each<[string, Partial<TaskInput> | EvaluateOptions, string]>([
    ['an unknown scorer', { score: { use: 'exact_mach' } }, 'did you mean "exact_match"'],
    ['a wrong option of it', { score: { use: 'exact_match', ignore_cas: true } }, 'ignore_cas'],
    [
      'a bad pattern',
      { filter_list: [{ name: 'x', filter: [{ function: 'regex', regex_pattern: '(' }] }] },
      'no regular expression',
    ],
    [
      'an unknown filter',
      { filter_list: [{ name: 'x', filter: [{ function: 'eval' } as never] }] },
      'function',
    ],
    ['beams', { generation_kwargs: { num_beams: 4 } as never }, 'greedy search'],
    ['a step that is not known', { process_docs: 'os.system' as never }, 'no step "os.system"'],
    [
      'an empty rest',
      { process_docs: [{ function: 'where', column: 'kind', is: 'none' }] },
      'leaves none of the 10 rows',
    ],
    ['a missing column', { doc_to_target: '{{total}}' }, 'the document has no "total"'],
  ])('refuses %s before the model is asked', async (_, change, message) => {
    const model = new FakeModel(adder);
    await expect(finish(model, { tasks: [{ ...sums, ...change }] as TaskInput[] })).rejects.toThrow(message);
    expect(model.prompts).toHaveLength(0);
  });

  it('names the task and the document when a report misses a column', async () => {
    const report = { exact: { of: 'exact_match', by: 'colour' } } as NonNullable<TaskInput['report']>;
    const run = finish(new FakeModel(adder), { tasks: [{ ...sums, report }], samples: { sums: [7] } });
    await expect(run).rejects.toThrow('task sums, report exact, document 7: column "colour" is missing');
  });

  it('takes rows apart before asking', async () => {
    const model = new FakeModel(adder);
    const results = await finish(model, {
      tasks: [
        {
          ...sums,
          process_docs: [
            { function: 'where', column: 'kind', is_not: ['high'] },
            { function: 'set', columns: { b: '{{a}}', sum: '{{a + a}}' } },
          ],
          doc_to_target: '{{sum|string}}',
        },
      ],
    });
    expect(results['n-samples'].sums).toEqual({ original: 4, effective: 4 });
    expect(results.results.sums?.['exact,none']).toBe(0.5);
  });

  it('asks a judge where one is at hand; one that fails leaves the answer without a score', async () => {
    const judged: TaskInput = {
      ...sums,
      score: { use: 'llm_judge', prompt: 'Is {{prediction}} {{sum}}?', verdict: 'score', range: [0, 1] },
    };
    delete judged.report;
    const asked: string[] = [];
    const judge = {
      model: 'toy',
      ask: async ({ prompt }: { prompt: string }) => {
        asked.push(prompt);
        return asked.length === 3 ? null : '1.0';
      },
    };
    const results = await finish(new FakeModel(adder), { tasks: [judged], judge });
    expect(asked).toHaveLength(10);
    expect(results.libmoe.judge).toEqual({ model: 'toy' });
    expect(results.libmoe.missing.sums).toBe(1);
  });

  it("keeps a judge's scores unless a judge gives new ones", async () => {
    const judged: TaskInput = {
      ...sums,
      score: { use: 'llm_judge', prompt: 'Is {{prediction}} {{sum}}?', verdict: 'score', range: [0, 1] },
    };
    delete judged.report;
    const says = (reply: string) => ({ model: 'toy', ask: async () => reply });
    const results = await finish(new FakeModel(adder), { tasks: [judged], out, judge: says('0.5') });
    expect(results.results.sums?.['score,none']).toBe(0.5);
    const before = readFileSync(join(out, 'samples_sums.jsonl'), 'utf8');
    await expect(rescore(out)).rejects.toThrow(
      /^ERR_LIBMOE_UNSUPPORTED: .* has scores by the judge toy \(sums\)/,
    );
    await expect(rescore(out, { out: `${out}/.` })).rejects.toThrow('ERR_LIBMOE_UNSUPPORTED');
    expect(readFileSync(join(out, 'samples_sums.jsonl'), 'utf8')).toBe(before);
    const without = await rescore(out, { out: join(out, 'plain') });
    expect(without.libmoe).not.toHaveProperty('judge');
    expect(without.results.sums?.['score,none']).toBe('N/A');
    const again = await rescore(out, { judge: says('1.0') });
    expect(again.results.sums?.['score,none']).toBe(1);
    expect(again.libmoe.judge).toEqual({ model: 'toy' });
  });

  it('a judge that looks at images finds them again when it is asked later, or nothing is replaced', async () => {
    const pictures = join(out, 'pictures');
    mkdirSync(pictures);
    for (let i = 0; i < 10; i++) writeFileSync(join(pictures, `${i}.png`), `picture ${i}`);
    const judged: TaskInput = {
      ...sums,
      doc_to_visual: '{{a}}.png',
      score: { use: 'llm_judge', prompt: 'Rate', verdict: 'score', range: [0, 1], images: true },
    };
    delete judged.report;
    const seen: string[][] = [];
    const says = (reply: string) => ({
      model: 'toy',
      ask: async ({ images = [] }: { images?: readonly string[] }) => {
        seen.push(images.map((file) => readFileSync(file, 'utf8')));
        return reply;
      },
    });
    const model = Object.assign(new FakeModel(adder), { imagePlaceholder: '<image>' });
    const results = await finish(model, { tasks: [judged], out, dataFolder: pictures, judge: says('0.5') });
    expect(results.results.sums?.['score,none']).toBe(0.5);
    const again = await rescore(out, { judge: says('1.0') });
    expect(again.libmoe.missing.sums).toBe(0);
    expect(again.results.sums?.['score,none']).toBe(1);
    // Also of results that were scored again.
    await rescore(out, { judge: says('0.25') });
    const all = Array.from({ length: 10 }, (_, i) => [`picture ${i}`]);
    expect(seen).toEqual([...all, ...all, ...all]);
    const before = readFileSync(join(out, 'samples_sums.jsonl'), 'utf8');
    for (const i of [2, 7]) rmSync(join(pictures, `${i}.png`));
    await expect(rescore(out, { judge: says('0') })).rejects.toThrow(
      /^ERR_LIBMOE_UNSUPPORTED: task sums: the judge is to see the images of 2 documents \(2, 7\)/,
    );
    expect(readFileSync(join(out, 'samples_sums.jsonl'), 'utf8')).toBe(before);
    expect(seen).toHaveLength(30);
  });

  it('of several processes has one ask the judge and write, and a stop is heeded between tasks', async () => {
    const judged: TaskInput = {
      ...sums,
      score: { use: 'llm_judge', prompt: '{{prediction}}', verdict: 'score', range: [0, 1] },
    };
    delete judged.report;
    let asked = 0;
    const stop = new AbortController();
    const judge = {
      model: 'toy',
      ask: async () => {
        if (++asked === 15) stop.abort(new Error('enough'));
        return '1.0';
      },
    };
    const beside = join(out, 'beside');
    const tasks = [judged, { ...judged, task: 'more' }, { ...judged, task: 'most' }];
    const common = { tasks, out: beside, judge };
    await finish(new FakeModel(adder), { ...common, share: { rank: 1, world: 2 } });
    expect(asked).toBe(0);
    expect(readdirSync(beside)).toEqual(['journal.1.jsonl']);
    const first = { ...common, share: { rank: 0, world: 2 }, signal: stop.signal };
    await expect(finish(new FakeModel(adder), first)).rejects.toThrow('enough');
    expect(asked).toBe(20);
  });

  it('says which keys are others now than in the run, or takes those of the run', async () => {
    registerTask({ ...sums, task: 'known' });
    const exact = { of: 'exact_match' };
    const overridden = { task: 'known', report: { accuracy: exact } } as { task: string };
    const results = await finish(new FakeModel(adder), { tasks: [overridden], out });
    const asRun = await rescore(out, { recorded: true, out: join(out, 'recorded') });
    expect(asRun.results).toEqual(results.results);
    expect(asRun.libmoe).not.toHaveProperty('redefined');
    const now = await rescore(out);
    expect(now.libmoe.redefined).toEqual({ known: ['report'] });
    expect(now.results.known).toHaveProperty('exact,none', 0.5);
  });

  it('is asked again when other tokens end its texts', () => {
    const generation = { until: [], maxTokens: 4, temperature: 0, seed: 0, repeat: 0 };
    const texts = { kind: 'generate_until', context: [1], generation } as const;
    const key = requestKey('x', texts, new Set([2, 10]));
    expect(requestKey('x', texts, new Set([10, 2]))).toBe(key);
    expect(requestKey('x', texts, new Set([2]))).not.toBe(key);
    const score = { kind: 'loglikelihood', context: [1], continuation: [2] } as const;
    expect(requestKey('x', score, new Set([2]))).toBe(requestKey('x', score));
  });

  it('writes the file of a server that keeps the right answers', async () => {
    const sent: TaskInput = {
      ...sums,
      score: { use: 'submission', fields: { id: 'a', answer: 'response' }, format: 'jsonl' },
    };
    delete sent.report;
    const results = await finish(new FakeModel(adder), { tasks: [sent], out, limit: 2 });
    expect(readFileSync(join(out, 'submission_sums.jsonl'), 'utf8')).toBe(
      '{"id":0,"answer":"2"}\n{"id":1,"answer":"4"}\n',
    );
    expect(results.results.sums).not.toHaveProperty('exact_match,none');
  });

  it('needs a model that writes', async () => {
    const mute = new FakeModel();
    (mute as { generateUntil?: unknown }).generateUntil = undefined;
    await expect(finish(mute, { tasks: [sums] })).rejects.toThrow('gives likelihoods only');
  });
});
