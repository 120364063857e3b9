export { type AnswerPriors, answerPriors } from './answer-priors.ts';
export { type BenchmarkColumn, type BenchmarkTable, benchmarkTable } from './benchmark-table.ts';
export {
  bitsPerByteInterval,
  type Comparison,
  comparePaired,
  type DocumentValue,
  verdict,
} from './compare.ts';
export { type CompareOptions, compareResults, type ResultsComparison } from './compare-results.ts';
export type { ComparedNumber } from './compared-numbers.ts';
export {
  type Dataset,
  type DatasetContext,
  datasetNames,
  type LoadedRows,
  readRows,
  registerDataset,
} from './dataset.ts';
export { type DocumentStep, documentStepNames, registerDocumentStep } from './document-steps.ts';
export { evalTokenizer } from './eval-tokenizer.ts';
export type { Share } from './journal.ts';
export { languageAdapter } from './language-adapter.ts';
export type { LastWord } from './last-word.ts';
export { MersenneTwister } from './mersenne.ts';
export {
  type Metric,
  type MetricValue,
  meanMetric,
  metricNames,
  registerMetric,
  type ScoredQuestion,
  type ScorerMode,
  scorerModes,
} from './metrics.ts';
export { type WordOrderOptions, type WordOrderPair, wordOrderPairs } from './minimal-pairs.ts';
export type {
  EmitScore,
  EmitText,
  EvalModel,
  EvalTokenizer,
  GeneratedText,
  Generation,
  GenerationRequest,
  LastTokens,
  RequestImage,
  ScoreOptions,
  TokenRequest,
  TokenScore,
} from './model.ts';
export type { LanguageAdapterOptions } from './network.ts';
export type { Question, TextPair } from './question.ts';
export { type RescoreOptions, rescore } from './rescore.ts';
export {
  type LikelihoodFacts,
  type ResponseFacts,
  type Results,
  readDocumentValues,
  readResults,
  type Sample,
} from './results.ts';
export { type EmitRouting, type RoutedRequest, tokenKinds } from './routing-tap.ts';
export { type EvalProgress, type EvaluateOptions, evaluate } from './run.ts';
export {
  type PredictionRecord,
  parseRecords,
  type RecordScores,
  type ScoreRecordsOptions,
  scoreRecords,
} from './score-records.ts';
export * from './scorers/index.ts';
export {
  bootstrapInterval,
  bootstrapStandardError,
  clusteredStandardError,
  exactSum,
  groupStandardError,
  type Interval,
  mean,
  meanStandardError,
  quantile,
  standardDeviation,
} from './statistics.ts';
export {
  type PairedTest,
  pairedTTest,
  studentInterval,
  studentQuantile,
  studentTwoSided,
} from './student.ts';
export { printTable } from './table.ts';
export {
  defineTask,
  type OutputType,
  outputTypes,
  type Row,
  registerTask,
  type Task,
  type TaskExample,
  type TaskInput,
} from './task.ts';
export { type ChosenTasks, chooseTasks, listTasks, type TaskSummary } from './task-choice.ts';
export { checkExamples } from './task-examples.ts';
export { ReadTasks, readTaskFile, resolveTask, type TaskChoice, taskNames } from './task-files.ts';
export type { GroupAggregate, TaskGroup } from './task-groups.ts';
export { heldOutTextTask, type TextDocument, wordOrderTask } from './text-tasks.ts';
export { type VisionLanguageAdapterOptions, visionLanguageAdapter } from './vision-language-adapter.ts';
