import { z } from 'zod';
import { count } from './recipe-parts.ts';

/** A task's name or file, or `{ task: NAME, … }` with keys that are laid over those of the task. */
export const taskChoiceSchema = z.union([z.string(), z.looseObject({ task: z.string() })]);

/** What `evaluation` holds in every kind of recipe that is evaluated, beside its tasks. */
export const evaluationKeys = {
  limit: z.number().positive().optional(),
  scorer: z.enum(['libmoe', 'fixed']).default('libmoe'),
  /** What is asked while training goes on (when: `training.evaluateEvery`, `evaluateAt`, `evaluateFirst`); null: the same as at the end. */
  during: z
    .strictObject({
      /** Some of what is asked at the end, by name, or other tasks; default: all of it. */
      tasks: z.array(taskChoiceSchema).min(1).optional(),
      /** Documents per task, or a share of them; default: `evaluation.limit`. */
      limit: z.number().positive().optional(),
    })
    .nullable()
    .default(null),
  /** Keep the checkpoint that is the best by a number of the evaluations during training: `checkpoints/best`. null: none is looked for. */
  best: z
    .strictObject({
      /** `TASK/METRIC`, as in `piqa/acc_norm`; of a held-out text `NAME/bits_per_byte`. Whether more or less is better the metric knows. */
      metric: z.string().min(1),
    })
    .nullable()
    .default(null),
  /** End the training as complete when `best` no longer gets better. */
  earlyStopping: z
    .strictObject({
      /** After so many evaluations in a row that are not better … */
      patience: count,
      /** … by more than this. */
      minDelta: z.number().nonnegative().default(0),
    })
    .nullable()
    .default(null),
  /** Which weights are evaluated at the end and go on to the next stage of a pipeline: those of the last step, or the best. */
  finalWeights: z.enum(['last', 'best']).default('last'),
};

type EvaluationKeys = z.output<z.ZodObject<typeof evaluationKeys>>;
type When = { evaluateEvery: number | null; evaluateAt: readonly number[]; evaluateFirst: boolean };

/** Checks of these keys what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkEvaluation(
  { training, evaluation }: { training: When; evaluation: EvaluationKeys },
  refuse: (message: string) => never,
): void {
  const { during, best, earlyStopping, finalWeights } = evaluation;
  const repeated = training.evaluateEvery !== null || training.evaluateAt.length > 0;
  const when = 'set training.evaluateEvery or training.evaluateAt';
  if (earlyStopping && !repeated)
    refuse(`evaluation.earlyStopping needs evaluations during training: ${when}`);
  if (earlyStopping && !best)
    refuse('evaluation.earlyStopping needs evaluation.best.metric: what is to become better');
  if (best && !repeated) refuse(`evaluation.best needs evaluations during training: ${when}`);
  if (during && !repeated && !training.evaluateFirst)
    refuse(`evaluation.during says what is asked during training, and nothing is: ${when}`);
  if (finalWeights === 'best' && !best)
    refuse('evaluation.finalWeights: best needs evaluation.best.metric: what the best is');
}

/** The same for a kind of recipe that is not evaluated. */
export function checkUnevaluated(
  { evaluateEvery, evaluateAt, evaluateFirst }: When,
  refuse: (message: string) => never,
): void {
  if (evaluateEvery !== null || evaluateAt.length > 0 || evaluateFirst)
    refuse(
      'a tower that learns from captions is evaluated in a vision-language model: leave training.evaluateEvery, evaluateAt and evaluateFirst out',
    );
}
