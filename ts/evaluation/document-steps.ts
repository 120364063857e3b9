import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues, nearestKey } from '../storage/schema-errors.ts';
import { pythonRegex } from './python-regex.ts';
import { regularExpression } from './scorers/regular-expression.ts';
import type { Row } from './task.ts';
import { compileTemplate } from './template.ts';

/** What may be done with the rows of a data set before questions are made of them: `process_docs` of task files. */
export interface DocumentStep<Options extends z.ZodType = z.ZodType> {
  /** What may stand beside `function`. */
  options: Options;
  /** What it makes stands in prompts or images and nowhere else: left out where predictions made elsewhere are scored, whose records need no such columns. */
  onlyAsked?: boolean;
  /** The rows that are asked about, of those that the data set has. */
  apply(rows: readonly Row[], options: z.output<Options>): readonly Row[];
}

const steps = new Map<string, DocumentStep>();

/** Makes a step known to task files. A second one of the same name replaces the first. */
export function registerDocumentStep<Options extends z.ZodType>(
  name: string,
  step: DocumentStep<Options>,
): void {
  steps.set(name, step as unknown as DocumentStep);
}

/** Names of all registered steps, sorted. */
export function documentStepNames(): string[] {
  return [...steps.keys()].sort();
}

const blockSchema = z
  .looseObject({ function: z.string() })
  .superRefine(({ function: name, ...options }, context) => {
    const step = steps.get(name);
    if (step === undefined) {
      const near = nearestKey(name, documentStepNames());
      const message = `no step "${name}"${near === undefined ? `; known: ${documentStepNames().join(', ')}` : `, did you mean "${near}"?`}`;
      context.addIssue({ code: 'custom', path: ['function'], message });
      return;
    }
    const parsed = step.options.safeParse(options);
    if (!parsed.success)
      context.addIssue({
        code: 'custom',
        message: explainIssues(step.options, parsed.error.issues, options),
      });
  });

/** The key `process_docs`: one step or several, each `{ function: NAME, …options }`; a name alone is a step without options. */
export const documentStepsSchema = z.preprocess(
  (given) =>
    (Array.isArray(given) ? given : [given]).map((step) =>
      typeof step === 'string' ? { function: step } : step,
    ),
  z.array(blockSchema).min(1),
);

/** Rows after the steps of a task; `asked` false: after those that matter to what is not asked any more. @throws ERR_LIBMOE_DATA when nothing is left */
export function processRows(
  rows: readonly Row[],
  blocks: z.output<typeof documentStepsSchema> = [],
  task: string,
  { asked = true }: { asked?: boolean } = {},
): readonly Row[] {
  let left = rows;
  for (const { function: name, ...options } of blocks) {
    const step = steps.get(name)!;
    if (step.onlyAsked && !asked) continue;
    left = step.apply(left, step.options.parse(options));
    if (left.length === 0)
      fail(
        'ERR_LIBMOE_DATA',
        `task ${task}: process_docs step "${name}" leaves none of the ${rows.length} rows`,
      );
  }
  return left;
}

const value = z.union([z.string(), z.number(), z.boolean(), z.null()]);
const listOf = (given: z.output<typeof value> | z.output<typeof value>[]) =>
  Array.isArray(given) ? given : [given];

/** Rows whose column has one of these values; `is_not`: none of them; `matches`: a regular expression as Python's `re` reads it. */
registerDocumentStep('where', {
  options: z
    .strictObject({
      column: z.string(),
      is: z.union([value, z.array(value)]).optional(),
      is_not: z.union([value, z.array(value)]).optional(),
      matches: regularExpression.optional(),
    })
    .refine(
      ({ is, is_not: isNot, matches }) => [is, isNot, matches].filter((x) => x !== undefined).length === 1,
      'takes one of is, is_not, matches',
    ),
  apply: (rows, { column, is, is_not: isNot, matches }) => {
    const pattern = matches === undefined ? undefined : pythonRegex(matches);
    return rows.filter((row) => {
      if (!Object.hasOwn(row, column))
        fail(
          'ERR_LIBMOE_DATA',
          `process_docs: a row has no column "${column}", it has ${Object.keys(row).join(', ')}`,
        );
      const has = row[column] as z.output<typeof value>;
      if (pattern !== undefined) return pattern.test(String(has));
      return is !== undefined ? listOf(is).includes(has) : !listOf(isNot!).includes(has);
    });
  },
});

/** New columns, or columns written anew, by templates over the row as it was. */
registerDocumentStep('set', {
  options: z.strictObject({ columns: z.record(z.string(), z.string()) }),
  apply: (rows, { columns }) => {
    const templates = Object.entries(columns).map(
      ([name, source]) => [name, compileTemplate(source)] as const,
    );
    return rows.map((row) => ({
      ...row,
      ...Object.fromEntries(templates.map(([name, template]) => [name, template(row)])),
    }));
  },
});

/** The first row of each value of a column. */
registerDocumentStep('unique', {
  options: z.strictObject({ column: z.string() }),
  apply: (rows, { column }) => {
    const seen = new Set<unknown>();
    return rows.filter((row) => !seen.has(row[column]) && seen.add(row[column]));
  },
});
