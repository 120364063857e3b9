import { z } from 'zod';
import { fail } from '../native/index.ts';

/** A coefficient that goes from one value to another within the first `steps` optimizer steps and then stays. */
export interface CoefficientSchedule {
  kind: 'linear' | 'cosine';
  from: number;
  to: number;
  steps: number;
}

/**
 * A loss coefficient: a number, a schedule as data, or any function of the optimizer step. Checkpoints hold the first two; a model with a
 * function is refused when it is saved.
 */
export type Coefficient = number | CoefficientSchedule | ((step: number) => number);

const value = z.number().min(0);

/** A coefficient in router options: ≥ 0. */
export const coefficientSchema = z.union([
  value,
  z.strictObject({
    kind: z.enum(['linear', 'cosine']),
    from: value,
    to: value,
    steps: z.number().int().positive(),
  }),
  z.custom<(step: number) => number>(
    (given) => typeof given === 'function',
    'must be a number, { kind, from, to, steps } or a function of the step',
  ),
]);

/** The value of a coefficient at an optimizer step, counted from 0. @throws ERR_LIBMOE_ARGUMENT when it is not finite */
export function coefficientAt(coefficient: Coefficient, step: number): number {
  const at = typeof coefficient === 'object' ? scheduled(coefficient, step) : coefficient;
  const now = typeof at === 'function' ? at(step) : at;
  if (!Number.isFinite(now))
    fail('ERR_LIBMOE_ARGUMENT', `a loss coefficient must be finite, got ${now} at step ${step}`);
  return now;
}

function scheduled({ kind, from, to, steps }: CoefficientSchedule, step: number): number {
  const part = Math.min(1, step / steps);
  return from + (to - from) * (kind === 'linear' ? part : (1 - Math.cos(Math.PI * part)) / 2);
}
