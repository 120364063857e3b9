import { limitedCount, loadDocuments } from './dataset.ts';
import { processRows } from './document-steps.ts';
import { QuestionMaker } from './question.ts';
import { mostFrequent } from './statistics.ts';
import type { Task } from './task.ts';

/** What answers score that look at no image and no model: the least that a model has to beat. */
export interface AnswerPriors {
  /** Accuracy of the training questions' most frequent answer, given to every question. */
  majority: number;
  /** Accuracy of the most frequent answer to the very same question; of an unknown question, the most frequent answer of all. */
  question: number;
}

interface Asked {
  question: string;
  right: readonly string[];
}

/**
 * Accuracies on a multiple-choice task of guesses made of its training split alone. Of equally frequent answers the first that occurs counts.
 * @param options `limit`: on the first so many documents, or such a share of them, as an evaluation with this limit
 * @returns undefined for a task of another kind, without a training split, or whose data set does not tell its splits apart
 * @throws as loading the task's documents does
 */
export async function answerPriors(
  task: Task,
  { limit, dataFolder }: { limit?: number | undefined; dataFolder?: string } = {},
): Promise<AnswerPriors | undefined> {
  const { training_split: split } = task;
  if (task.output_type !== 'multiple_choice' || split == null) return undefined;
  const { asked: learned, sha256: before } = await askedOf({ ...task, test_split: split }, dataFolder);
  const { asked, sha256 } = await askedOf(task, dataFolder);
  // A data set without splits: nothing can be learned from the very questions.
  if (before === sha256) return undefined;
  const tested = asked.slice(0, limitedCount(asked.length, limit));
  const all = new Map<string, number>();
  const byQuestion = new Map<string, Map<string, number>>();
  for (const { question, right } of learned) {
    const own = byQuestion.get(question) ?? new Map<string, number>();
    byQuestion.set(question, own);
    for (const answer of right) {
      all.set(answer, (all.get(answer) ?? 0) + 1);
      own.set(answer, (own.get(answer) ?? 0) + 1);
    }
  }
  const usual = mostFrequent(all)!;
  const accuracy = (answer: (question: string) => string): number =>
    tested.filter(({ question, right }) => right.includes(answer(question))).length / tested.length;
  return {
    majority: accuracy(() => usual),
    question: accuracy((question) => mostFrequent(byQuestion.get(question) ?? all)!),
  };
}

async function askedOf(
  task: Task,
  dataFolder: string | undefined,
): Promise<{ asked: Asked[]; sha256: string }> {
  const maker = new QuestionMaker(task);
  const { rows, sha256 } = await loadDocuments(task, dataFolder);
  const asked = processRows(rows, task.process_docs, task.task).map((row, i) => {
    const { pairs, choices, gold } = maker.make(row, i);
    return { question: pairs[0]!.context, right: gold.map((at) => choices[at]!) };
  });
  return { asked, sha256 };
}
