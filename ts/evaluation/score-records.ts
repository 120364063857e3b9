import { fail } from '../native/index.ts';
import { processRows } from './document-steps.ts';
import type { ScorerMode } from './metrics.ts';
import { QuestionMaker } from './question.ts';
import { imagesAtHand } from './request-images.ts';
import { responseFilters } from './response-filters.ts';
import { scoreBlockOf } from './response-scoring.ts';
import {
  type Judge,
  legacyGuess,
  type ReportedDocument,
  type ReportedNumber,
  reportNumbers,
  taskScorer,
} from './scorers/index.ts';
import type { Row, Task } from './task.ts';
import { resolveTask, type TaskChoice } from './task-files.ts';

/** A document of a data set with what some model answered. */
export interface PredictionRecord {
  doc: Row;
  /** Several where the task's filters choose among repeated answers. */
  response: string | readonly string[];
}

/** How {@link scoreRecords} scores. */
export interface ScoreRecordsOptions {
  /** Default: `libmoe`. */
  scorer?: ScorerMode;
  judge?: Judge;
  /** Guess as the original does where nothing can be read out of an answer (`legacy_guess` of a task). Default false: such an answer is wrong. */
  legacyRandomFallback?: boolean;
  /** Folder that image names are relative to, for judges that look at images. */
  imageFolder?: string;
  /** Bootstrap resamples for standard errors without a formula (default 1000). */
  bootstrapResamples?: number;
}

/** What predictions are worth. */
export interface RecordScores {
  task: string;
  scorer: ScorerMode;
  /** Records that the task takes; its `process_docs` may leave some out. */
  n: number;
  /** Responses that nothing could be read out of. */
  unparsed: number;
  /** Documents that a judge gave no verdict for. */
  missing: number;
  /** By metric; those of a filter other than `none` as `metric,filter`. */
  numbers: Record<string, ReportedNumber>;
  /** Of the first filter, in the order of the records. */
  documents: ReportedDocument[];
}

// No data set has a column of this name, so the response rides along through the task's document steps.
const RESPONSE = '\u0000response';
// As many questions are put to a judge at once; its own limit says how many of them are under way.
const CHUNK = 256;

/**
 * Scores predictions that were made anywhere, by the rules of a task whose answers are written.
 * @throws ERR_LIBMOE_CONFIG for an unknown task or one without written answers, ERR_LIBMOE_DATA naming task, record and
 * column when a record lacks what the task needs
 */
