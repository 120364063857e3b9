import { LanguageModel, resolveLayers } from '../models/language/index.ts';
import type { Experts } from '../moe/index.ts';
import { blockNameOf, copyWeights, drawRouters, type UpcycleReport } from './copies.ts';
import { addExpertNoise } from './expert-noise.ts';
import { checkedOptions, type UpcycleOptions, upcycledConfig } from './options.ts';
import { whyUnlikeDense } from './unlike-dense.ts';

/**
 * Makes a mixture of experts of a dense model (Komatsuzaki et al. 2023, arXiv 2212.05055): every dense weight is copied, each feed-forward layer
 * into every expert of its layer, and only the routers are new, by default N(0, initStd²) from the seed and the layer. With weights that sum to 1
 * the new model computes what the dense one does; the report says where it does not.
 * @throws ERR_LIBMOE_CONFIG for a model that is a MoE already, options under which dense weights would be lost, or a pattern of `only` that
 * matches nothing; the dense model stays as it is
 */
export function upcycleWithReport(
  dense: LanguageModel,
  options: UpcycleOptions,
): { model: LanguageModel; report: UpcycleReport } {
  const config = upcycledConfig(dense.config, options);
  const given = checkedOptions(options);
  const { seed, only, fromScratch } = given;
  const model = new LanguageModel(config, {
    seed: only || fromScratch ? seed : 'later',
    dtype: dense.dtype,
    device: dense.device,
  });
  // The tokenizer stays the same.
  if (dense.checkpoint !== undefined) model.checkpoint = dense.checkpoint;
  if (dense.specialTokens !== undefined) model.specialTokens = dense.specialTokens;
  const report: UpcycleReport = {
    layers: resolveLayers(config.moe!.layers, config.layers),
    copied: [],
    replicated: [],
    initialised: [],
    leftOut: [],
    unlikeDense: whyUnlikeDense(config, given),
    parameters: { before: dense.parameterCount(), after: model.parameterCount() },
  };
  try {
    copyWeights(dense, model, blockNameOf, given, report);
    drawRouters(model, { routed: model }, blockNameOf, given, report);
    if (given.expertNoise) {
      for (const layer of report.layers) {
        const name = `blocks.${layer}.moe.experts`;
        const experts = model.blocks[layer]!.moe!.experts as Experts;
        report.expertNoise = addExpertNoise(experts, given.expertNoise, { seed, name });
      }
    }
  } catch (error) {
    model.dispose();
    throw error;
  }
  return { model, report };
}

/** As {@link upcycleWithReport}, without the report. */
export async function upcycle(dense: LanguageModel, options: UpcycleOptions): Promise<LanguageModel> {
  return upcycleWithReport(dense, options).model;
}
