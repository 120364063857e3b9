/** What the routers of one layer did in one step. */
export interface LayerRouting {
  /** Choices per router output, on all ranks. */
  counts: number[];
  /** Mean over tokens of the entropy of the routing distribution, in nats. */
  entropy: number;
  /** Mean over tokens of the gap between the two largest mixing weights, rescaled to sum 1. */
  margin: number;
  /** Choices that found no room in their expert, on all ranks. */
  dropped: number;
}

/** What one step of training did. The keys of `metrics.jsonl` are these, but for `routing`, which is `moe` there. */
export interface StepReport {
  /** Steps done, this one included: the first report says 1. */
  step: number;
  /** Tokens seen since the beginning of training, on all ranks. */
  tokens: number;
  /** What was minimised: cross entropy and every auxiliary loss with its coefficient. */
  loss: number;
  /** Mean over the step's counted tokens, nats. */
  crossEntropy: number;
  /** Load-balancing loss without its coefficient, mean over layers; 0 without one. */
  balanceLoss: number;
  /** Router z-loss without its coefficient, mean over layers; 0 without one. */
  routerZLoss: number;
  learningRate: number;
  /** Global norm of the gradients before clipping. */
  gradNorm: number;
  tokensPerSecond: number;
  /** By layer name; empty for a dense model. */
  routing: Record<string, LayerRouting>;
  /** Time of the step, without callbacks. */
  seconds: number;
  /** What an evaluation after this step gave, such as `{ 'piqa/acc': 0.61 }`. */
  evaluation?: Record<string, number>;
}

/** How a training ended. */
export interface TrainingSummary {
  step: number;
  tokens: number;
  /** All steps done, or a callback said that it is done; false when it was stopped before. */
  completed: boolean;
  /** Why a callback ended it before its last step; on rank 0. */
  endedEarly?: string;
  /** The folder of the last checkpoint, when there is one. */
  checkpoint?: string;
}
