import { ForwardContext, type ForwardOptions } from '../moe/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { noGrad, scope, synchronise, type Tensor } from '../tensor/index.ts';
import { nonFinite } from '../tensor/optimizer.ts';
import type { TrainableModel } from './micro-step.ts';
import type { StepOutcome } from './step.ts';

/** A step under the guard. */
export interface GuardedStep {
  /** 1 for the first. */
  number: number;
  rank: number;
  worldSize: number;
  parameters: ReadonlyMap<string, Tensor>;
  /** Runs the forward passes again and names the first layer whose output is not finite. */
  firstLayer(): string | undefined;
}

/** Runs the passes of a step; of a NaN that a layer meets on the way it names step, parameter and layer. */
export async function guarded<T>(step: GuardedStep, passes: () => Promise<T>): Promise<T> {
  try {
    return await passes();
  } catch (error) {
    if (codeOf(error) !== 'ERR_LIBMOE_NOT_FINITE') throw error;
    const why = (error as Error).message.replace(/^ERR_LIBMOE_NOT_FINITE: /, '');
    return refuse(step, [brokenParameter(step), badLayer(step), why], error);
  }
}

/**
 * Throws ERR_LIBMOE_NOT_FINITE when the loss or the norm of the gradients is NaN or infinite, naming the step and where it began, and on the
 * other ranks the rank where. Called
 * before anything is updated, so that parameters, optimizer and routers are as they were before the step.
 */
export function assertFinite(
  step: GuardedStep,
  { crossEntropy, terms, brokenRanks }: Pick<StepOutcome, 'crossEntropy' | 'terms' | 'brokenRanks'>,
  gradNorm: number,
): void {
  const [elsewhere] = brokenRanks;
  if (elsewhere !== undefined && !brokenRanks.includes(step.rank))
    refuse(step, [`the losses of rank ${elsewhere} are not finite, its own message says where`]);
  const term = terms.find(({ value }) => !Number.isFinite(value));
  if (term || !Number.isFinite(crossEntropy)) {
    const loss = term
      ? `the ${term.name} loss of layer ${term.layer} is ${term.value}`
      : `the cross entropy is ${crossEntropy}`;
    refuse(step, [brokenParameter(step) ?? loss, badLayer(step)]);
  }
  if (!Number.isFinite(gradNorm)) refuse(step, [brokenParameter(step) ?? brokenGradient(step, gradNorm)]);
}

function refuse(
  { number, rank, worldSize }: GuardedStep,
  parts: readonly (string | undefined)[],
  cause?: unknown,
): never {
  const where = parts.filter((part) => part !== undefined).join('; ');
  return fail(
    'ERR_LIBMOE_NOT_FINITE',
    `step ${number}${worldSize > 1 ? ` on rank ${rank}` : ''}: ${where}. Nothing of this step was applied; lower the learning rate, clip gradients, or resume from a checkpoint`,
    cause,
  );
}

function badLayer({ firstLayer }: GuardedStep): string | undefined {
  const layer = firstLayer();
  return layer && `the first output that is not finite is that of ${layer}`;
}

function brokenParameter({ parameters }: GuardedStep): string | undefined {
  const at = nonFinite([...parameters.values()]);
  return at < 0 ? undefined : `parameter ${[...parameters.keys()][at]} holds a NaN or an infinity already`;
}

function brokenGradient({ parameters }: GuardedStep, gradNorm: number): string {
  // Gradients run from the last layer to the first, so what is wrong began at the last parameter that shows it.
  const name = [...parameters]
    .reverse()
    .find(([, { grad }]) => grad !== undefined && nonFinite([grad]) === 0)?.[0];
  return name === undefined
    ? `the norm of the gradients is ${gradNorm}: their squares overflow`
    : `the loss is finite, but the gradient of ${name} is not`;
}

/** Runs forward passes again, until a layer shows a NaN or an infinity, and names it. Models report layers to `context.onLayer`. */
export function firstNonFiniteLayer<Batch>(
  model: TrainableModel<Batch>,
  passes: readonly { batch: Batch; options: ForwardOptions }[],
): string | undefined {
  let first: string | undefined;
  const [parameter] = model.namedParameters().values();
  const onLayer = (name: string, output: Tensor): void => {
    if (first === undefined && nonFinite([output]) >= 0) first = name;
  };
  for (const { batch, options } of passes) {
    noGrad(() =>
      scope(() => {
        using context = new ForwardContext({ ...options, onLayer });
        try {
          model.loss(batch, context);
        } catch {
          // It fails where it failed before; what was seen until then is what we want.
        }
      }),
    );
    try {
      if (parameter) synchronise(parameter.device);
    } catch {
      // A device reports the same fault again: it is not to show in what comes after.
    }
    if (first !== undefined) return first;
  }
  return undefined;
}
