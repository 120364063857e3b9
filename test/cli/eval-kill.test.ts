import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as api from '../../ts/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-eval-kill-'));
const at = (...names: string[]) => path.join(folder, ...names);
afterAll(() => rmSync(folder, { recursive: true }));

const words = 'the cat sat on mat and dog ran to'.split(' ');
beforeAll(async () => {
  using model = new api.LanguageModel(
    {
      vocabularySize: 290,
      dModel: 16,
      layers: 2,
      heads: 2,
      feedForward: { hidden: 24 },
      moe: { experts: 4, topK: 2, layers: 'all', expert: { hidden: 16 } },
      maxPositions: 96,
      init: { std: 0.3 },
    },
    { seed: 2 },
  );
  await api.saveModel(model, at('model'), {
    extra: async (into) => void api.data.writeTokenizer(into, await smallTokenizer()),
  });
  const rows = Array.from({ length: 60 }, (_, i) => ({
    q: `${words[i % 9]} ${words[(i * i) % 9]} ${i}`,
    c: [words[(i + 1) % 9], words[(i + 3) % 9], words[(i + 5) % 9]],
    g: i % 3,
  }));
  writeFileSync(at('rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  const data = 'dataset_path: json\ndataset_kwargs: { data_files: rows.jsonl }\n';
  writeFileSync(
    at('choice.yaml'),
    `${data}output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: g\nnum_fewshot: 1\n`,
  );
  writeFileSync(
    at('written.yaml'),
    `${data}output_type: generate_until\ndoc_to_text: q\ndoc_to_target: "{{c[0]}}"\ngeneration_kwargs: { until: [cat], max_new_tokens: 6 }\n`,
  );
  writeFileSync(at('both.yaml'), 'group: both\ntask: [choice, written]\n');
}, 60_000);

const total = 60 * 3 + 60;
const command = (out: string) => [
  'eval',
  '--model',
  at('model'),
  '--tasks',
  at('both.yaml'),
  '--out',
  at(out),
  '--batch-size',
  '2',
  '--json',
];
// Fastest for such a small model, above all on a busy machine.
const env = { LIBMOE_THREADS: '1' };
const lines = (out: string): number =>
  existsSync(at(out))
    ? readdirSync(at(out))
        .filter((name) => name.startsWith('journal'))
        .reduce((sum, name) => sum + readFileSync(at(out, name), 'utf8').split('\n').length - 1, 0)
    : 0;

/** What a run leaves, without what tells one run from another. */
function left(out: string): unknown {
  const {
    date: _,
    total_evaluation_time_seconds: __,
    libmoe: block,
    ...rest
  } = JSON.parse(readFileSync(at(out, 'results.json'), 'utf8'));
  const { requests, ranks: ___, ...facts } = block;
  expect(requests.total).toBe(total);
  const samples = ['choice', 'written'].map((task) => readFileSync(at(out, `samples_${task}.jsonl`), 'utf8'));
  return { rest, facts, samples };
}

describe('an evaluation that is killed', () => {
  it('ten times, at any point, ends with the same results file and asks nothing twice', async () => {
    const whole = await libmoe(command('whole'), { env });
    expect(whole.code, whole.stderr).toBe(0);
    expect(lines('whole')).toBe(total);

    const random = new api.metrics.MersenneTwister(7);
    let killed = 0;
    for (let kill = 0; kill < 10; kill++) {
      const before = lines('killed');
      // The last of ten leaves something to do.
      const until =
        before + 1 + random.below(Math.max(1, Math.floor((2 * (total - before)) / (11 - kill)) - 2));
      const { signal } = await libmoe(command('killed'), {
        env,
        during: (child) => {
          const watch = setInterval(() => {
            if (lines('killed') < until) return;
            clearInterval(watch);
            child.kill('SIGKILL');
          }, 1);
          child.on('close', () => clearInterval(watch));
        },
      });
      if (signal === 'SIGKILL') killed += 1;
    }
    expect(killed).toBeGreaterThanOrEqual(8);
    const last = await libmoe(command('killed'), { env });
    expect(last.code, last.stderr).toBe(0);
    expect(left('killed')).toEqual(left('whole'));
    const keys = readFileSync(at('killed', 'journal.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).key as string);
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys).toHaveLength(total);
  }, 300_000);

  it('as one of two processes leaves the other to finish; a third command has nothing to do', async () => {
    const ranks = [0, 1].map((rank) =>
      libmoe(command('shared'), {
        env: { ...env, WORLD_SIZE: '2', RANK: String(rank), LOCAL_RANK: String(rank) },
        during: (child) => {
          if (rank === 0) return;
          const watch = setInterval(() => {
            if (!existsSync(at('shared', 'journal.1.jsonl')) || lines('shared') < 20) return;
            clearInterval(watch);
            child.kill('SIGKILL');
          }, 1);
          child.on('close', () => clearInterval(watch));
        },
      }),
    );
    const [first] = await Promise.all(ranks);
    expect(first!.code, first!.stderr).toBe(0);
    const before = left('shared');
    expect(before).toEqual(left('whole'));
    const again = await libmoe(command('shared'), { env });
    expect(JSON.parse(again.stdout).libmoe.requests).toEqual({ total, from_journal: total });
    expect(left('shared')).toEqual(before);
  }, 120_000);
});
