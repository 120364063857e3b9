import path from 'node:path';
import { report } from '../report/index.ts';
import { recordCategoryRouting } from './category-routing.ts';
import { beginDemo, type DemoOptions } from './demo-runs.ts';
import { headlines } from './evaluation.ts';

/** One of the runs of the vision demo that are evaluated. */
export interface VisionDemoRun {
  name: string;
  parameters: number;
  activeParameters: number;
  seconds: number;
  /** Accuracy by task, on drawings of an artist whom training has not seen. */
  tasks: Record<string, number>;
}

/** What the vision demo found and where its report is. */
export interface VisionDemoResult {
  seconds: number;
  report: string;
  runs: VisionDemoRun[];
  /** Accuracy of guessing, by task. */
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
      tasks: headlines(evaluation!),
    })),
    chance: evaluated[0]?.evaluation?.libmoe.chance ?? {},
  };
}
