import { isDeepStrictEqual } from 'node:util';
import { processRows } from './document-steps.ts';
import { type ScorerMode, scoredQuestion } from './metrics.ts';
import { type Question, QuestionMaker } from './question.ts';
import { scoreBlockOf } from './response-scoring.ts';
import { type Judge, type JudgeRequest, taskScorer } from './scorers/index.ts';
import { taskMetrics } from './scoring.ts';
import type { Task, TaskExample } from './task.ts';

/** What an example says of one scorer mode. */
type Expected = Pick<TaskExample, 'judge' | 'scores' | 'parsed'>;

/**
 * Holds a task against the made-up records in its file: the prompt, what is scored, the right choice, the images, and what the scorer makes of a
 * made-up response, with a made-up judge's replies where the record has some. The records are asked without few-shot examples, and no model takes part.
 * @returns what is wrong, a sentence each; empty when all records pass
 */
export async function checkExamples(task: Task): Promise<string[]> {
  const wrong: string[] = [];
  const maker = new QuestionMaker({ ...task, num_fewshot: 0 });
  for (const [i, example] of (task.examples ?? []).entries()) {
    const say = (what: string, expected: unknown, got: unknown): void => {
      if (!isDeepStrictEqual(expected, got))
        wrong.push(
          `task ${task.task}, example ${i}: ${what} should be ${JSON.stringify(expected)}, is ${JSON.stringify(got)}`,
        );
    };
    let question: Question;
    try {
      const [doc = example.doc] = processRows([example.doc], task.process_docs, task.task);
      question = maker.make(doc, i);
      compareQuestion(task, example, question, say);
      if (task.output_type === 'generate_until') await compareResponse(task, example, question, say);
      else compareMetrics(task, example, question, say);
    } catch (error) {
      wrong.push(`task ${task.task}, example ${i}: ${(error as Error).message}`);
    }
  }
  return wrong;
}

type Say = (what: string, expected: unknown, got: unknown) => void;

function compareQuestion(task: Task, example: TaskExample, question: Question, say: Say): void {
  const contexts = question.pairs.map(({ context }) => context);
  const several = Array.isArray(example.prompt);
  const same = contexts.every((context) => context === contexts[0]);
  say('the prompt', example.prompt, !several && same ? contexts[0] : contexts);
  if (example.images !== undefined) say('the images', example.images, question.images);
  if (example.target !== undefined) say('the target', example.target, question.target);
  if (task.output_type === 'generate_until') {
    if (example.choices !== undefined) say('the choices', example.choices, question.choices);
    return;
  }
  if (example.choices !== undefined)
    say(
      'what is scored',
      example.choices,
      question.pairs.map(({ continuation }) => continuation),
    );
  if (example.gold !== undefined) say('the right choice', [example.gold].flat(), question.gold);
}

async function compareResponse(
  task: Task,
  example: TaskExample,
  { doc, docId, target, choices, images }: Question,
  say: Say,
): Promise<void> {
  const { response } = example;
  if (response === undefined) return;
  const block = scoreBlockOf(task);
  const modes: [ScorerMode, Expected][] = [
    ['libmoe', example],
    ['fixed', { ...example, ...example.fixed }],
  ];
  for (const [mode, { judge: replies, scores, parsed }] of modes) {
    const scorer = taskScorer(task.task, block, mode);
    const files = images.filter((image) => typeof image === 'string');
    const asked = { doc, target, choices, images: files };
    const requests: JudgeRequest[] = [];
    const got =
      replies === undefined || scorer.judge === undefined
        ? scorer.score(response, asked, docId)
        : await scorer.judge(response, asked, docId, repeater(replies, requests));
    if (replies !== undefined) {
      say(`the number of questions to the judge (${mode})`, replies.length, requests.length);
      for (const [i, { asked: end }] of replies.entries())
        if (end !== undefined)
          say(`what the judge is asked (${mode})`, end, requests[i]?.prompt.slice(-end.length));
    }
    if (scores !== undefined) say(`the scores (${mode})`, scores, pick(got.values, scores));
    if (parsed !== undefined) say(`what is read out (${mode})`, parsed, got.parsed);
  }
}

/** A judge that says what it was told to say, in order, and keeps what it was asked. */
function repeater(replies: NonNullable<TaskExample['judge']>, requests: JudgeRequest[]): Judge {
  return {
    model: 'example',
    ask: async (request) => replies[requests.push(request) - 1]?.reply ?? null,
  };
}

/** Metrics of made-up log-likelihoods. A continuation counts a token per space-separated word. */
function compareMetrics(task: Task, example: TaskExample, question: Question, say: Say): void {
  const { sums, scores } = example;
  if (sums === undefined || scores === undefined) return;
  if (sums.length !== question.pairs.length) {
    say('the number of sums', sums.length, question.pairs.length);
    return;
  }
  const tokens = question.pairs.map(({ continuation }) => continuation.trim().split(/\s+/).length);
  const scored = scoredQuestion({ question, sums, greedy: sums.map(() => false), tokens });
  const values = [...taskMetrics(task)].map(([name, metric]) => [
    name,
    metric.item(scored, task.output_type),
  ]);
  say('the scores', scores, pick(Object.fromEntries(values) as Record<string, unknown>, scores));
}

/** The values that an example names. */
function pick(values: Readonly<Record<string, unknown>>, named: object): Record<string, unknown> {
  return Object.fromEntries(Object.keys(named).map((name) => [name, values[name]]));
}
