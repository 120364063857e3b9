export { type ReportedDocument, type ReportedNumber, reportNumbers } from './report.ts';
export { type Report, type ReportBlock, reportSchema } from './report-schema.ts';
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

import './anls.ts';
import './by-column.ts';
import './caption-ngram.ts';
import './exact-match.ts';
import './open-answer.ts';
import './parse-choice.ts';
import './relaxed-accuracy.ts';
import './typed-answer.ts';
import './vqa-accuracy.ts';
import './yes-no.ts';
