import { native } from '../native/index.ts';
import { record } from './autograd.ts';
import { filled } from './broadcast.ts';
import { gradientDtype } from './dtype.ts';
import { isGradEnabled } from './lifetime.ts';
import { empty, emptyLike, type Tensor } from './tensor.ts';

/** How a loss over a vocabulary is cut into pieces. */
export interface ChunkOptions {
  /** Tokens whose logits exist at a time; default: about 32 MB of them. Changes memory, not a token's value. */
  chunk?: number;
}

/** What losses and accumulated gradients of data like `x` are stored in. */
const wide = (x: Tensor) => ({ dtype: gradientDtype(x.dtype), device: x.device });

/**
 * Mean cross entropy of softmax(hidden · weightᵀ + bias) over the tokens whose target is not −1, without ever holding all logits: a scalar f32 (f64 for
 * f64), 0 when no token counts. hidden [tokens, d], weight [vocabulary, d], bias [vocabulary] or undefined, targets i32 [tokens]. Gradients of all three
 * are made during forward, chunk by chunk (native/cpu/loss.cpp says why), and scaled in backward; a token's loss does not depend on its batch.
 * Throws ERR_LIBMOE_ARGUMENT, naming it, for a target outside [−1, vocabulary).
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  targets: Tensor,
  options: ChunkOptions = {},
): Tensor {
  const wants = (t: Tensor | undefined): t is Tensor => isGradEnabled() && t?.requiresGrad === true;
  const gradients = [
    wants(hidden) ? emptyLike(hidden) : undefined,
    wants(weight) ? emptyLike(weight, wide(weight)) : undefined,
    wants(bias) ? emptyLike(bias, wide(bias)) : undefined,
  ] as const;
  const [dHidden, dWeight, dBias] = gradients;
  try {
    const loss = filled([], wide(hidden), (out) =>
      native().linearCrossEntropy(
        hidden.handle,
        weight.handle,
        bias?.handle,
        targets.handle,
        out,
        dHidden?.handle,
        dWeight?.handle,
        dBias?.handle,
        options.chunk ?? 0,
      ),
    );
    record({
      name: 'linearCrossEntropy',
      inputs: [hidden, weight, bias],
      outputs: [loss],
      saved: gradients.filter((t) => t !== undefined),
      backward: ([dloss], sink) => {
        const accumulate = (i: number, gradient: Tensor | undefined) => {
          const into = gradient && sink.into(i);
          if (into)
            native().scaleGradient(gradient.handle, dloss!.handle, into.tensor.handle, into.accumulate);
        };
        accumulate(1, dWeight);
        accumulate(2, dBias);
        if (!dHidden) return;
        const scaled = emptyLike(dHidden);
        native().scaleGradient(dHidden.handle, dloss!.handle, scaled.handle, false);
        return [scaled];
      },
    });
    return loss;
  } finally {
    for (const t of gradients) t?.dispose(); // the tape keeps what it needs
  }
}

/**
 * Mean cross entropy of logits [tokens, vocabulary] with targets i32 [tokens], −1 = does not count: a scalar f32 (f64 for f64), 0 when none counts.
 * Throws ERR_LIBMOE_ARGUMENT for a target outside [−1, vocabulary).
 */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor {
  using logSumExp = empty([logits.shape[0] ?? 0], wide(logits));
  const loss = filled([], wide(logits), (out) =>
    native().crossEntropy(logits.handle, targets.handle, out, logSumExp.handle),
  );
  record({
    name: 'crossEntropy',
    inputs: [logits],
    outputs: [loss],
    saved: [logits, targets, logSumExp],
    backward: ([dloss]) => {
      const dlogits = emptyLike(logits);
      native().crossEntropyBackward(
        logits.handle,
        targets.handle,
        logSumExp.handle,
        dloss!.handle,
        dlogits.handle,
      );
      return [dlogits];
    },
  });
  return loss;
}

/** What {@link tokenLogProbabilities} returns. */
export interface TokenLogProbabilities {
  /** f64 [tokens]: log softmax(logits)[target], 0 where the target is −1. Logits and their exponentials are f32, sums and logarithm f64. */
  logProbability: Tensor;
  /** i32 [tokens]: the class of the largest logit, the lowest one on ties. */
  greedy: Tensor;
}

/**
 * Log probability of each token's target, and the greedy choice, under softmax(hidden · weightᵀ + bias), in chunks and without gradient.
 * Shapes and errors as {@link linearCrossEntropy}.
 */
export function tokenLogProbabilities(
  hidden: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  targets: Tensor,
  options: ChunkOptions = {},
): TokenLogProbabilities {
  const tokens = hidden.shape[0] ?? 0;
  const logProbability = empty([tokens], { dtype: 'f64', device: hidden.device });
  const greedy = empty([tokens], { dtype: 'i32', device: hidden.device });
  try {
    native().tokenLogProbabilities(
      hidden.handle,
      weight.handle,
      bias?.handle,
      targets.handle,
      logProbability.handle,
      greedy.handle,
      options.chunk ?? 0,
    );
  } catch (error) {
    logProbability.dispose();
    greedy.dispose();
    throw error;
  }
  return { logProbability, greedy };
}

/** hidden [tokens, d] · weight [vocabulary, d]ᵀ + bias as f32 (f64 for f64) [tokens, vocabulary], without gradient: for evaluation and generation. */
export function linearLogits(hidden: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  return filled([hidden.shape[0] ?? 0, weight.shape[0] ?? 0], wide(hidden), (out) =>
    native().linearLogits(hidden.handle, weight.handle, bias?.handle, out),
  );
}
