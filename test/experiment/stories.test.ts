import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadTokenizer, type Tokenizer } from '../../ts/data/index.ts';
import { evaluate, languageAdapter, type Task } from '../../ts/evaluation/index.ts';
import { tasksOf } from '../../ts/experiment/evaluation.ts';
import { loadSweep, type Recipe, type SweepRun } from '../../ts/experiment/index.ts';
import { type LanguageModel, loadModel } from '../../ts/models/language/index.ts';
import { packageRoot } from '../../ts/native/index.ts';
import { readJournal } from '../../ts/storage/index.ts';
import { setThreads } from '../../ts/tensor/index.ts';
import { upcycleWithReport } from '../../ts/upcycling/index.ts';
import { developmentData } from '../development-data.ts';

const data = developmentData('weights/llama2c/stories260K.bin');
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-stories-'));
afterAll(() => rmSync(folder, { recursive: true }));
setThreads(1);

const texts = path.join(data ?? '', 'corpora/tinystories/tinystories_val_head.txt');
const { runs } = loadSweep(path.join(packageRoot, 'recipes/sweeps/stories260k-routers.yaml'), {
  changes: { data: { heldOut: { stories: { files: texts } } } },
});
const golden = () =>
  JSON.parse(readFileSync(path.join(data!, 'weights/llama2c/golden_f64.json'), 'utf8')).tinystories as {
    n_stories: number;
    tokens: number;
    per_story: [tokens: number, loss: number][];
  };

describe.skipIf(data === undefined)('the published stories', () => {
  let tokenizer: Tokenizer;
  let stories: Task;
  let dense: LanguageModel;
  beforeAll(async () => {
    tokenizer = loadTokenizer(path.join(data!, 'weights/llama2c/tok512.bin'));
    stories = (await tasksOf(runs[0]!.recipe as Recipe, tokenizer))[0] as Task;
    dense = await loadModel(path.join(data!, 'weights/llama2c/stories260K.bin'));
  });
  afterAll(() => dense.dispose());

  /** Tokens and loss of each story, of the first `limit`. */
  async function losses(model: LanguageModel, name: string, limit?: number): Promise<[number, number][]> {
    const out = path.join(folder, name);
    const steps = evaluate(languageAdapter(model, { tokenizer }), {
      tasks: [stories],
      out,
      ...(limit && { limit }),
    });
    while (!(await steps.next()).done);
    const samples = readJournal(path.join(out, 'samples_stories.jsonl')) as unknown as {
      libmoe: { tokens: [number]; sums: [number] };
    }[];
    return samples.map(({ libmoe }) => [libmoe.tokens[0], -libmoe.sums[0]]);
  }
  const mean = (each: readonly [number, number][]): number =>
    each.reduce((sum, [, loss]) => sum + loss, 0) / each.reduce((sum, [tokens]) => sum + tokens, 0);

  it('are those of the float64 reference, each with its loss', async () => {
    const { n_stories, tokens, per_story } = golden();
    const found = await losses(dense, 'dense');
    expect(found.map(([count]) => count)).toEqual(per_story.map(([count]) => count));
    expect(found).toHaveLength(n_stories);
    expect(found.reduce((sum, [count]) => sum + count, 0)).toBe(tokens);
    for (const [i, [count, loss]] of found.entries())
      expect(Math.abs(loss - per_story[i]![1]) / count).toBeLessThan(1e-5);
    expect(mean(found)).toBeCloseTo(1.3008, 4);
  }, 240_000);

  const first = runs.filter(({ seed }) => seed === 1).map((run): [string, SweepRun] => [run.variant, run]);
  it.each(first)(
    'have at step 0 the dense loss with %s, or upcycling says why not',
    async (variant, { recipe }) => {
      const { model, report } = upcycleWithReport(dense, (recipe as Recipe).start!.upcycle!);
      try {
        const limit = 4;
        const difference =
          mean(await losses(model, variant, limit)) - mean(golden().per_story.slice(0, limit));
        if (report.unlikeDense.length === 0) expect(Math.abs(difference)).toBeLessThan(1e-3);
        // Of TC-MoE's weights only the null experts' share is missing, e⁻¹⁰ of it at the start.
        else if (variant === 'tc-moe') expect(Math.abs(difference)).toBeLessThan(1e-3);
        else expect(difference).toBeGreaterThan(0.1);
      } finally {
        model.dispose();
      }
    },
    240_000,
  );
});
