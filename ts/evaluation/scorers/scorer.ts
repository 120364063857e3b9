import { z } from 'zod';
import { codeOf, fail } from '../../native/index.ts';
import { explainIssues, nearestKey } from '../../storage/schema-errors.ts';
import type { ScorerMode } from '../metrics.ts';
import { strip } from '../python-text.ts';
import type { Question } from '../question.ts';
import type { Row } from '../task.ts';
import type { LegacyGuess } from './legacy-guess.ts';

/** What a scorer makes of one response. */
export interface ResponseScore {
  /** One value per metric; null: this document does not count for that metric. */
  values: Readonly<Record<string, number | null>>;
  /** What was read out of the response; null where nothing could be: counted as unparsed. */
  parsed: string | null;
  /** Facts that a report groups by (a unit, a category) beyond the document's own columns. */
  detail?: Readonly<Record<string, unknown>>;
  /** Why there is no score although there should be one (a judge that failed). Never a number in its place. */
  missing?: string;
}

/** What a scorer may look at beside the response. */
export type ScorerQuestion = { doc: Row } & Pick<Question, 'target' | 'choices'> & {
    /** Files (or data: URLs) of the document's images, for judges that look at them; absent where they are not at hand. */
    images?: readonly string[];
    /** Draws where the original guesses; absent unless guesses are asked for. */
    guess?: LegacyGuess;
  };

/** The target as texts: one, or each of a list. */
export function targetTexts(target: ScorerQuestion['target']): string[] {
  return (Array.isArray(target) ? target : [target]).map(String);
}

/** A judge: text in, text out; null after every retry failed. */
export interface Judge {
  /** Part of the cache key and of the results. */
  readonly model: string;
  /** The reply; null when there is none after every retry. */
  ask(request: JudgeRequest): Promise<string | null>;
}

/** One question to a judge. */
export interface JudgeRequest {
  system?: string;
  prompt: string;
  /** Image files (or data: URLs) that the judge is to see beside the prompt. */
  images?: readonly string[];
  maxTokens: number;
  temperature: number;
}

/** A scorer of written responses, known to task files by its name. */
export interface ResponseScorer<Options extends z.ZodType = z.ZodType> {
  /** What may stand beside `use` in a task file. */
  options: Options;
  /** Pure. `response` has been stripped once (Python's white space). */
  score(
    response: string,
    question: ScorerQuestion,
    options: z.output<Options>,
    mode: ScorerMode,
  ): ResponseScore;
  /** What `score` gives with a judge at hand; scorers without it need none. */
  judge?(
    response: string,
    question: ScorerQuestion,
    options: z.output<Options>,
    mode: ScorerMode,
    judge: Judge,
  ): Promise<ResponseScore>;
}

const scorers = new Map<string, ResponseScorer>();

/** Makes a scorer known to task files (`score: { use: NAME }`). A second one of the same name replaces the first. */
export function registerScorer<Options extends z.ZodType>(
  name: string,
  scorer: ResponseScorer<Options>,
): void {
  scorers.set(name, scorer as unknown as ResponseScorer);
}

/** Names of all registered scorers, sorted. */
export function scorerNames(): string[] {
  return [...scorers.keys()].sort();
}

/** Throws ERR_LIBMOE_CONFIG for an unknown name, with the nearest known one. */
export function scorerNamed(name: string): ResponseScorer {
  return scorers.get(name) ?? fail('ERR_LIBMOE_CONFIG', unknownScorer(name));
}

function unknownScorer(name: string): string {
  const near = nearestKey(name, scorerNames());
  return `no scorer "${name}"${near === undefined ? `; known: ${scorerNames().join(', ')}` : `, did you mean "${near}"?`}`;
}

/** The key `score` of a task file: a scorer's name and its options. */
export const scoreSchema = z.looseObject({ use: z.string() }).superRefine((block, context) => {
  const { use, ...options } = block;
  const scorer = scorers.get(use);
  if (scorer === undefined) {
    context.addIssue({ code: 'custom', path: ['use'], message: unknownScorer(use) });
    return;
  }
  const parsed = scorer.options.safeParse(options);
  for (const issue of parsed.success ? [] : parsed.error.issues) {
    const path = issue.code === 'unrecognized_keys' ? [...issue.path, issue.keys[0]!] : issue.path;
    context.addIssue({
      code: 'custom',
      path,
      message: explainIssues(scorer.options, [issue], options),
    });
  }
});
/** A checked `score` key of a task file. */
export type ScoreBlock = z.output<typeof scoreSchema>;

/** A scorer with its options filled in and its errors naming task and document. */
export interface TaskScorer {
  /**
   * What a response is worth; it is stripped first.
   * @param docId position of the document, for messages
   */
  score(response: string, question: ScorerQuestion, docId: number): ResponseScore;
  /** Undefined when the scorer has no use for a judge. */
  judge?(response: string, question: ScorerQuestion, docId: number, judge: Judge): Promise<ResponseScore>;
}

/**
 * The scorer of a task. Its functions throw ERR_LIBMOE_DATA naming task, document and column when a document does not fit.
 * @throws ERR_LIBMOE_CONFIG for an unknown scorer or option
 */
export function taskScorer(task: string, block: ScoreBlock, mode: ScorerMode): TaskScorer {
  const { use, ...given } = block;
  const scorer = scorerNamed(use);
  const parsed = scorer.options.safeParse(given);
  if (!parsed.success)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `task ${task}: score: ${explainIssues(scorer.options, parsed.error.issues, given)}`,
    );
  const options: unknown = parsed.data;
  const named = (docId: number, cause: unknown): never => {
    const code = codeOf(cause);
    if (code === undefined) throw cause;
    return fail(
      code,
      `task ${task}, document ${docId}: ${(cause as Error).message.replace(/^ERR_\w+: /, '')}`,
      cause,
    );
  };
  return {
    score: (response, question, docId) => {
      try {
        return scorer.score(strip(response), question, options, mode);
      } catch (cause) {
        return named(docId, cause);
      }
    },
    ...(scorer.judge && {
      judge: async (response, question, docId, judge) => {
        try {
          return await scorer.judge!(strip(response), question, options, mode, judge);
        } catch (cause) {
          return named(docId, cause);
        }
      },
    }),
  };
}
