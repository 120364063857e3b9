import path from 'node:path';
import { report } from '../report/index.ts';
import { beginDemo, type DemoOptions } from './demo-runs.ts';
import { headlines } from './evaluation.ts';

/** One of the three runs of the demo. */
export interface DemoRun {
  name: string;
  parameters: number;
  activeParameters: number;
  tokens: number;
  flops: number;
  seconds: number;
  /** On the held-out addresses. */
  bitsPerByte: number;
  /** Every evaluated task's headline number. */
  tasks: Record<string, number>;
}

/** What the demo found and where its report is. */
export interface DemoResult {
  seconds: number;
  report: string;
  runs: DemoRun[];
  /** Who won, by a paired bootstrap over documents. */
  verdicts: string[];
}

/**
 * The whole library in a few minutes: a tokenizer and a small dense language model from 200 years of State-of-the-Union addresses, sparse upcycling
 * into a mixture of experts, training of both for the same number of tokens, evaluation on held-out addresses, on the late years and on word-order
 * pairs, and a report. Stopped and called again it continues.
 * @throws ERR_LIBMOE_STATE when `out` holds a demo of another seed, size or version, ERR_LIBMOE_STOPPED when the signal was aborted
 */
export async function runDemo(options: DemoOptions = {}): Promise<DemoResult> {
  const started = performance.now();
  const { out, runs, go } = beginDemo('demo', options);
  const dense = await go('dense', 'dense', 'dense language model');
  const start = { checkpoint: dense.checkpoint };
  await go('upcycled', 'moe', 'the same, upcycled to a mixture of experts and trained on', { start });
  await go('continued', 'dense-continued', 'the same, trained on as it is, for as many tokens', { start });

  const file = path.join(out, 'report.html');
  const { verdicts } = await report(
    runs.map((run) => run.out),
    file,
    { title: 'libmoe demo: sparse upcycling of a small language model', compare: ['moe', 'dense-continued'] },
  );
  return {
    seconds: (performance.now() - started) / 1000,
    report: file,
    verdicts,
    runs: runs.map((run) => {
      const tasks = run.evaluation ? headlines(run.evaluation) : {};
      return {
        name: run.name,
        parameters: run.parameters,
        activeParameters: run.activeParameters,
        tokens: run.training.tokens,
        flops: run.flops ?? Number.NaN,
        seconds: run.seconds,
        bitsPerByte: tasks['held-out'] ?? Number.NaN,
        tasks,
      };
    }),
  };
}
