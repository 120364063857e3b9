import { LanguageModel, type MatchedNames, matchNames, resolveLayers } from '../models/language/index.ts';
import { routerBufferRule, routerRule } from '../models/language/initial-values.ts';
import type { Experts } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { noGrad, type Tensor, view } from '../tensor/index.ts';
import { addExpertNoise, type NoiseReport } from './expert-noise.ts';
import { checkedOptions, type UpcycleOptions, upcycledConfig } from './options.ts';
import { whyUnlikeDense } from './unlike-dense.ts';

/** What {@link upcycle} did with every parameter. */
export interface UpcycleReport {
  /** Indices of the layers that became MoE layers. */
  layers: number[];
  /** Parameters taken over unchanged: name in both models. */
  copied: string[];
  /** Dense feed-forward parameters and how often each was copied. */
  replicated: { from: string; to: string; copies: number }[];
  /** Parameters and buffers that the dense model does not have, drawn anew. */
  initialised: string[];
  /** What the dense model has too but `only` left out: drawn as in a new model. */
  leftOut: string[];
  /** What was done to the copies, where noise was asked for. */
  expertNoise?: NoiseReport;
  /** Why the new model does not compute what the dense one does; empty where it does. */
  unlikeDense: string[];
  parameters: { before: number; after: number };
}

/** Where a parameter of the new model comes from: a dense name, or undefined for a new one. */
function denseNameOf(name: string): string | undefined {
  const [, block, part] = /^(blocks\.\d+)\.moe\.(.+)$/.exec(name) ?? [];
  if (part === undefined) return name;
  const field = /^(?:experts|shared)\.(up|upBias|down|downBias)$/.exec(part)?.[1];
  return field === undefined ? undefined : `${block}.feedForward.${field}`;
}

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
  const { seed, only } = given;
  const model = new LanguageModel(config, {
    seed: only ? seed : 'later',
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
    const names = [...model.stateDict().keys()];
    const inherited = names.filter((name) => denseNameOf(name) !== undefined);
    const taken = only ? matchNames(inherited, only) : { matched: new Set(inherited), rest: [] };
    copyWeights(dense, model, taken, report, !only);
    drawRouters(model, given, report);
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

/** @param whole nothing of the dense model may be lost */
function copyWeights(
  dense: LanguageModel,
  model: LanguageModel,
  { matched, rest }: MatchedNames,
  report: UpcycleReport,
  whole: boolean,
): void {
  const before = dense.stateDict();
  const state = model.stateDict();
  const used = new Set<string>();
  report.leftOut.push(...rest);
  for (const name of matched) {
    const from = denseNameOf(name)!;
    const source =
      before.get(from) ??
      fail('ERR_LIBMOE_CHECKPOINT', `upcycling: ${name} needs ${from}, which the dense model does not have`);
    const copies = copyInto(state.get(name)!, source, name);
    used.add(from);
    if (from === name) report.copied.push(name);
    else report.replicated.push({ from, to: name, copies });
  }
  const lost = [...before.keys()].filter((name) => !used.has(name));
  if (whole && lost.length > 0) {
    fail('ERR_LIBMOE_CHECKPOINT', `upcycling would lose ${lost.slice(0, 8).join(', ')} of the dense model`);
  }
}

/** Draws what the dense model has nothing of. */
function drawRouters(
  model: LanguageModel,
  { seed, initStd, initScheme, initSeeds }: ReturnType<typeof checkedOptions>,
  report: UpcycleReport,
): void {
  const trained = model.namedParameters();
  const std = initScheme === 'kaiming-uniform' ? undefined : initStd;
  const init = { std, scheme: initScheme, seeds: initSeeds };
  for (const [name, target] of model.stateDict()) {
    if (denseNameOf(name) !== undefined) continue;
    const rule = trained.has(name) ? routerRule(model, name, init) : routerBufferRule(model, name);
    rule?.(target, { seed, name });
    report.initialised.push(name);
  }
}

/** Fills `target` with copies of `source`, one per expert. */
function copyInto(target: Tensor, source: Tensor, name: string): number {
  const copies = target.size / source.size;
  if (!Number.isInteger(copies)) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `upcycling: ${name} [${target.shape.join(', ')}] cannot hold copies of [${source.shape.join(', ')}]`,
    );
  }
  const values = source.readSync();
  noGrad(() => {
    for (let copy = 0; copy < copies; copy++) {
      using part = view(target, source.shape, copy * source.size);
      part.write(values);
    }
  });
  return copies;
}
