export { type LegacyGuess, legacyGuess } from './legacy-guess.ts';
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
import './llm-judge.ts';
import './ngram-align.ts';
import './several.ts';
import './submission.ts';

export { type JudgeClient, type JudgeOptions, openAiJudge } from './judge-client.ts';
export { submissionText } from './submission.ts';

import './box-iou.ts';
import './edit-similarity.ts';
import './letter-list.ts';
import './math-equal.ts';
import './rouge-l.ts';
import './unsolvable-choice.ts';
import './word-overlap.ts';
