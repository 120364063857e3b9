export { type Callback, checkpointEvery, evaluateEvery, type Run } from './callbacks.ts';
export {
  type CheckpointFolder,
  listCheckpoints,
  newestIntact,
  type Retention,
  readCheckpoint,
  type TrainingState,
  writeCheckpoint,
} from './checkpoint.ts';
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
