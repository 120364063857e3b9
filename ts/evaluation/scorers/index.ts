export {
  type Report,
  type ReportBlock,
  type ReportedDocument,
  type ReportedNumber,
  reportNumbers,
  reportSchema,
} from './report.ts';
export {
  type Judge,
  type JudgeRequest,
  type ResponseScore,
  type ResponseScorer,
  registerScorer,
  type ScoreBlock,
  type ScorerQuestion,
  scorerNamed,
  scorerNames,
  scoreSchema,
  type TaskScorer,
  taskScorer,
} from './scorer.ts';
