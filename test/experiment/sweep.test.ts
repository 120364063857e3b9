import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { studentQuantile } from '../../ts/evaluation/index.ts';
import {
  loadRecipe,
  loadSweep,
  merged,
  plannedRuns,
  type Recipe,
  type RecipeInput,
  runRecipe,
  runSweep,
  type SweepInput,
  type SweepOptions,
} from '../../ts/experiment/index.ts';
import { copyFolder } from '../../ts/experiment/sweep-copy.ts';
import { type SweepOutcome, sweepResults } from '../../ts/experiment/sweep-results.ts';
import { sweepTable } from '../../ts/experiment/sweep-table.ts';
import { routerNames } from '../../ts/moe/index.ts';
import { packageRoot } from '../../ts/native/index.ts';
import { readJournal } from '../../ts/storage/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { tinyCorpus, tinyRecipe, traces } from './tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-sweep-'));
afterAll(() => rmSync(folder, { recursive: true }));
setThreads(1); // fastest at this size, above all on a busy machine
const corpus = tinyCorpus(folder);
const base = merged(tinyRecipe(corpus) as Record<string, unknown>, {
  data: { heldOut: { same: { textDocuments: 'blocks', select: { skip: 2, first: 20 } } } },
  training: {
    steps: 4,
    checkpointEvery: 2,
    evaluateFirst: true,
    schedule: { name: 'constant', learningRate: 0.01 },
  },
});
const sweep: SweepInput = {
  name: 'tiny',
  base,
  axes: { router: ['smoe', { name: 'sigmoid' }], seed: [1, 2] },
  notes: { sigmoid: 'no softmax' },
};
const place = (...parts: string[]): string => path.join(folder, ...parts);
const go = (out: string, source: SweepInput = sweep, options: SweepOptions = {}) =>
  runSweep(source, { out: place(out), status: null, ...options });
/** results.json without what a clock says. */
const results = (out: string): unknown =>
  JSON.parse(readFileSync(place(out, 'results.json'), 'utf8'), (key, value) =>
    key === 'secondsPerStep' ? undefined : (value as unknown),
  );

describe('a sweep file', () => {
  it('makes every combination, and a router takes the place of the one before with its options', () => {
    const wide = loadSweep({
      ...sweep,
      base: merged(base, { model: { moe: { router: { name: 'smoe', bias: true } } } }),
      axes: {
        ...sweep.axes,
        'training.schedule.learningRate': [0.1, 0.01],
        size: { variants: { small: {}, large: { model: { layers: 3 }, training: { steps: 5 } } } },
      },
      notes: {},
    });
    expect(wide.variants).toEqual(
      ['smoe', 'sigmoid'].flatMap((router) =>
        ['learningRate-0.1', 'learningRate-0.01'].flatMap((rate) =>
          ['small', 'large'].map((size) => `${router}_${rate}_${size}`),
        ),
      ),
    );
    expect(wide.runs).toHaveLength(16);
    const last = wide.runs.at(-1)!;
    expect(last).toMatchObject({ folder: 'sigmoid_learningRate-0.01_large/2', seed: 2 });
    expect(last.recipe).toMatchObject({
      seed: 2,
      model: { layers: 3, moe: { router: { name: 'sigmoid' } } },
      training: { steps: 5, schedule: { learningRate: 0.01 } },
    });
    expect((last.recipe as Recipe).model?.moe?.router).not.toHaveProperty('bias');
  });

  it('seeds upcycled routers with the run', () => {
    const { model: _, tokenizer: __, ...rest } = base;
    const start = { checkpoint: 'dense', upcycle: { experts: 4, topK: 2 } };
    const { runs } = loadSweep({ ...sweep, base: { ...rest, start } });
    expect(
      runs.map(({ recipe }) => {
        const { seed, start: s } = recipe as Recipe;
        return [s?.upcycle?.router, seed, s?.upcycle?.seed];
      }),
    ).toEqual([
      [{ name: 'smoe' }, 1, 1],
      [{ name: 'smoe' }, 2, 2],
      [{ name: 'sigmoid' }, 1, 1],
      [{ name: 'sigmoid' }, 2, 2],
    ]);
  });

  const refused: [string, object, RegExp][] = [
    ['unknown keys', { axis: {} }, /unknown key "axis", did you mean "axes"/],
    ['unknown keys of what is compared', { compare: { baselin: 'x' } }, /"compare.baselin".*"baseline"/],
    ['an unknown baseline', { compare: { baseline: 'smo' } }, /there is no "smo", did you mean "smoe"/],
    ['an unknown task', { compare: { task: 'sam' } }, /there is no "sam", did you mean "same"/],
    [
      'a wrong recipe',
      { axes: { seed: [1], 'training.step': [3] } },
      /step-3\/1: unknown key "training.step"/,
    ],
    ['values without names', { axes: { router: [{ bias: true }] }, notes: {} }, /has no name.*variants/],
    ['no variants', { axes: { router: { variants: {} } }, notes: {} }, /axes\.router.*at least one variant/],
    ['a name that is no folder', { name: '..' }, /name: .*neither dot nor dash first/],
    [
      'a variant that leaves the folder',
      { axes: { x: { variants: { '..': {} } } }, notes: {} },
      /"\.\." cannot name/,
    ],
    ['one name twice', { axes: { router: ['smoe', { name: 'smoe' }] }, notes: {} }, /two values.*"smoe"/],
    [
      'two variants of one folder',
      {
        axes: {
          first: { variants: { a: {}, a_b: { training: { steps: 5 } } } },
          second: { variants: { b_c: {}, c: { training: { steps: 6 } } } },
        },
      },
      /two variants are called "a_b_c".*joined by "_"/,
    ],
  ];
  it.each(refused)('is refused with %s', (_, changes, message) => {
    expect(() => loadSweep({ ...sweep, notes: {}, ...changes } as SweepInput)).toThrow(message);
  });

  const committed = path.join(packageRoot, 'recipes', 'sweeps');
  it.each(readdirSync(committed))('%s is valid', (name) => {
    loadSweep(path.join(committed, name));
    loadSweep(path.join(committed, name), { smoke: true });
  });

  it('stories260k-routers.yaml has every router', () => {
    const { variants } = loadSweep(path.join(committed, 'stories260k-routers.yaml'));
    expect(variants.toSorted()).toEqual(routerNames());
  });
});

