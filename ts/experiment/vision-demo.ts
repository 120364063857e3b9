import path from 'node:path';
import type { Results, Sample } from '../evaluation/index.ts';
import { report } from '../report/index.ts';
import { readJournal } from '../storage/index.ts';
import { recordCategoryRouting } from './category-routing.ts';
import { beginDemo, type DemoOptions } from './demo-runs.ts';
import { headlines } from './evaluation.ts';
import type { RunResult } from './run.ts';

/** One of the runs of the vision demo that are evaluated. */
export interface VisionDemoRun {
  name: string;
  parameters: number;
  activeParameters: number;
  seconds: number;
  /** Accuracy by task, on drawings of an artist whom training has not seen. */
  tasks: Record<string, number>;
  /** Their standard errors. */
  standardErrors: Record<string, number>;
  /** Of the yes/no questions, as POPE reports them (Li et al. 2023, arXiv 2305.10355); absent when none were asked. */
  yesNo?: { accuracy: number; precision: number; recall: number; f1: number; yesRatio: number };
}

/** What the vision demo found and where its report is. */
export interface VisionDemoResult {
  seconds: number;
  report: string;
  runs: VisionDemoRun[];
  /** The best that can be had without looking, by task: guessing, or always the most frequent answer. */
  chance: Record<string, number>;
}

/**
 * LLaVA-style training in small, on emoji that five artists have drawn (npm packages): a tower learns names with SigLIP's loss, a new language model and
 * projector learn to say them, all of it learns to answer questions, tower and projector are upcycled to mixtures of experts and trained on, beside the dense
 * model for as long; evaluation on the drawings of the fifth artist. Stopped and called again it continues.
 * @throws ERR_LIBMOE_STATE when `out` holds a demo of another seed, size or version, ERR_LIBMOE_STOPPED, ERR_LIBMOE_DATA without the npm packages
 */
export async function runVisionDemo(options: DemoOptions = {}): Promise<VisionDemoResult> {
  const started = performance.now();
  const { out, runs, go } = beginDemo('demo-vision', options);
  const smoke = options.smoke ?? false;
  const tower = await go('tower', 'tower', 'a tower learns which name goes with which drawing');
  const { checkpoint } = tower;
  const size = smoke ? { dModel: 16, layers: 2, heads: 2, feedForward: { hidden: 24 } } : {};
  const model = { language: size, vision: { checkpoint } };
  const first = await go('pretrain', 'pretrain', 'a language model and a projector learn names', { model });
  const second = await go('prefinetune', 'prefinetune', 'all of it learns to answer questions', {
    start: { checkpoint: first.checkpoint },
  });
  const start = { checkpoint: second.checkpoint };
  const moe = await go(
    'instruct',
    'moe',
    'tower and projector upcycled to mixtures of experts and trained on',
    {
      start,
    },
  );
  await go('continued', 'dense-continued', 'the same, trained on as it is, for as many conversations', {
    start,
  });
  await recordCategoryRouting(moe, 'emojione');

  const file = path.join(out, 'report.html');
  const evaluated = runs.filter(({ evaluation }) => evaluation !== undefined);
  await report(
    evaluated.map((run) => run.out),
    file,
    { title: 'libmoe demo: sparse upcycling of a small vision-language model' },
  );
  return {
    seconds: (performance.now() - started) / 1000,
    report: file,
    runs: evaluated.map(({ name, parameters, activeParameters, seconds, evaluation }) => ({
      name,
      parameters,
      activeParameters,
      seconds,
      ...accuracies(evaluation!),
    })),
    chance: evaluated[0] ? withoutLooking(evaluated[0]) : {},
  };
}

function accuracies(results: Results): Pick<VisionDemoRun, 'tasks' | 'standardErrors' | 'yesNo'> {
  const tasks = headlines(results);
  const of = (task: string, metric: string): number => {
    const value = results.results[task]?.[`${metric},none`];
    return typeof value === 'number' ? value : Number.NaN;
  };
  const yesNo = 'emoji-yes-no';
  return {
    tasks,
    standardErrors: Object.fromEntries(Object.keys(tasks).map((task) => [task, of(task, 'acc_stderr')])),
    ...(yesNo in tasks && {
      yesNo: {
        accuracy: of(yesNo, 'acc'),
        precision: of(yesNo, 'yes_precision'),
        recall: of(yesNo, 'yes_recall'),
        f1: of(yesNo, 'yes_f1'),
        yesRatio: of(yesNo, 'yes_ratio'),
      },
    }),
  };
}

function withoutLooking({ out, evaluation }: RunResult): Record<string, number> {
  return Object.fromEntries(
    Object.entries(evaluation!.libmoe.chance).map(([task, guessing]) => {
      const file = path.join(out, 'eval', 'final', `samples_${task}.jsonl`);
      const samples = readJournal(file) as unknown as Sample[];
      // Names to choose from are others for each drawing, so no answer could be given every time.
      if (new Set(samples.map(({ doc }) => JSON.stringify(doc.choices))).size > 1) return [task, guessing];
      const counts = new Map<unknown, number>();
      for (const { target } of samples) counts.set(target, (counts.get(target) ?? 0) + 1);
      return [task, Math.max(guessing, Math.max(...counts.values()) / samples.length)];
    }),
  );
}
