import path from 'node:path';
import type { TokenBatch } from '../data/index.ts';
import { languageAdapter } from '../evaluation/language-adapter.ts';
import { readModelWeights, writeModelFiles } from '../models/language/checkpoint.ts';
import { moeLayersOf, parameterReport } from '../models/language/index.ts';
import { type Callback, tokenBatches } from '../training/index.ts';
import { tasksOf } from './evaluation.ts';
import type { Job, JobSetting } from './job.ts';
import type { Recipe } from './language-recipe.ts';
import { withLora } from './lora.ts';
import { makeModel } from './model.ts';
import { type Prepared, prepareData } from './prepare.ts';
import { copyTokenizer } from './prepare-tokenizer.ts';
import { resolvedRecipe } from './resolve.ts';
import { routingLogger, routingProbe } from './routing-log.ts';

/** A language model with its tokenised corpus. */
export async function languageJob(recipe: Recipe, setting: JobSetting): Promise<Job<TokenBatch>> {
  const { out, checkpoint, strategy, log, signal } = setting;
  const { rank, worldSize: world } = strategy;
  const preparing = { log, signal, checkpoint, shard: { rank, world } };
  // All have looked at the folder; one fills it.
  await strategy.reduceCounts([0]);
  let filled: Prepared | undefined;
  await strategy.onFirstRank(async () => {
    filled = await prepareData(recipe, out, preparing);
  });
  const prepared = filled ?? (await prepareData(recipe, out, { ...preparing, ready: true }));
  const { tokenizer, tokenizerFolder, dataset, loader } = prepared;
  try {
    const model = await makeModel(recipe, tokenizer, checkpoint, log);
    const lora = withLora(recipe.training.lora, model, { seed: recipe.seed, parts: [''], log });
    const { moe } = model.config;
    const report = parameterReport(model.config, recipe.data.sequenceLength);
    return {
      model,
      loader,
      batches: tokenBatches,
      steps: recipe.training.steps,
      checkpointEvery: recipe.training.checkpointEvery,
      resolved: resolvedRecipe(recipe, model.config.vocabularySize),
      facts: {
        model: moe ? `${moe.experts} experts, top ${moe.topK}, ${moe.router.name}` : 'dense',
        parameters: report.total,
        activeParameters: report.active,
        flopsPerToken: report.flopsPerToken,
      },
      saveModel(folder) {
        lora.save(folder, () => writeModelFiles(model, folder));
        copyTokenizer(tokenizerFolder, folder);
      },
      loadModel: (folder) => lora.load(folder, () => readModelWeights(model, folder)),
      tasks: () => tasksOf(recipe, tokenizer),
      evaluated: (facts) => languageAdapter(model, { tokenizer, name: recipe.name, facts }),
      async callbacks(): Promise<Callback[]> {
        const { routing } = recipe.logging;
        if (!routing) return [];
        if (moeLayersOf(model.config).length === 0) {
          log('logging.routing: this model has no routers, nothing is recorded');
          return [];
        }
        const probe = await routingProbe(recipe, prepared, routing.tokens);
        return [routingLogger(model, probe, path.join(out, 'routing', 'tokens.records'), routing.every)];
      },
      dispose() {
        model.dispose();
        dataset.close();
      },
    };
  } catch (error) {
    dataset.close();
    throw error;
  }
}