describe('the table of a sweep over upcycled models', () => {
  it('says which variants do not start as the dense model, and why', () => {
    const file = path.join(packageRoot, 'recipes', 'sweeps', 'stories260k-routers.yaml');
    const found = sweepResults(loadSweep(file), [], folder);
    const why = new Map(found.variants.map(({ variant, unlikeDense }) => [variant, unlikeDense]));
    for (const variant of ['smoe', 'sigmoid', 'shared-v2', 'shared-v3', 'hash', 'random', 'dense'])
      expect(why.get(variant)).toBeUndefined();
    expect(why.get('remoe')).toEqual([expect.stringMatching(/router remoe: .*relu/)]);
    for (const variant of ['switch', 'moe++', 'tc-moe', 'expert-choice'])
      expect(why.get(variant)).toHaveLength(1);
    expect(sweepTable(found, ['finalLoss'])).toMatch(/\* \[\d\] remoe: does not start as the dense model: /);
  });
});

describe('the tests of a sweep', () => {
  it('are corrected for their number by the method of Holm', () => {
    const variants = { base: {}, a: {}, b: {}, c: {} };
    const few = loadSweep({ name: 'few', base, axes: { kind: { variants }, seed: [1, 2, 3] } });
    const off: Record<string, number[]> = {
      base: [0, 0, 0],
      a: [1, 1.01, 1.02],
      b: [1, 1.2, 1.1],
      c: [1, -1, 0.2],
    };
    const outcomes = few.runs.map(({ variant, seed, folder: run }) => ({
      variant,
      seed,
      folder: run,
      status: 'done' as const,
      metrics: { finalLoss: 3 + off[variant]![seed - 1]! },
    }));
    const found = sweepResults(few, outcomes as unknown as SweepOutcome[], folder);
    const of = (name: string) => found.variants.find(({ variant }) => variant === name)!;
    const p = (name: string) => of(name).test!.p;
    expect(p('a')).toBeLessThan(p('b'));
    expect(p('b')).toBeLessThan(p('c'));
    expect(of('base').holm).toBeUndefined();
    expect(of('a').holm).toBeCloseTo(3 * p('a'), 12);
    expect(of('b').holm).toBeCloseTo(2 * p('b'), 12);
    expect(of('c').holm).toBeCloseTo(p('c'), 12);
  });
});

