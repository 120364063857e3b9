import type { Handle } from './tensors.ts';

/** native/binding/loss.cpp. `chunk`: tokens whose logits exist at a time, 0 chooses. */
export interface LossNative {
  linearCrossEntropy(
    hidden: Handle,
    weight: Handle,
    bias: Handle | undefined,
    targets: Handle,
    loss: Handle,
    dHidden: Handle | undefined,
    dWeight: Handle | undefined,
    dBias: Handle | undefined,
    chunk: number,
  ): void;
  crossEntropy(logits: Handle, targets: Handle, loss: Handle, logSumExp: Handle): void;
  crossEntropyBackward(
    logits: Handle,
    targets: Handle,
    logSumExp: Handle,
    dloss: Handle,
    dlogits: Handle,
  ): void;
  tokenLogProbabilities(
    hidden: Handle,
    weight: Handle,
    bias: Handle | undefined,
    targets: Handle,
    logProbability: Handle,
    greedy: Handle,
    chunk: number,
  ): void;
  linearLogits(hidden: Handle, weight: Handle, bias: Handle | undefined, logits: Handle): void;
  /** y (+)= x · factor[0]. */
  scaleGradient(x: Handle, factor: Handle, y: Handle, accumulate: boolean): void;
}
