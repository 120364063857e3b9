export {
  type BestMetric,
  BestSoFar,
  type EarlyStopping,
  type EvaluationLine,
  evaluationsFile,
} from './best-so-far.ts';
export { type Callback, checkpointEvery, type Run } from './callbacks.ts';
export {
  type CheckpointFolder,
  listCheckpoints,
  namedCheckpoint,
  newestIntact,
  type Retention,
  readCheckpoint,
  type TrainingState,
  writeCheckpoint,
} from './checkpoint.ts';
export { type EvaluateDuringOptions, evaluateDuring } from './evaluate-during.ts';
export { metricsLogger, tensorboardLogger } from './loggers.ts';
export { type BatchSource, type Training, type TrainOptions, train } from './loop.ts';
export { type BatchKind, tokenBatches, visionLanguageBatches } from './micro-batches.ts';
export type { AfterStep, TrainableModel } from './micro-step.ts';
export {
  adamwOptions,
  type Optimizer,
  type OptimizerOptions,
  optimizer,
  optimizerOptions,
  sgdOptions,
} from './optimizer.ts';
export { type Schedule, type ScheduleOptions, schedule, scheduleOptions } from './schedule.ts';
export { type StatusLineOptions, type StatusOutput, statusLine } from './status-line.ts';
export type { LayerRouting, StepReport, TrainingSummary } from './step-report.ts';
export { type DataParallelOptions, dataParallel } from './strategy/data-parallel.ts';
export { strategyOptions } from './strategy/options.ts';
export { chooseStrategy, type Strategy, single } from './strategy/strategy.ts';
