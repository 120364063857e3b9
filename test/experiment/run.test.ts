import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import {
  loadRecipe,
  merged,
  type RecipeInput,
  type RunOptions,
  type RunResult,
  runRecipe,
} from '../../ts/experiment/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { RecordReader, readJournal } from '../../ts/storage/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { tinyCorpus, tinyRecipe, traces } from './tiny.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-run-'));
afterAll(() => rmSync(folder, { recursive: true }));
setThreads(1); // fastest at this size, above all on a busy machine
const corpus = tinyCorpus(folder);
const base = tinyRecipe(corpus);
const place = (name: string): string => path.join(folder, name);
const changed = (changes: Record<string, unknown>): RecipeInput =>
  merged(base as Record<string, unknown>, changes) as RecipeInput;
const go = (
  out: string,
  changes: Record<string, unknown> = {},
  options: RunOptions = {},
): Promise<RunResult> => runRecipe(base, changes, { out: place(out), status: null, ...options });
const file = (...parts: string[]): string => readFileSync(place(path.join(...parts)), 'utf8');
const json = (...parts: string[]) => JSON.parse(file(...parts));
const losses = (out: string) => readJournal(place(path.join(out, 'metrics.jsonl'))).map(({ loss }) => loss);
const failure = async (action: () => Promise<unknown>): Promise<string> => {
  try {
    await action();
  } catch (error) {
    return `${codeOf(error)} | ${(error as Error).message}`;
  }
  return 'no error';
};

/** Stops a run after some steps. */
const stopAfter = (steps: number): RunOptions => {
  const controller = new AbortController();
  return { signal: controller.signal, onStep: ({ step }) => step === steps && controller.abort() };
};

let whole: RunResult;
beforeAll(async () => {
  whole = await go('whole', {}, { command: ['train', 'x'] });
});

describe('a run folder', () => {
  it('has what was promised', () => {
    expect(whole.training).toMatchObject({ step: 6, completed: true });
    expect(losses('whole')).toHaveLength(6);
    expect(Object.keys(whole.evaluation!.results)).toEqual(['same']);
    expect(json('whole', 'environment.json')).toMatchObject({
      device: 'cpu',
      seed: 42,
      command: ['train', 'x'],
    });
    expect(existsSync(place('whole/routing'))).toBe(false);
  });

  it('keeps a recipe with every default written out, those of model and router too', () => {
    const { model } = parse(file('whole', 'recipe.yaml')) as { model: Record<string, unknown> };
    expect(model).toMatchObject({
      vocabularySize: 60,
      headDim: 8,
      keyValueHeads: 2,
      moe: { router: { name: 'smoe', flavour: 'language', balanceCoefficient: 0.01 } },
    });
  });

  it('is repeated by its own recipe, in a fresh folder beside it', async () => {
    const again = await runRecipe(place('whole/recipe.yaml'), {}, { status: null });
    expect(again.out).toBe(place('whole-2'));
    expect(losses('whole-2')).toEqual(losses('whole'));
    expect(file('whole-2', 'recipe.yaml')).toBe(file('whole', 'recipe.yaml'));
    const third = await runRecipe(place('whole/recipe.yaml'), { training: { steps: 1 } }, { status: null });
    expect(third.out).toBe(place('whole-3'));
    const resumed = await runRecipe(place('whole/recipe.yaml'), {}, { status: null, resume: true });
    expect(resumed.out).toBe(place('whole'));
  });

  it('does not take the place of a recipe that somebody wrote there', async () => {
    mkdirSync(place('mine'));
    writeFileSync(place('mine/recipe.yaml'), 'name: mine\n');
    expect(await failure(() => go('mine'))).toMatch(/^ERR_LIBMOE_STATE .*not written by a run/);
    expect(file('mine', 'recipe.yaml')).toBe('name: mine\n');
  });
});

describe('runRecipe(recipe, overrides, options)', () => {
  it('lays overrides over the recipe and refuses unknown keys of both', async () => {
    const { training } = await go('short', { training: { steps: 2 } });
    expect(training.step).toBe(2);
    expect(await failure(() => go('none', { changes: { training: { steps: 2 } } }))).toMatch(
      /^ERR_LIBMOE_RECIPE .*unknown key "changes"/,
    );
    expect(await failure(() => go('none', {}, { resumes: true } as RunOptions))).toMatch(
      /^ERR_LIBMOE_ARGUMENT .*"resumes", did you mean "resume"/,
    );
    expect(existsSync(place('none'))).toBe(false);
  });
});

