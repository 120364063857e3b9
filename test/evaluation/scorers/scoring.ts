import type { ScorerMode } from '../../../ts/evaluation/metrics.ts';
import {
  type ReportedDocument,
  type ResponseScore,
  reportNumbers,
  reportSchema,
  type ScorerQuestion,
  taskScorer,
} from '../../../ts/evaluation/scorers/index.ts';

/** Scores one response as a task would. */
export function scored(
  block: { use: string } & Record<string, unknown>,
  response: string,
  question: Partial<ScorerQuestion> = {},
  mode: ScorerMode = 'libmoe',
): ResponseScore {
  return taskScorer('test', block, mode).score(
    response,
    { doc: {}, target: '', choices: [], ...question },
    0,
  );
}

/** A document with its scores. */
export function reported(
  doc: Record<string, unknown>,
  values: Record<string, number | null>,
  more: Partial<ResponseScore> = {},
): ReportedDocument {
  return { doc, response: '', target: '', score: { values, parsed: '', ...more } };
}

/** Numbers of a report as a task file writes it. */
export function numbers(
  report: Record<string, unknown> | undefined,
  documents: readonly ReportedDocument[],
  mode: ScorerMode = 'libmoe',
  resamples = 0,
) {
  return reportNumbers(report && reportSchema.parse(report), documents, mode, resamples);
}
