import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { optimizer, recipeSchema, schedule } from '../../ts/index.ts';
import { explainIssues, nearestKey } from '../../ts/storage/schema-errors.ts';

const minimal = {
  name: 'x',
  tokenizer: 't',
  data: { train: { files: 'a.txt' }, sequenceLength: 8, batchSequences: 2 },
  training: { steps: 1 },
};

function explained(schema: z.ZodType, input: unknown): string {
  const parsed = schema.safeParse(input);
  return parsed.success ? 'accepted' : explainIssues(schema, parsed.error.issues, input);
}
const recipe = (changes: object) => explained(recipeSchema, { ...minimal, ...changes });
const data = (train: unknown) => recipe({ data: { ...minimal.data, train } });

describe('a wrong key is explained', () => {
  it.each<[string, string, string]>([
    [
      'of the chosen member of a discriminated union',
      recipe({ training: { steps: 1, optimizer: { name: 'adamw', betta1: 0.9 } } }),
      'unknown key "training.optimizer.betta1", did you mean "beta1"?',
    ],
    [
      'and not with the keys of another member',
      recipe({ training: { steps: 1, optimizer: { name: 'adamw', momentum: 0.9 } } }),
      'unknown key "training.optimizer.momentum" (known: name, beta1, beta2, eps, weightDecay',
    ],
    [
      'left short',
      recipe({ training: { steps: 1, schedule: { name: 'cosine', learningRate: 1, warmup: 3 } } }),
      'unknown key "training.schedule.warmup", did you mean "warmupSteps"?',
    ],
    [
      'inside a union of a string and a map',
      recipe({ tokenizer: { train: { vocabSize: 300 } } }),
      'unknown key "tokenizer.train.vocabSize", did you mean "vocabularySize"?',
    ],
    ['of the union itself', data({ fles: 'a.txt' }), 'unknown key "data.train.fles", did you mean "files"?'],
    [
      'of the branch that its other keys name',
      data({ dataset: 'sotu', splt: 'train' }),
      'unknown key "data.train.splt", did you mean "split"?',
    ],
    [
      'in a map of unions',
      recipe({ data: { ...minimal.data, heldOut: { years: { fils: 'a' } } } }),
      'unknown key "data.heldOut.years.fils", did you mean "files"?',
    ],
    [
      'in a list',
      explained(z.strictObject({ list: z.array(z.strictObject({ metric: z.string() })) }), {
        list: [{ metric: 'a', metrik: 'b' }],
      }),
      'unknown key "list.0.metrik", did you mean "metric"?',
    ],
  ])('%s', (_, text, expected) => {
    expect(text).toContain(expected);
    expect(text).not.toContain('known: none');
  });
});

describe('a wrong value is explained with what came', () => {
  it.each<[string, string, string]>([
    [
      'a choice inside a union',
      data({ dataset: 'sotu', split: 'trai' }),
      'data.train.split: Invalid option: expected one of "train"|"heldOut"|"shifted", got "trai"',
    ],
    ['no branch of this kind', data(3), 'data.train: expected object, got 3'],
    ['two kinds', data({ files: 3 }), 'data.train.files: expected string or array, got 3'],
    [
      'the name of a discriminated union',
      recipe({ training: { steps: 1, optimizer: { name: 'adam' } } }),
      'training.optimizer.name: expected adamw or sgd, got "adam", did you mean "adamw"?',
    ],
    [
      'its absence',
      recipe({ training: { steps: 1, optimizer: {} } }),
      'training.optimizer.name: expected adamw or sgd, got nothing',
    ],
    ['a number out of range', recipe({ seed: -1 }), 'seed: Too small: expected number to be >=0, got -1'],
    ['a missing key', recipe({ name: undefined }), 'name: expected string, got nothing'],
  ])('%s', (_, text, expected) => {
    expect(text).toContain(expected);
  });

  it('by optimizer and schedule alike', () => {
    expect(() => optimizer(new Map(), { name: 'adamw', betta1: 1 } as never)).toThrow(
      'ERR_LIBMOE_CONFIG: optimizer: unknown key "betta1", did you mean "beta1"?',
    );
    expect(() => schedule({ name: 'noam', learningRate: 1, warmupStep: 1 } as never, 10)).toThrow(
      'unknown key "warmupStep", did you mean "warmupSteps"?',
    );
  });
});

describe('nearestKey', () => {
  it('finds slips and abbreviations, and nothing where nothing is near', () => {
    const known = ['vocabularySize', 'files', 'warmupSteps', 'eps'];
    expect(nearestKey('flies', known)).toBe('files');
    expect(nearestKey('vocabSize', known)).toBe('vocabularySize');
    expect(nearestKey('warmupStepsCount', known)).toBe('warmupSteps');
    expect(nearestKey('momentum', known)).toBeUndefined();
  });
});
