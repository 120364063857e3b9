import type { AuxiliaryLoss, ForwardContext, StepChoices } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { add, scale } from '../tensor/elementwise.ts';
import { scope, type Tensor } from '../tensor/index.ts';

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

/** What one micro-batch leaves behind; the tensors are on the device still, so that nothing waits for it before the step's end. */
export interface MicroResult {
  /** Part of the step's counted tokens. */
  weight: number;
  crossEntropy: Tensor;
  terms: AuxiliaryLoss[];
}

/**
 * Forward and backward of one micro-batch. Gradients of `weight · (cross entropy + Σ coefficient · auxiliary loss)` are added to those of
 * the parameters. The results and the context are the caller's to free.
 */
export function microStep<Batch>(
  model: TrainableModel<Batch>,
  batch: Batch,
  context: ForwardContext,
  weight: number,
): MicroResult {
  return scope(() => {
    const crossEntropy = model.loss(batch, context);
    if (crossEntropy.size !== 1) {
      fail('ERR_LIBMOE_SHAPE', `model.loss must give one number, got [${crossEntropy.shape.join(', ')}]`);
    }
    const terms = context.losses();
    for (const { dtype } of [crossEntropy, ...terms.map(({ value }) => value)]) {
      if (dtype !== 'f32' && dtype !== 'f64')
        fail('ERR_LIBMOE_DTYPE', `losses must be f32 or f64, got ${dtype}`);
    }
    let total = weight === 1 ? crossEntropy : scale(crossEntropy, weight);
    for (const { value, coefficient } of terms) total = add(total, scale(value, weight * coefficient));
    total.backward();
    return { weight, crossEntropy, terms };
  });
}