describe('a sweep', () => {
  const lossOf = (out: string, run: string, evaluation: string): number => {
    const samples = readJournal(place(out, run, 'eval', evaluation, 'samples_same.jsonl')) as unknown as {
      libmoe: { sums: number[]; tokens: number[] };
    }[];
    const sum = (of: (sample: (typeof samples)[number]) => number) =>
      samples.reduce((total, sample) => total + of(sample), 0);
    return -sum(({ libmoe }) => libmoe.sums[0]!) / sum(({ libmoe }) => libmoe.tokens[0]!);
  };

  it('runs everything and gives means, intervals and paired tests, best first', async () => {
    const { results: found, table, stopped } = await go('whole');
    expect(stopped).toBe(false);
    expect(found.runs.map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined]);
    expect(found.runs.map(({ folder: run, status }) => `${run} ${status}`)).toEqual([
      'smoe/1 done',
      'smoe/2 done',
      'sigmoid/1 done',
      'sigmoid/2 done',
    ]);
    const losses = (variant: string, evaluation: string) =>
      [1, 2].map((seed) => lossOf('whole', `${variant}/${seed}`, evaluation));
    for (const { variant, metrics, runs } of found.variants) {
      const [a, b] = losses(variant, 'final') as [number, number];
      expect(runs).toBe(2);
      expect(metrics.finalLoss?.value).toBeCloseTo((a + b) / 2, 12);
      // For two values the standard error is half of their distance.
      const half = (studentQuantile(0.95, 1) * Math.abs(a - b)) / 2;
      expect(metrics.finalLoss!.high - metrics.finalLoss!.value).toBeCloseTo(half, 9);
      expect(metrics.initialLoss?.value).toBeCloseTo(losses(variant, '0').reduce((x, y) => x + y, 0) / 2, 12);
      expect(metrics.finalLoss!.value).toBeLessThan(metrics.initialLoss!.value);
      expect(metrics).toMatchObject({ dropped: { value: 0 }, parameters: { value: expect.any(Number) } });
      expect(metrics.loadEntropy!.value).toBeGreaterThan(0.3);
    }
    expect(found.variants[0]!.metrics.finalLoss!.value).toBeLessThan(
      found.variants[1]!.metrics.finalLoss!.value,
    );
    const [own, other] = [losses('sigmoid', 'final'), losses('smoe', 'final')];
    const { test, documents, note } = found.variants.find(({ variant }) => variant === 'sigmoid')!;
    expect(test).toMatchObject({ pairs: 2 });
    expect(test!.difference.value).toBeCloseTo((own[0]! - other[0]! + own[1]! - other[1]!) / 2, 12);
    expect(documents).toMatchObject({ metric: 'bits_per_byte', documents: 20 });
    expect(note).toBe('no softmax');
    expect(table).toMatch(
      /\| p \| p \(Holm\) \|.*p is of each test alone, p \(Holm\) allows for all 1 of them/s,
    );
    expect(found.variants.find(({ variant }) => variant === 'smoe')).not.toHaveProperty('test');
    expect(table).toMatch(/^\| variant \| runs \| loss at step 0 \| loss at the end \|/);
    expect(table).toContain('| sigmoid [1] | 2 |');
    expect(readFileSync(place('whole', 'results.md'), 'utf8')).toBe(table);
    expect(readFileSync(place('whole', 'results.svg'), 'utf8')).toMatch(/^<svg xmlns=/);
  });

  it('trains the tokenizer and prepares the data once', async () => {
    const lines: string[] = [];
    await go('shared', sweep, { log: (line) => lines.push(line) });
    expect(lines.filter((line) => line.startsWith('training a tokenizer'))).toHaveLength(1);
    expect(
      readdirSync(place('shared', 'cache')).filter((name) => !name.startsWith('tokenizer')),
    ).toHaveLength(1);
    expect(results('shared')).toEqual(results('whole'));
  });

  it('does finished runs not again, and those whose recipe has changed anew', async () => {
    const before = traces(place('whole', 'smoe'));
    const lines: string[] = [];
    const log = (line: string) => lines.push(line);
    await go('whole', sweep, { log });
    expect(lines).toEqual(['tiny: 4 runs, 4 of them done']);
    expect(traces(place('whole', 'smoe'))).toEqual(before);
    // How and where it is computed does not matter; the router's options do.
    const changed = merged(sweep as Record<string, unknown>, {
      base: { data: { workers: 1 }, training: { checkpointEvery: 3 } },
      axes: { router: ['smoe', { name: 'sigmoid', balanceCoefficient: 0.5 }] },
    }) as SweepInput;
    const planned = await plannedRuns(changed, { out: place('whole') });
    expect(planned.map(({ status }) => status)).toEqual(['done', 'done', 'waiting', 'waiting']);
    const { results: found } = await go('whole', changed, { log });
    expect(found.runs.every(({ status }) => status === 'done')).toBe(true);
    expect(traces(place('whole', 'smoe'))).toEqual(before);
    expect(existsSync(place('whole', 'sigmoid', '1.replaced-1', 'summary.json'))).toBe(true);
  });

  it('starts all rows from the same weights: anew when a run folder was trained on, or its weights replaced', async () => {
    const dense = place('dense');
    const train = (steps: number, seed: number) =>
      runRecipe(
        merged(base, { name: 'dense', seed, training: { steps } }) as RecipeInput,
        {},
        { out: dense, resume: true, status: null },
      );
    await train(2, 1);
    const { model: _, tokenizer: __, ...rest } = base;
    const grown: SweepInput = {
      name: 'grown',
      base: { ...rest, start: { checkpoint: dense } },
      axes: { 'training.clipNorm': [1, 2] },
    };
    const statuses = async () =>
      (await plannedRuns(grown, { out: place('grown') })).map(({ status }) => status);
    await go('grown', grown, { only: ['clipNorm-1'] });
    expect(await statuses()).toEqual(['done', 'waiting']);
    await train(4, 1);
    expect(await statuses()).toEqual(['waiting', 'waiting']);
    const { results: found } = await go('grown', grown);
    const starts = found.runs.map(
      ({ folder: run }) => loadRecipe(place('grown', run, 'recipe.yaml')).start?.checkpoint,
    );
    expect(starts).toEqual(Array(2).fill(path.join(dense, 'checkpoints', 'step-000004')));
    expect(existsSync(place('grown', 'clipNorm-1', '42.replaced-1', 'summary.json'))).toBe(true);
    expect(await statuses()).toEqual(['done', 'done']);
    // The same step of the same folder, but other weights.
    rmSync(dense, { recursive: true });
    await train(4, 2);
    expect(await statuses()).toEqual(['waiting', 'waiting']);
    // What is done needs its start no more.
    await go('grown', grown);
    rmSync(dense, { recursive: true });
    expect(await statuses()).toEqual(['done', 'done']);
  });

  it('goes on after an interrupt to the same results', async () => {
    for (const at of [1, 2]) {
      const controller = new AbortController();
      const { stopped, results: partial } = await go('stopped', sweep, {
        signal: controller.signal,
        onStep: ({ step }, run) => run.seed === at && step === 1 + at && controller.abort(),
      });
      expect(stopped).toBe(true);
      expect(partial.runs.some(({ status }) => status === 'waiting')).toBe(true);
    }
    expect((await go('stopped')).stopped).toBe(false);
    expect(results('stopped')).toEqual(results('shared'));
  });

  it('records a run that fails and goes on with the others', async () => {
    const failing: SweepInput = {
      ...sweep,
      axes: {
        texts: { variants: { missing: { data: { train: { files: place('absent.txt') } } }, there: {} } },
        seed: [1],
      },
      notes: {},
      checkpoints: 'none',
    };
    const { results: found, table } = await go('failing', failing);
    expect(found.runs).toMatchObject([
      { variant: 'missing', status: 'failed', error: expect.stringMatching(/^ERR_LIBMOE_FILE.*absent\.txt/) },
      { variant: 'there', status: 'done' },
    ]);
    expect(table).toContain('* failed: missing/1: ERR_LIBMOE_FILE');
    expect(existsSync(place('failing', 'there', '1', 'checkpoints'))).toBe(false);
    // A finished run needs its checkpoint no more; a failed one is tried again.
    const planned = await plannedRuns(failing, { out: place('failing') });
    expect(planned.map(({ status }) => status)).toEqual(['failed', 'done']);
    const lines: string[] = [];
    await go('failing', failing, { log: (line) => lines.push(line) });
    expect(lines.filter((line) => line.startsWith('──'))).toEqual(['── run 1 of 1: missing, seed 1']);
  });

  it('is divided among processes, and all see the results of all', async () => {
    const half = (number: number) => go('parts', sweep, { part: [number, 2] });
    expect((await half(1)).results.runs.map(({ status }) => status)).toEqual([
      'done',
      'waiting',
      'done',
      'waiting',
    ]);
    await half(2);
    expect(results('parts')).toEqual(results('shared'));
    await expect(go('parts', sweep, { only: ['sigmod'] })).rejects.toThrow(
      /"sigmod", did you mean "sigmoid"/,
    );
  });

  it('shares a tokenizer whole or not at all, and keeps the copy of whoever was first', () => {
    const [from, to] = [place('copy', 'from'), place('copy', 'to')];
    mkdirSync(from, { recursive: true });
    writeFileSync(path.join(from, 'a'), 'mine');
    const failing = (_: string, temporary: string): void => {
      mkdirSync(temporary);
      writeFileSync(path.join(temporary, 'a'), 'mi');
      expect(existsSync(to)).toBe(false);
      throw new Error('killed');
    };
    expect(() => copyFolder(from, to, failing)).toThrow('killed');
    copyFolder(from, to, (source, temporary) => {
      cpSync(source, temporary, { recursive: true });
      mkdirSync(to);
      writeFileSync(path.join(to, 'a'), 'theirs');
    });
    expect(readFileSync(path.join(to, 'a'), 'utf8')).toBe('theirs');
    rmSync(to, { recursive: true });
    copyFolder(from, to);
    expect(readFileSync(path.join(to, 'a'), 'utf8')).toBe('mine');
    expect(readdirSync(place('copy')).sort()).toEqual(['from', 'to']);
  });
});
