import { ForwardContext } from '../moe/context.ts';
import { scope, type Tensor } from '../tensor/index.ts';
import { add, scale } from '../tensor/elementwise.ts';

/** What the loop asks of a model: a language model has it, and so has a toy of five lines. */
export interface TrainableModel<Batch> {
  /** Mean loss over the batch's counted tokens, a scalar; auxiliary losses and routing records go into the context. */
  loss(batch: Batch, context: ForwardContext): Tensor;
  namedParameters(): Map<string, Tensor>;
  /** State that is not trained by gradients. */
  namedBuffers?(): Map<string, Tensor>;
  /** Parameters and persistent buffers: what a checkpoint holds unless the caller saves the model itself. */
  stateDict?(): Map<string, Tensor>;
  loadStateDict?(state: ReadonlyMap<string, Tensor>): unknown;
  /** Switches to training mode. */
  train?(): unknown;
  /** After every update, with the step's whole routing: routers change their biases here. */
  afterStep?(step: AfterStep): void | Promise<void>;
}

/** What routers learn after an update. */
export interface AfterStep {
  step: number;
  /** Tokens per expert of the whole step on all ranks, by layer. */
  counts: ReadonlyMap<string, readonly number[]>;
}

/** An auxiliary loss, averaged over the step. */
export interface LossTerm {
  name: string;
  layer: string;
  coefficient: number;
  value: number;
}