describe('resume', () => {
  beforeAll(async () => {
    await go('stopped', {}, { ...stopAfter(3), command: ['first'] });
  });

  it('refuses the run of another recipe, names what differs, and touches nothing', async () => {
    const before = traces(folder);
    const wrong = {
      seed: 1,
      data: { sequenceLength: 8 },
      tokenizer: { train: { vocabularySize: 61 } },
      model: { moe: { router: { name: 'smoe', balanceCoefficient: 0.5 } } },
    };
    const message = await failure(() => go('stopped', wrong, { resume: true }));
    expect(message).toMatch(/^ERR_LIBMOE_STATE .*the run of another recipe/);
    expect(message).toContain('seed was 42, is 1');
    expect(message).toContain('data.sequenceLength was 16, is 8');
    expect(message).toContain('tokenizer.train.vocabularySize was 60, is 61');
    expect(message).toContain('model.moe.router.balanceCoefficient was 0.01, is 0.5');
    expect(await failure(() => go('stopped'))).toMatch(/^ERR_LIBMOE_STATE .*holds a run already/);
    expect(traces(folder)).toEqual(before);
  });

  it('refuses a folder whose run never came to a checkpoint before anything is done', async () => {
    mkdirSync(place('early'));
    writeFileSync(place('early/recipe.yaml'), file('stopped', 'recipe.yaml'));
    writeFileSync(place('early/metrics.jsonl'), '{"step":1,"loss":1}\n');
    const before = traces(folder);
    expect(await failure(() => go('early'))).toMatch(/^ERR_LIBMOE_STATE .*metrics\.jsonl/);
    expect(await failure(() => go('early', { seed: 1 }, { resume: true }))).toMatch(/seed was 42/);
    expect(traces(folder)).toEqual(before);
    await go('early', {}, { resume: true });
    expect(losses('early')).toEqual(losses('whole'));
  });

  it('goes on with other threads, logs and evaluations, keeps the beginning of the story, counts all seconds', async () => {
    const first = json('stopped', 'environment.json');
    const changes = {
      name: 'renamed',
      data: { workers: 1 },
      training: { checkpointEvery: 2, activationCheckpointing: true },
      evaluation: { maxCharacters: 30 },
    };
    const { seconds, training } = await go('stopped', changes, { resume: true, command: ['second'] });
    expect(training).toMatchObject({ step: 6, completed: true });
    expect(losses('stopped')).toEqual(losses('whole'));
    const steps = readJournal(place('stopped/metrics.jsonl')).map((line) => Number(line.seconds));
    expect(seconds).toBeCloseTo(
      steps.reduce((a, b) => a + b, 0),
      9,
    );
    const environment = json('stopped', 'environment.json');
    expect(environment).toMatchObject({ ...first, command: ['first'] });
    expect(environment.resumes).toMatchObject([{ step: 3, command: ['second'], device: 'cpu' }]);
    // Nothing left to train: the seconds stay.
    const again = await go('stopped', changes, { resume: true });
    expect(again.seconds).toBe(seconds);
    expect(json('stopped', 'summary.json').seconds).toBe(Number(seconds.toFixed(3)));
    expect(json('stopped', 'environment.json').resumes).toHaveLength(2);
  });

  it('changes nothing when the checkpoint cannot be read', async () => {
    await go('broken', {}, stopAfter(3));
    writeFileSync(place('broken/checkpoints/step-000003/loader.json'), '{}');
    const before = traces(place('broken'));
    expect(
      await failure(() => go('broken', { evaluation: { maxCharacters: 20 } }, { resume: true })),
    ).toMatch(/^ERR_LIBMOE_CHECKPOINT/);
    expect(traces(place('broken'))).toEqual(before);
  });

  it('changes nothing when the place in the data is lost', async () => {
    const texts = place('texts.txt');
    copyFileSync(corpus, texts);
    const changes = { data: { train: { files: texts } } };
    await go('lost', changes, stopAfter(3));
    const before = traces(place('lost'));
    appendFileSync(texts, '\n\nand more');
    const more = { ...changes, evaluation: { maxCharacters: 20 } };
    expect(await failure(() => go('lost', more, { resume: true }))).toMatch(
      /^ERR_LIBMOE_STATE .*not one of this loader/,
    );
    expect(traces(place('lost'))).toEqual(before);
  });

  it('needs the checkpoint that it started from no more', async () => {
    const { tokenizer: _, model: __, ...rest } = base;
    const start = {
      checkpoint: place('dense'),
      upcycle: { experts: 4, topK: 2, router: 'smoe' },
    };
    const upcycled = (out: string, options: RunOptions = {}) =>
      runRecipe({ ...rest, start }, {}, { out: place(out), status: null, ...options });
    await go('dense', {
      model: { moe: undefined, feedForward: { hidden: 16 } },
      training: { steps: 2 },
    });
    await upcycled('upcycled');
    await upcycled('upcycled-stopped', stopAfter(2));
    const stored = loadRecipe(place('upcycled-stopped/recipe.yaml'));
    expect(stored.start).toMatchObject({
      checkpoint: place('dense/checkpoints/step-000002'),
      upcycle: { router: { name: 'smoe', balanceCoefficient: 0.01 } },
    });
    renameSync(place('dense'), place('moved'));
    await upcycled('upcycled-stopped', { resume: true });
    expect(losses('upcycled-stopped')).toEqual(losses('upcycled'));
    expect(loadRecipe(place('upcycled-stopped/recipe.yaml'))).toEqual(stored);
  });
});

