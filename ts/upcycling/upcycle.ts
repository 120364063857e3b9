import { z } from 'zod';
import {
  LanguageModel,
  type LanguageModelConfig,
  layerSelectionSchema,
  resolveLayers,
} from '../models/language/index.ts';
import { routerStart } from '../models/language/initial-values.ts';
import { routerDefinition } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { normal } from '../nn/initialisers.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import { noGrad, type Tensor, view } from '../tensor/index.ts';

const count = z.number().int().positive();

/** How a dense model becomes a mixture of experts; unknown keys are errors. */
export const upcycleOptionsSchema = z.strictObject({
  experts: count,
  topK: count,
  /** A registered router, by name or with its options. */
  router: z.union([z.string(), z.looseObject({ name: z.string() })]).default('smoe'),
  /** Which feed-forward layers become MoE layers: `all`, `every:2` (layers 1, 3, …), or a list of indices. */
  layers: layerSelectionSchema.default('all'),
  /** Standard deviation of the new router weights; LibMoE uses 0.02. */
  initStd: z.number().positive().default(0.02),
  /** Seeds the routers, each by its layer. */
  seed: z.number().int().nonnegative().default(0),
  /** A further copy of the dense layer that sees every token; default: if the router's method has one. */
  shared: z.boolean().optional(),
  /** How shared and routed output add up; default `half` (½ + ½, which keeps the dense output). */
  sharedMix: z.enum(['half', 'sum']).optional(),
  routedScaling: z.number().positive().default(1),
  capacityFactor: z.number().positive().optional(),
  dropPolicy: z.enum(['position', 'probability', 'random', 'batch-prioritised']).optional(),
  compat: z.enum(['fixed', 'libmoe', 'original']).default('fixed'),
  /** Width of an expert. Must be the dense width: a narrower expert would lose dense weights. */
  hidden: count.optional(),
});
/** Options of {@link upcycle}; defaults may be left out. */
export type UpcycleOptions = z.input<typeof upcycleOptionsSchema>;

/** What {@link upcycle} did with every parameter. */
export interface UpcycleReport {
  /** Indices of the layers that became MoE layers. */
  layers: number[];
  /** Parameters taken over unchanged: name in both models. */
  copied: string[];
  /** Dense feed-forward parameters and how often each was copied. */
  replicated: { from: string; to: string; copies: number }[];
  /** Parameters that the dense model does not have, drawn anew. */
  initialised: string[];
  parameters: { before: number; after: number };
}

function checkedOptions(options: UpcycleOptions): z.output<typeof upcycleOptionsSchema> {
  const parsed = upcycleOptionsSchema.safeParse(options);
  if (!parsed.success) {
    return fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: ${explainIssues(upcycleOptionsSchema, parsed.error.issues, options)}`,
    );
  }
  return parsed.data;
}

/** The configuration of the upcycled model. @throws ERR_LIBMOE_CONFIG where dense weights would be lost */
export function upcycledConfig(dense: LanguageModelConfig, options: UpcycleOptions): LanguageModelConfig {
  const given = checkedOptions(options);
  if (dense.moe !== undefined) {
    fail('ERR_LIBMOE_CONFIG', 'upcycling: the model already has MoE layers; upcycle a dense one');
  }
  if (given.hidden !== undefined && given.hidden !== dense.feedForward.hidden) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: experts of width ${given.hidden} cannot take the dense layer of width ${dense.feedForward.hidden}; its weights would be lost: leave "hidden" out`,
    );
  }
  if (given.topK > given.experts) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: topK ${given.topK} is more than the ${given.experts} experts there are`,
    );
  }
  const { hidden } = dense.feedForward;
  const router = typeof given.router === 'string' ? { name: given.router } : given.router;
  const shared = given.shared ?? routerDefinition(router.name).sharedExpert ?? false;
  return {
    ...dense,
    moe: {
      layers: resolveLayers(given.layers, dense.layers).length === dense.layers ? 'all' : given.layers,
      experts: given.experts,
      topK: given.topK,
      router,
      expert: dense.feedForward,
      ...(shared && { shared: { hidden } }),
      sharedMix: given.sharedMix ?? (shared ? 'half' : 'sum'),
      routedScaling: given.routedScaling,
      ...(given.capacityFactor !== undefined && { capacityFactor: given.capacityFactor }),
      ...(given.dropPolicy !== undefined && { dropPolicy: given.dropPolicy }),
      compat: given.compat,
    },
  };
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
 * into every expert of its layer, and only the routers are new, N(0, initStd²) from the seed and the layer. With weights that sum to 1 the new
 * model computes what the dense one does.
 * @throws ERR_LIBMOE_CONFIG for a model that is a MoE already or options under which dense weights would be lost; the dense model stays as it is
 */
export function upcycleWithReport(
  dense: LanguageModel,
  options: UpcycleOptions,
): { model: LanguageModel; report: UpcycleReport } {
  const config = upcycledConfig(dense.config, options);
  const { initStd, seed } = checkedOptions(options);
  const before = dense.stateDict();
  const model = new LanguageModel(config, { seed: 'later', dtype: dense.dtype, device: dense.device });
  // The tokenizer stays the same.
  if (dense.checkpoint !== undefined) model.checkpoint = dense.checkpoint;
  if (dense.specialTokens !== undefined) model.specialTokens = dense.specialTokens;
  const report: UpcycleReport = {
    layers: resolveLayers(config.moe!.layers, config.layers),
    copied: [],
    replicated: [],
    initialised: [],
    parameters: { before: dense.parameterCount(), after: model.parameterCount() },
  };
  try {
    const used = new Set<string>();
    const trained = model.namedParameters();
    for (const [name, target] of model.stateDict()) {
      const from = denseNameOf(name);
      if (from === undefined) {
        if (trained.has(name)) routerStart(model, name, normal(initStd))?.(target, { seed, name });
        report.initialised.push(name);
        continue;
      }
      const source = before.get(from);
      if (source === undefined) {
        return fail(
          'ERR_LIBMOE_CHECKPOINT',
          `upcycling: ${name} needs ${from}, which the dense model does not have`,
        );
      }
      const copies = copyInto(target, source, name);
      used.add(from);
      if (from === name) report.copied.push(name);
      else report.replicated.push({ from, to: name, copies });
    }
    const lost = [...before.keys()].filter((name) => !used.has(name));
    if (lost.length > 0) {
      fail('ERR_LIBMOE_CHECKPOINT', `upcycling would lose ${lost.slice(0, 8).join(', ')} of the dense model`);
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
