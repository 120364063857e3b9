import type { Tokenizer } from '../data/index.ts';
import { readConfig } from '../models/language/checkpoint.ts';
import { LanguageModel, loadModel, takeOnly } from '../models/language/index.ts';
import { fail } from '../native/index.ts';
import { upcycleWithReport } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe } from './language-recipe.ts';

/**
 * The model of a recipe: a new one, a checkpoint's, or an upcycled one. A run that goes on has everything in its own checkpoint: the model is made
 * to that form, and training reads the weights.
 * @param own the checkpoint to go on from
 * @throws ERR_LIBMOE_RECIPE when the tokenizer has more ids than the model, and what loading and upcycling throw
 */
export async function makeModel(
  recipe: Recipe,
  tokenizer: Tokenizer,
  own: string | undefined,
  log: (line: string) => void,
): Promise<LanguageModel> {
  const dtype = recipe.precision;
  if (own !== undefined) return new LanguageModel(readConfig(own).config, { seed: 'later', dtype });
  if (recipe.model) {
    const vocabularySize = recipe.model.vocabularySize ?? tokenizer.vocabularySize;
    if (vocabularySize < tokenizer.vocabularySize) {
      fail(
        'ERR_LIBMOE_RECIPE',
        `model.vocabularySize ${vocabularySize} is less than the tokenizer's ${tokenizer.vocabularySize}: leave it out`,
      );
    }
    return new LanguageModel({ ...recipe.model, vocabularySize }, { seed: recipe.seed, dtype });
  }
  const { checkpoint, upcycle, only } = recipe.start!;
  const loaded = await loadModel(resolveCheckpoint(checkpoint), { dtype });
  if (!upcycle && !only) return loaded;
  try {
    if (!upcycle) {
      const { model, drawn } = takeOnly(loaded, only!, recipe.seed);
      log(`taken from ${checkpoint}: ${only!.join(', ')}; ${drawn.length} tensors drawn anew`);
      return model;
    }
    const { model, report } = upcycleWithReport(loaded, upcycle);
    log(
      `upcycled layers ${report.layers.join(', ')}: ${report.parameters.before.toLocaleString('en')} → ${report.parameters.after.toLocaleString('en')} parameters, ` +
        `${report.initialised.length} new tensors`,
    );
    for (const why of report.unlikeDense) log(`the model does not start as the dense one: ${why}`);
    return model;
  } finally {
    loaded.dispose();
  }
}