describe('preparation', () => {
  it('trains the tokenizer again when recipe or texts say something else, and only then', async () => {
    const out = 'tokenizers';
    const prepare = async (changes: Record<string, unknown>): Promise<string[]> => {
      const lines: string[] = [];
      await go(out, changes, { log: (line) => lines.push(line) });
      // As if it had been killed before its first checkpoint.
      rmSync(place(`${out}/checkpoints`), { recursive: true });
      rmSync(place(`${out}/metrics.jsonl`));
      return lines.filter((line) => line.startsWith('training a tokenizer'));
    };
    const other = place('other.txt');
    copyFileSync(corpus, other);
    const short = { training: { steps: 1 }, data: { heldOut: {}, train: { files: other } } };
    expect(await prepare(short)).toHaveLength(1);
    expect(await prepare(short)).toHaveLength(0);
    expect(await prepare({ ...short, tokenizer: { train: { vocabularySize: 56 } } })).toEqual([
      'training a tokenizer of 56 ids …',
    ]);
    expect(Object.keys(json(out, 'tokenizer', 'tokenizer.json').model.vocab)).toHaveLength(56);
    // Other texts under the same name.
    appendFileSync(other, '\n\nmore words');
    expect(await prepare({ ...short, tokenizer: { train: { vocabularySize: 56 } } })).toHaveLength(1);
  });

  it('stops at a signal and leaves nothing behind', async () => {
    expect(await failure(() => go('never', {}, { signal: AbortSignal.abort() }))).toMatch(
      /^ERR_LIBMOE_STOPPED .*while training a tokenizer/,
    );
    expect(existsSync(place('never'))).toBe(false);
  });

  it('can put BOS between documents', async () => {
    await go('between', {
      data: { separator: 'bos', splitAtDocuments: false, cache: place('cache-between'), heldOut: {} },
      training: { steps: 1 },
    });
    const [cache] = readdirSync(place('cache-between'));
    const tokenizer = json('between', 'tokenizer', 'tokenizer.json').model.vocab;
    expect(json('cache-between', cache!, 'manifest.json').separator).toEqual({ id: tokenizer['<s>'] });
  });

  it("follows the original's order, token limit and separator when the recipe says so", async () => {
    const original = {
      tokenizer: { train: { vocabularySize: 70, sentences: 'texts', maxSentenceBytes: 4192 } },
      data: {
        order: 'libmoe',
        compat: 'libmoe',
        tokenLimit: 1000,
        separator: { text: '<STORY_SEP>' },
        shardCharacters: 2000,
        cache: place('cache-original'),
        heldOut: {},
      },
      training: { steps: 2 },
    };
    await go('original', original);
    const loader = json('original', 'checkpoints', 'step-000002', 'loader.json');
    expect(loader.fingerprint).toMatch(/^libmoe-order\/[0-9a-f]+\/16\/4\/1000\/libmoe$/);
    expect(json('original', 'tokenizer', 'tokenizer.json').model.vocab).toHaveProperty('S');
    const [cache] = readdirSync(place('cache-original'));
    const manifest = json('cache-original', cache!, 'manifest.json');
    expect(manifest).toMatchObject({ separator: { text: '<STORY_SEP>' }, shardCharacters: 2000 });
    expect(() => loadRecipe(changed({ data: { compat: 'libmoe' } }))).toThrow(/belong to "order: libmoe"/);
  });
});

