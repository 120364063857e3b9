import { fail, native } from '../native/index.ts';
import { empty, emptyLike, type Tensor } from './tensor.ts';

/** Parallel lists: entry i of each belongs to parameter i. */
export interface OptimizerTensors {
  /** f32, bf16 or f64, updated in place. */
  parameters: readonly Tensor[];
  /** Shape of the parameter; f32 (f64 for f64) or the parameter's dtype. */
  gradients: readonly Tensor[];
  /** f32 copies of bf16 parameters: the copy is updated and the parameter rounded from it. undefined for parameters of other dtypes. */
  masters?: readonly (Tensor | undefined)[];
}

export interface AdamwTensors extends OptimizerTensors {
  /** f32 (f64 for f64), zeros before the first step; updated in place. */
  firstMoments: readonly Tensor[];
  secondMoments: readonly Tensor[];
}

/** Settings of one AdamW update. */
export interface AdamwOptions {
  learningRate: number;
  /** Default 0.9. */
  beta1?: number;
  /** Default 0.999. */
  beta2?: number;
  /** Default 1e-8. */
  epsilon?: number;
  /** Decoupled, one number or one per parameter. Default 0. */
  weightDecay?: number | readonly number[];
  /** 1 for the first step. */
  step: number;
  /** Multiplies every gradient as it is read (averaging). Default 1. */
  gradientScale?: number;
  /** f64 [1], multiplies gradientScale ({@link clipFactor}); where it is not finite, the step changes nothing. */
  factor?: Tensor | undefined;
}

export interface SgdTensors extends OptimizerTensors {
  /** Needed when momentum > 0: f32 (f64 for f64), zeros before the first step. */
  momenta?: readonly Tensor[];
}

/** Settings of one SGD update. */
export interface SgdOptions {
  learningRate: number;
  /** Default 0. */
  momentum?: number;
  nesterov?: boolean;
  /** Added to the gradient (not decoupled). Default 0. */
  weightDecay?: number | readonly number[];
  gradientScale?: number;
  /** As for {@link AdamwOptions}. */
  factor?: Tensor | undefined;
}

const handles = (tensors: readonly Tensor[]): number[] => tensors.map((t) => t.handle);

function mastersOf({ parameters, masters }: OptimizerTensors): number[] {
  const list = masters ?? [];
  if (list.length > 0 && list.length !== parameters.length)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `expected ${parameters.length} masters, one per parameter, got ${list.length}`,
    );
  return list.map((master, i) => {
    const parameter = parameters[i]!;
    if (parameter.dtype === 'bf16' && !master)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `masters[${i}] is missing: a bf16 parameter is updated through its f32 copy`,
      );
    return parameter.dtype === 'bf16' ? master!.handle : parameter.handle;
  });
}

/** The parameters' handles; one listed twice would be updated twice, by two threads at once. */
function parametersOf({ parameters }: OptimizerTensors): number[] {
  const list = handles(parameters);
  if (new Set(list).size !== list.length)
    fail('ERR_LIBMOE_ARGUMENT', 'a parameter is listed twice: give each tensor once, tied weights too');
  return list;
}

const decaysOf = (count: number, decay: number | readonly number[] = 0): readonly number[] =>
  typeof decay === 'number' ? new Array<number>(count).fill(decay) : decay;

/**
 * One AdamW step over all parameters (Loshchilov & Hutter, arXiv 1711.05101; PyTorch's order of operations). Changes parameters, moments and masters in
 * place, or nothing when an argument is refused. Throws ERR_LIBMOE_ARGUMENT, ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE.
 */
export function adamwStep(tensors: AdamwTensors, options: AdamwOptions): void {
  const { learningRate, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, gradientScale = 1, step } = options;
  native().adamw(
    parametersOf(tensors),
    handles(tensors.gradients),
    handles(tensors.firstMoments),
    handles(tensors.secondMoments),
    mastersOf(tensors),
    decaysOf(tensors.parameters.length, options.weightDecay),
    [learningRate, beta1, beta2, epsilon, gradientScale, step],
    options.factor?.handle,
  );
}

/** One step of stochastic gradient descent with optional (Nesterov) momentum, as PyTorch's SGD without dampening. Errors as {@link adamwStep}. */
export function sgdStep(tensors: SgdTensors, options: SgdOptions): void {
  const { learningRate, momentum = 0, nesterov = false, gradientScale = 1 } = options;
  native().sgd(
    parametersOf(tensors),
    handles(tensors.gradients),
    handles(tensors.momenta ?? []),
    mastersOf(tensors),
    decaysOf(tensors.parameters.length, options.weightDecay),
    [learningRate, momentum, gradientScale, nesterov ? 1 : 0],
    options.factor?.handle,
  );
}

/** √(Σ x²) over all elements of all tensors, summed in f64, as f64 [1] on their device; 0 for none. NaN or ∞ when an element is. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const device = tensors[0]?.device;
  const norm = empty([1], { dtype: 'f64', ...(device && { device }) });
  native().globalNorm(handles(tensors), norm.handle);
  return norm;
}

/**
 * What gradients of this global norm (f64 [1]) are to be multiplied by so that it is at most `limit`: min(1, limit / (norm + 1e-6)), as PyTorch's
 * clip_grad_norm_; f64 [1], 1 without a limit. NaN where the norm or one of `losses` (f32 or f64) is not finite: a step with it changes nothing.
 * Nothing waits for the device. Throws ERR_LIBMOE_ARGUMENT for a limit that is not positive.
 */
export function clipFactor(
  norm: Tensor,
  losses: readonly Tensor[] = [],
  limit = Number.POSITIVE_INFINITY,
): Tensor {
  const factor = emptyLike(norm);
  native().clipFactor(norm.handle, handles(losses), limit, factor.handle);
  return factor;
}

/** Index of the first tensor that holds a NaN or an infinity, or −1. Waits for the device. */
export const nonFinite = (tensors: readonly Tensor[]): number => native().nonFinite(handles(tensors));
