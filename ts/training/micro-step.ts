import type { AuxiliaryLoss, ForwardContext, StepChoices } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { add, cast, multiply, scale } from '../tensor/elementwise.ts';
import { keep, noGrad, scope, type Tensor } from '../tensor/index.ts';
import { reshape } from '../tensor/shape.ts';
import type { Strategy } from './strategy/strategy.ts';

/** What the loop asks of a model: a language model has it, and so has a toy of five lines. */
export interface TrainableModel<Batch> {
  /** Mean loss over the batch's counted tokens, a scalar; auxiliary losses and routing records go into the context. */
  loss(batch: Batch, context: ForwardContext): Tensor;
  /** What is trained, by dotted name. */
  namedParameters(): Map<string, Tensor>;
  /** State that is not trained by gradients. */
  namedBuffers?(): Map<string, Tensor>;
  /** Parameters and persistent buffers: what a checkpoint holds unless the caller saves the model itself. */
  stateDict?(): Map<string, Tensor>;
  /** Takes over the values of a state dict. */
  loadStateDict?(state: ReadonlyMap<string, Tensor>): unknown;
  /** Switches to training mode. */
  train?(): unknown;
  /** After every update. Routers inside a `Module` are told of their counts by the loop. */
  afterStep?(step: AfterStep): void | Promise<void>;
}

/** What a model learns after an update. */
export interface AfterStep {
  /** Steps done. */
  step: number;
  /** What the whole step sent where, by layer name. */
  layers: StepChoices['layers'];
}

/** An auxiliary loss, averaged over the step. */
export interface LossTerm {
  name: string;
  layer: string;
  coefficient: number;
  value: number;
}

/** Weights of a micro-batch in the objective of a step. */
export interface MicroWeight {
  /** Of all counted tokens of the step, on all ranks, the part that is in this rank's micro-batch. */
  own: number;
  /** The part that is in the micro-batch on all ranks. */
  all: number;
}

/** What one micro-batch leaves behind; the tensors are on the device still, so that nothing waits for it before the step's end. */
export interface MicroResult {
  weight: MicroWeight;
  crossEntropy: Tensor;
  terms: AuxiliaryLoss[];
}

/**
 * Forward and backward of one micro-batch. Gradients of the objective are added to those of the parameters: cross entropy and auxiliary losses with
 * their coefficients, each weighted so that the sum over micro-batches and ranks is the mean over the step. The results and the context
 * are the caller's to free. `beforeBackward` is called when the forward pass is over.
 */
export async function microStep<Batch>(
  model: TrainableModel<Batch>,
  batch: Batch,
  context: ForwardContext,
  weight: MicroWeight,
  strategy: Strategy,
  beforeBackward: () => void = () => {},
): Promise<MicroResult> {
  const crossEntropy = keep(scope(() => model.loss(batch, context)));
  try {
    if (crossEntropy.size !== 1) {
      fail('ERR_LIBMOE_SHAPE', `model.loss must give one number, got [${crossEntropy.shape.join(', ')}]`);
    }
    if (strategy.worldSize > 1) await context.sumOverRanks((tensors) => strategy.reduceStatistics(tensors));
    const terms = scope(() => {
      const terms = context.losses();
      for (const { dtype } of [crossEntropy, ...terms.map(({ value }) => value)]) {
        if (dtype !== 'f32' && dtype !== 'f64')
          fail('ERR_LIBMOE_DTYPE', `losses must be f32 or f64, got ${dtype}`);
      }
      let total = weight.own === 1 ? crossEntropy : scale(crossEntropy, weight.own);
      for (const term of terms) total = add(total, weighted(term, weight));
      beforeBackward();
      // Where only a part is trained that this batch does not need (text, and the way of images), nothing is to be learned of it.
      if (total.requiresGrad) total.backward();
      return terms;
    });
    return { weight, crossEntropy, terms };
  } catch (error) {
    crossEntropy.dispose();
    throw error;
  }
}

/** A term in the objective of this rank. */
function weighted(term: AuxiliaryLoss, { own, all }: MicroWeight): Tensor {
  const { value, share } = term;
  if (share === undefined) return times(value, own, term);
  // Every rank has the whole loss of the global batch, and a gradient of its own part in it.
  if (share === 'whole') return times(value, all, term);
  return times(multiply(value, share), all, term);
}

/** value · (weight · coefficient), the product of these two in f64 on the device as on the host. */
function times(value: Tensor, weight: number, term: AuxiliaryLoss): Tensor {
  const { coefficientTensor } = term;
  if (!coefficientTensor) return scale(value, weight * term.coefficient);
  const factor = noGrad(() => cast(scale(cast(coefficientTensor, 'f64'), weight), value.dtype));
  return multiply(value, reshape(factor, value.shape));
}