describe('held-out texts', () => {
  it('can be selected, cut at a token, and evaluated before the first step', async () => {
    const select = { minCharacters: 60, maxCharacters: 157, skip: 3, first: 5 };
    await go('selected', {
      data: { heldOut: { same: { textDocuments: 'blocks', select } } },
      evaluation: { maxCharacters: null, maxTokens: 7 },
      training: { steps: 2, evaluateFirst: true },
    });
    const fitting = readFileSync(corpus, 'utf8')
      .split('\n\n')
      .filter(({ length }) => length >= 60 && length <= 157);
    const samples = (evaluation: string) =>
      readJournal(place(`selected/eval/${evaluation}/samples_same.jsonl`)) as unknown as {
        doc: { text: string };
        libmoe: { tokens: number[]; sums: number[] };
      }[];
    for (const [i, { doc, libmoe }] of samples('final').entries()) {
      expect(fitting[3 + i]!.startsWith(doc.text)).toBe(true);
      expect(libmoe.tokens).toEqual([7]);
    }
    expect(samples('final')).toHaveLength(5);
    expect(samples('0').map(({ doc }) => doc)).toEqual(samples('final').map(({ doc }) => doc));
    expect(samples('0').map(({ libmoe }) => libmoe.sums)).not.toEqual(
      samples('final').map(({ libmoe }) => libmoe.sums),
    );
  });

  it('may be cut by a regular expression, which must be one', () => {
    const files = (begin: string) => () =>
      loadRecipe(base, { data: { train: { files: 'a.txt', textDocuments: { begin } } } });
    expect(files('^(Once')).toThrow(/data\.train.*regular expression, got "\^\(Once"/);
    files('^Once')();
  });
});

describe('logging.routing', () => {
  const routing = { every: 2, tokens: 40 };

  it('keeps what the routers do with the same tokens; training takes no notice', async () => {
    await go('recorded', { logging: { routing } });
    expect(losses('recorded')).toEqual(losses('whole'));
    using reader = new RecordReader(place('recorded/routing/tokens.records'));
    const blocks = [...reader.blocks()];
    expect(blocks.map(({ attributes: { step, layer } }) => `${step} ${layer}`)).toEqual(
      [0, 2, 4, 6].flatMap((step) => [`${step} 0`, `${step} 1`]),
    );
    const tokens = Array.from(reader.column(blocks[0]!, 'token'));
    expect(tokens).toHaveLength(40);
    for (const block of blocks) {
      reader.verify(block);
      expect(block.attributes.texts).toBe('same');
      expect(Array.from(reader.column(block, 'token'))).toEqual(tokens);
      const experts = reader.column(block, 'experts');
      const weights = reader.column(block, 'weights');
      const probabilities = reader.column(block, 'probabilities');
      expect([experts.length, weights.length, probabilities.length]).toEqual([80, 80, 160]);
      for (let t = 0; t < 40; t++) {
        const [first, second] = [experts[2 * t]!, experts[2 * t + 1]!];
        const row = Array.from(probabilities.subarray(4 * t, 4 * t + 4));
        expect(row[first]).toBe(Math.max(...row));
        expect(row[second]).toBe(row.toSorted((a, b) => b - a)[1]);
        expect(weights[2 * t]! + weights[2 * t + 1]!).toBeCloseTo(1, 5);
        expect(weights[2 * t]!).toBeCloseTo(row[first]! / (row[first]! + row[second]!), 5);
      }
    }
  });

  it('is the same after a stop, and may begin with a resume', async () => {
    await go('recorded-stopped', { logging: { routing } }, stopAfter(5));
    await go('recorded-stopped', { logging: { routing } }, { resume: true });
    const bytes = (out: string) => readFileSync(place(`${out}/routing/tokens.records`)).toString('hex');
    expect(bytes('recorded-stopped')).toBe(bytes('recorded'));
    await go('recorded-later', {}, stopAfter(3));
    await go('recorded-later', { logging: { routing } }, { resume: true });
    using reader = new RecordReader(place('recorded-later/routing/tokens.records'));
    expect([...new Set([...reader.blocks()].map(({ attributes }) => attributes.step))]).toEqual([4, 6]);
  });
});
