import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { column } from './columns.ts';
import { scoreWith } from './inner-scorer.ts';
import type { ReportedDocument } from './report.ts';
import { registerScorer, scoreSchema } from './scorer.ts';

const options = z.strictObject({
  /**
   * Field of the file → column of the record; `response` is the model's answer, `parsed` what `parse` reads out of it, `index` the place of the
   * letter that it reads, -1 for none.
   */
  fields: z.record(z.string(), z.string()).default({ question_id: 'question_id', answer: 'response' }),
  /** `map`: one object, the first field → the second. */
  format: z.enum(['json', 'jsonl', 'csv', 'map']).default('json'),
  /** A scorer that reads the fields `parsed` and `index`. */
  parse: z.lazy(() => scoreSchema).optional(),
});

/** The form of a submission's file. */
export type SubmissionFormat = z.output<typeof options>['format'];

/** Answers for a server that keeps the right ones. Metric `submission`, always without a number. */
registerScorer('submission', {
  options,
  score: (response, question, { fields, format, parse }, mode) => {
    const read = parse === undefined ? response || null : scoreWith(parse, response, question, mode).parsed;
    const value = (name: string): unknown => {
      if (name === 'response') return response;
      if (parse !== undefined && name === 'parsed') return read;
      if (parse !== undefined && name === 'index') return LETTERS.indexOf(read ?? '-');
      return column(question.doc, name);
    };
    const submission = Object.fromEntries(
      Object.entries(fields).map(([field, name]) => [field, value(name)]),
    );
    return { values: { submission: null }, parsed: read, detail: { format, submission } };
  },
});

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

const quoted = (value: unknown): string => {
  const text = typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/**
 * The file that a benchmark's server wants, from documents scored with `submission`.
 * @throws ERR_LIBMOE_ARGUMENT when they were scored with something else
 */
export function submissionText(documents: readonly Pick<ReportedDocument, 'score'>[]): string {
  const rows = documents.map(
    ({ score }) =>
      (score.detail?.submission as Record<string, unknown> | undefined) ??
      fail('ERR_LIBMOE_ARGUMENT', 'a submission needs a task with score: { use: submission }'),
  );
  const format = documents[0]?.score.detail?.format as SubmissionFormat | undefined;
  switch (format ?? 'json') {
    case 'json':
      return `${JSON.stringify(rows, null, 2)}\n`;
    case 'jsonl':
      return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
    case 'csv':
      return [Object.keys(rows[0]!), ...rows.map((row) => Object.values(row))]
        .map((cells) => `${cells.map(quoted).join(',')}\n`)
        .join('');
    case 'map':
      return `${JSON.stringify(Object.fromEntries(rows.map((row) => Object.values(row).slice(0, 2))), null, 2)}\n`;
  }
}
