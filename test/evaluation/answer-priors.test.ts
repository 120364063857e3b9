import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { answerPriors, defineTask, registerDataset } from '../../ts/evaluation/index.ts';

// By split: which answer follows which question.
const rows: Record<string, [question: string, answer: string][]> = {
  train: [
    ['is it red?', 'yes'],
    ['is it red?', 'no'],
    ['is it red?', 'yes'],
    ['what is it?', 'cat'],
    ['is it big?', 'no'],
    ['is it blue?', 'no'],
    ['is it green?', 'no'],
  ],
  test: [
    ['is it red?', 'yes'],
    ['is it red?', 'no'],
    ['what is it?', 'cat'],
    ['what is it?', 'yes'],
    ['is it new?', 'no'],
  ],
};
registerDataset('answer-priors', {
  options: z.strictObject({}),
  load: (_, { split }) =>
    rows[split!]!.map(([question, answer]) => ({ question, answer, choices: ['yes', 'no', 'cat'] })),
});
const task = {
  task: 'seen',
  dataset_path: 'answer-priors',
  output_type: 'multiple_choice',
  doc_to_text: 'question',
  doc_to_choice: 'choices',
  doc_to_target: 'answer',
  test_split: 'test',
};

describe('what guesses score', () => {
  it('is learned from the training split, by answer and by question', async () => {
    // no is the most frequent answer (4 of 7); by question: yes, yes, cat, cat, and no for what training never asked.
    expect(await answerPriors(defineTask({ ...task, training_split: 'train' }))).toEqual({
      majority: 2 / 5,
      question: 3 / 5,
    });
  });

  it('is of the documents that are asked about, the first of a limit', async () => {
    const some = defineTask({
      ...task,
      training_split: 'train',
      process_docs: { function: 'where', column: 'question', is_not: 'is it red?' },
    });
    // Left to learn from: no three times and cat; left to answer: cat, yes, no.
    expect(await answerPriors(some)).toEqual({ majority: 1 / 3, question: 2 / 3 });
    expect(await answerPriors(some, { limit: 1 })).toEqual({ majority: 0, question: 1 });
  });

  it('is unknown without a training split of its own', async () => {
    expect(await answerPriors(defineTask(task))).toBeUndefined();
    expect(await answerPriors(defineTask({ ...task, training_split: 'test' }))).toBeUndefined();
  });
});
