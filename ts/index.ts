export { z } from 'zod';
export * as data from './data/index.ts';
export { loadTokenizer } from './data/index.ts';
export * as distributed from './distributed/index.ts';
export * as metrics from './evaluation/index.ts';
export { evaluate, registerMetric, registerTask } from './evaluation/index.ts';
export { languageAdapter } from './evaluation/language-adapter.ts';
export { type DemoOptions, type DemoResult, loadRecipe, runDemo, runRecipe } from './experiment/index.ts';
export * from './models/language/index.ts';
export * from './moe/index.ts';
export { codeOf, type ErrorCode, LibmoeError } from './native/index.ts';
export * as nn from './nn/index.ts';
export { Module } from './nn/index.ts';
export { report } from './report/index.ts';
export * as storage from './storage/index.ts';
export * from './tensor/index.ts';
export * as ops from './tensor/ops.ts';
export {
  type Callback,
  type StepReport,
  type TrainingSummary,
  type TrainOptions,
  train,
} from './training/index.ts';
export * as optim from './training/optimizer.ts';
export * as schedules from './training/schedule.ts';
export * from './upcycling/index.ts';
