import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';

/** The learning rate of a step, counted from 0. A pure function: a resumed run needs no state of it. */
export type Schedule = (step: number) => number;

const shared = {
  /** The highest learning rate. */
  learningRate: z.number().positive(),
  /** Steps of linear growth at the beginning: step i < W gets learningRate · (i + 1) / W. */
  warmupSteps: z.int().nonnegative().default(0),
  /** Instead of `warmupSteps`: such a part of all steps, rounded up, as in transformers. */
  warmupRatio: z.number().min(0).lt(1).optional(),
};
const minimumRatio = z.number().min(0).max(1);

/** Options of a schedule as recipes write them. */
export const scheduleOptions = z.discriminatedUnion('name', [
  z.strictObject({
    name: z.literal('cosine'),
    ...shared,
    /** Where the fall ends, as a part of `learningRate`. */
    minimumRatio: minimumRatio.default(0.1),
    /**
     * `fixed`: half a period from the end of the warm-up to the end of training. `libmoe`: the half period is the whole training,
     * warm-up included, so the last steps are above the minimum.
     */
    compat: z.enum(['fixed', 'libmoe']).default('fixed'),
  }),
  z.strictObject({ name: z.literal('linear'), ...shared, minimumRatio: minimumRatio.default(0) }),
  z.strictObject({ name: z.literal('constant'), ...shared }),
  z.strictObject({
    name: z.literal('noam'),
    learningRate: shared.learningRate,
    warmupRatio: z.undefined().optional(),
    /** Growth to `learningRate` at this step, then decay with the inverse square root of the step (Vaswani et al. 2017, §5.3). */
    warmupSteps: z.int().positive(),
  }),
  z.strictObject({
    name: z.literal('step'),
    ...shared,
    /** Steps from which on the rate is multiplied once more by `factor`. */
    at: z.array(z.int().nonnegative()),
    factor: z.number().positive().default(0.1),
  }),
]);

/** Options of a schedule; defaults may be left out. */
export type ScheduleOptions = z.input<typeof scheduleOptions>;

/** Makes the schedule of a training of `steps` steps. Throws ERR_LIBMOE_CONFIG naming the bad option. */
export function schedule(options: ScheduleOptions, steps: number): Schedule {
  if (!(Number.isInteger(steps) && steps > 0)) {
    fail('ERR_LIBMOE_CONFIG', `a schedule needs a positive number of steps, got ${steps}`);
  }
  const parsed = scheduleOptions.safeParse(options);
  if (!parsed.success)
    fail('ERR_LIBMOE_CONFIG', `schedule: ${explainIssues(scheduleOptions, parsed.error.issues, options)}`);
  const { warmupRatio, ...given } = parsed.data;
  if (warmupRatio !== undefined && given.warmupSteps > 0)
    fail('ERR_LIBMOE_CONFIG', 'schedule: warmupSteps and warmupRatio say the same thing: set one of them');
  const data = warmupRatio === undefined ? given : { ...given, warmupSteps: Math.ceil(warmupRatio * steps) };
  const { learningRate: peak, warmupSteps: warmup } = data;
  const after = decay(data, steps);
  return (step) => {
    if (!(Number.isInteger(step) && step >= 0)) {
      fail('ERR_LIBMOE_ARGUMENT', `steps are counted from 0, got ${step}`);
    }
    return step < warmup ? (peak * (step + 1)) / warmup : after(step);
  };
}

/** The rate from the end of the warm-up on. */
function decay(options: z.output<typeof scheduleOptions>, steps: number): Schedule {
  const { learningRate: peak, warmupSteps: warmup } = options;
  /** 0 at the end of the warm-up, 1 at the end of training and after it. */
  const progress = (step: number) => Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  switch (options.name) {
    case 'cosine': {
      const low = peak * options.minimumRatio;
      const phase = options.compat === 'libmoe' ? (step: number) => (step - warmup) / steps : progress;
      return (step) => low + ((peak - low) * (1 + Math.cos(Math.PI * phase(step)))) / 2;
    }
    case 'linear': {
      const low = peak * options.minimumRatio;
      return (step) => peak + (low - peak) * progress(step);
    }
    case 'constant':
      return () => peak;
    case 'noam':
      return (step) => peak * Math.sqrt(warmup / (step + 1));
    case 'step':
      return (step) => peak * options.factor ** options.at.filter((boundary) => boundary <= step).length;
  }
}
