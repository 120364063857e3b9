import { loadTokenizer } from '../data/index.ts';
import { readModelConfig } from '../models/language/checkpoint.ts';
import {
  type LanguageModelConfig,
  parameterReport,
  resolveLanguageModelConfig,
} from '../models/language/index.ts';
import { upcycledConfig } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe } from './language-recipe.ts';
import { plannedMemory } from './plan-memory.ts';
import type { Reckoning } from './plan-reckoning.ts';
import { settingsOf } from './plan-reckoning.ts';
import { type RouterOnProbe, routerOnProbe } from './plan-router.ts';
import { learnedOfLanguage } from './plan-trained.ts';

/**
 * The configuration of the model that a recipe trains.
 * @param before what the recipe's checkpoint will hold, where a stage before it is to write that
 * @throws ERR_LIBMOE_RECIPE and what reading the checkpoint or the tokenizer throws
 */
export function plannedModel(recipe: Recipe, before?: LanguageModelConfig): LanguageModelConfig {
  if (recipe.start) {
    const config = before ?? readModelConfig(resolveCheckpoint(recipe.start.checkpoint));
    return recipe.start.upcycle ? upcycledConfig(config, recipe.start.upcycle) : config;
  }
  return resolveLanguageModelConfig({
    ...recipe.model,
    vocabularySize: recipe.model?.vocabularySize ?? vocabularyOf(recipe.tokenizer!),
  });
}

/** Ids of a tokenizer that is there or will be trained. */
export function vocabularyOf(tokenizer: string | { train: { vocabularySize: number } }): number {
  if (typeof tokenizer === 'object') return tokenizer.train.vocabularySize;
  return loadTokenizer(tokenizer).vocabularySize;
}

/** What the training of a language model takes, wherever it runs. */
export function reckonLanguage(recipe: Recipe, before?: LanguageModelConfig): Reckoning {
  const config = plannedModel(recipe, before);
  const { data, training, precision } = recipe;
  const report = parameterReport(config, data.sequenceLength);
  const settings = settingsOf(recipe, {
    sequenceLength: data.sequenceLength,
    batchSequences: data.batchSequences,
  });
  const probes = new Map<Recipe['precision'], RouterOnProbe>();
  const routerIn = (precision: Recipe['precision']): RouterOnProbe | undefined => {
    if (!config.moe) return undefined;
    const known = probes.get(precision) ?? routerOnProbe(config, precision, training.steps);
    probes.set(precision, known);
    return known;
  };
  const tokensPerStep = data.batchSequences * data.sequenceLength;
  const learned = learnedOfLanguage(training.lora, config, report.total);
  // Of a frozen matrix there is no gradient; attention has no weights.
  const forward = report.flopsPerToken / 3;
  const products = parameterReport(config, 1).flopsPerToken / 3;
  const share = learned.trained / (report.total + learned.beside);
  const flopsPerStep = (2 * forward + (forward - products) + share * products) * tokensPerStep;
  return {
    name: recipe.name,
    device: recipe.device,
    precision,
    model: { kind: 'language', config },
    parameters: report.total + learned.beside,
    activeParameters: report.active + learned.beside,
    trainedParameters: learned.trained,
    tokensPerStep,
    flopsPerStep,
    flopsAgain: forward * tokensPerStep,
    steps: training.steps,
    settings,
    memoryOf: (change) =>
      plannedMemory(
        config,
        report,
        routerIn(change.precision ?? precision),
        { ...settings, ...change },
        learned,
      ),
    notes: [],
  };
}