export async function scoreRecords(
  choice: TaskChoice,
  records: readonly PredictionRecord[],
  options: ScoreRecordsOptions = {},
): Promise<RecordScores> {
  const { scorer: mode = 'libmoe', judge, imageFolder, bootstrapResamples = 1000 } = options;
  const task = resolveTask(choice);
  const name = task.task;
  if (task.output_type !== 'generate_until')
    fail(
      'ERR_LIBMOE_CONFIG',
      `task ${name} is ${task.output_type}: only tasks with written answers (generate_until) score responses`,
    );
  if (records.length === 0) fail('ERR_LIBMOE_DATA', `task ${name}: no records to score`);
  const rows = processRows(
    records.map(({ doc, response }) => ({ ...doc, [RESPONSE]: response })),
    task.process_docs,
    name,
    { asked: false },
  );
  const maker = new QuestionMaker(withoutPrompt(task));
  const { doc_to_target: target } = task;
  const asked = rows.map(({ [RESPONSE]: response, ...doc }, docId) => ({
    // A field that names no column is a constant text, which a lone word is hardly meant to be.
    ...(typeof target === 'string' && /^[A-Za-z_]\w*$/.test(target) && !Object.hasOwn(doc, target)
      ? fail(
          'ERR_LIBMOE_DATA',
          `task ${name}, document ${docId}: column "${target}" (doc_to_target) is missing; the record has ${Object.keys(doc).join(', ') || 'no columns'}`,
        )
      : maker.make(doc, docId)),
    responses: typeof response === 'string' ? [response] : (response as readonly string[]),
  }));
  const scorer = taskScorer(name, scoreBlockOf(task), mode);
  const imagesOf = judge && scorer.judge ? imageFinder(task, imageFolder) : () => undefined;
  const numbers: RecordScores['numbers'] = {};
  let first: ReportedDocument[] | undefined;
  for (const filter of responseFilters(task.filter_list, name)) {
    const documents: ReportedDocument[] = [];
    const guess = options.legacyRandomFallback ? legacyGuess() : undefined;
    for (let from = 0; from < asked.length; from += CHUNK) {
      const made = asked.slice(from, from + CHUNK).map(async ({ doc, docId, target, choices, responses }) => {
        const [response] = filter.apply(responses, choices);
        if (response === undefined)
          fail(
            'ERR_LIBMOE_CONFIG',
            `task ${name}, document ${docId}: filter "${filter.name}" leaves no response`,
          );
        const images = imagesOf(doc, docId);
        const question = { doc, target, choices, ...(images && { images }), ...(guess && { guess }) };
        const score =
          judge && scorer.judge
            ? await scorer.judge(response, question, docId, judge)
            : scorer.score(response, question, docId);
        return { doc, docId, target, response, score };
      });
      documents.push(...(await Promise.all(made)));
    }
    first ??= documents;
    const made = await reportNumbers(task.report, documents, mode, bootstrapResamples, name);
    for (const [metric, number] of Object.entries(made))
      numbers[filter.name === 'none' ? metric : `${metric},${filter.name}`] = number;
  }
  const documents = first ?? [];
  return {
    task: name,
    scorer: mode,
    n: documents.length,
    unparsed: documents.filter(({ score }) => score.parsed === null).length,
    missing: documents.filter(({ score }) => score.missing !== undefined).length,
    numbers,
    documents,
  };
}

/** Records of predictions need no images and no columns that only the prompt shows. */
function withoutPrompt(task: Task): Task {
  const { doc_to_visual: _, gen_prefix: __, group_by: ___, ...rest } = task;
  return { ...rest, doc_to_text: '', description: '', num_fewshot: 0 };
}

/** Finds the image files of a record, as far as it names some that are there. */
function imageFinder(
  task: Task,
  folder: string | undefined,
): (doc: Row, docId: number) => string[] | undefined {
  const { doc_to_visual: source } = task;
  if (source === undefined) return () => undefined;
  const maker = new QuestionMaker({ ...withoutPrompt(task), doc_to_visual: source, doc_to_target: '' });
  return (doc, docId) => {
    try {
      return imagesAtHand(maker.make(doc, docId).images, folder);
    } catch {
      // Records may leave the column out.
      return undefined;
    }
  };
}

/**
 * Reads records, one JSON object a line: `{"doc": {…}, "response": "…"}`.
 * @param file for messages
 * @throws ERR_LIBMOE_DATA naming file and line
 */
export function parseRecords(text: string, file: string): PredictionRecord[] {
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    const wrong = (got: string, cause?: unknown): never =>
      fail(
        'ERR_LIBMOE_DATA',
        `${file}, line ${i + 1}: expected {"doc": {…}, "response": "…"}, got ${got}`,
        cause,
      );
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      return wrong(`no JSON: ${line.slice(0, 80)}`, cause);
    }
    const { doc, response } = (value ?? {}) as Partial<PredictionRecord>;
    if (typeof doc !== 'object' || doc === null || Array.isArray(doc))
      return wrong(`doc ${JSON.stringify(doc) ?? 'missing'}`);
    const isText = (one: unknown): boolean => typeof one === 'string';
    if (!isText(response) && !(Array.isArray(response) && response.length > 0 && response.every(isText)))
      return wrong(`response ${JSON.stringify(response) ?? 'missing'}`);
    return [{ doc, response: response! }];
  });
}
