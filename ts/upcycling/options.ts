import { z } from 'zod';
import {
  type FeedForwardConfig,
  type LanguageModelConfig,
  layerSelectionSchema,
  type MoeConfig,
  resolveLayers,
} from '../models/language/index.ts';
import { coefficientSchema, matrixInitSchema, routerDefinition } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { initSchemes } from '../nn/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import { expertNoiseSchema } from './expert-noise.ts';

/** LibMoE's standard deviation of new routers. */
const usualStd = 0.02;
const count = z.number().int().positive();

/** How a dense model becomes a mixture of experts; unknown keys are errors. */
export const upcycleOptionsSchema = z.strictObject({
  experts: count,
  topK: count,
  /** A registered router, by name or with its options. */
  router: z.union([z.string(), z.looseObject({ name: z.string() })]).default('smoe'),
  /** Which feed-forward layers become MoE layers: `all`, `every:2` (layers 1, 3, …), or a list of indices. */
  layers: layerSelectionSchema.default('all'),
  /** Standard deviation of the new router weights; LibMoE uses 0.02. Not for `kaiming-uniform`, whose bound is 1/√width. */
  initStd: z.number().positive().default(usualStd),
  /** How the router weights are drawn; what the router's own option `init` says comes first. */
  initScheme: z.enum(initSchemes).default('normal'),
  /** Seeds of the routers alone: one per layer of the model (equal seeds, equal routers), or layer 0's, to which the others add their index. */
  initSeeds: matrixInitSchema.shape.seeds,
  /** Seeds the routers, each by its layer, the expert noise, and what `only` leaves out. */
  seed: z.number().int().nonnegative().default(0),
  /** Makes the copies differ: parts drawn anew, or noise added. */
  expertNoise: expertNoiseSchema.optional(),
  /**
   * Take over only the tensors of the new model whose names match one of these patterns (`*` is any text: `*.moe.shared.*`); the others are drawn
   * as those of a new model.
   */
  only: z.array(z.string().min(1)).min(1).optional(),
  /** A further copy of the dense layer that sees every token; default: if the router's method has one. */
  shared: z.boolean().optional(),
  /** How shared and routed output add up; default `half` (½ + ½, which keeps the dense output). */
  sharedMix: z.enum(['half', 'sum']).optional(),
  routedScaling: z.number().positive().default(1),
  capacityFactor: z.number().positive().optional(),
  /** Factor of the diversity loss in training. */
  diversityCoefficient: coefficientSchema.optional(),
  dropPolicy: z.enum(['position', 'probability', 'random', 'batch-prioritised']).optional(),
  compat: z.enum(['fixed', 'libmoe', 'original']).default('fixed'),
  /** Draw experts as those of a new model instead of copying the dense layer into them: its weights are lost. */
  fromScratch: z.boolean().default(false),
  /** Width of an expert. Must be the dense width: a narrower expert would lose dense weights. */
  hidden: count.optional(),
});
/** Options of {@link upcycle}; defaults may be left out. */
export type UpcycleOptions = z.input<typeof upcycleOptionsSchema>;
/** The same with every default written out. */
export type CheckedUpcycleOptions = z.output<typeof upcycleOptionsSchema>;

/** The options with every default. @throws ERR_LIBMOE_CONFIG */
export function checkedOptions(options: UpcycleOptions): CheckedUpcycleOptions {
  const parsed = upcycleOptionsSchema.safeParse(options);
  if (!parsed.success) {
    return fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: ${explainIssues(upcycleOptionsSchema, parsed.error.issues, options)}`,
    );
  }
  const { initScheme, initStd, fromScratch, expertNoise } = parsed.data;
  if (fromScratch && expertNoise !== undefined)
    fail('ERR_LIBMOE_CONFIG', 'upcycling: expertNoise is for copies; experts from scratch differ anyway');
  if (initScheme === 'kaiming-uniform' && initStd !== usualStd)
    fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: initScheme kaiming-uniform has the bound 1/√width and takes no initStd, got ${initStd}: leave it out, or choose another scheme`,
    );
  return parsed.data;
}

/** The mixture of experts that dense layers of this form become. @throws ERR_LIBMOE_CONFIG where dense weights would be lost */
export function upcycledMoe(
  given: CheckedUpcycleOptions,
  dense: FeedForwardConfig,
  layers: number,
): MoeConfig {
  if (given.hidden !== undefined && given.hidden !== dense.hidden) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: experts of width ${given.hidden} cannot take the dense layer of width ${dense.hidden}; its weights would be lost: leave "hidden" out`,
    );
  }
  if (given.topK > given.experts) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `upcycling: topK ${given.topK} is more than the ${given.experts} experts there are`,
    );
  }
  const router = typeof given.router === 'string' ? { name: given.router } : given.router;
  const shared = given.shared ?? routerDefinition(router.name).sharedExpert ?? false;
  return {
    layers: resolveLayers(given.layers, layers).length === layers ? 'all' : given.layers,
    experts: given.experts,
    topK: given.topK,
    router,
    expert: dense,
    ...(shared && { shared: { hidden: dense.hidden } }),
    sharedMix: given.sharedMix ?? (shared ? 'half' : 'sum'),
    routedScaling: given.routedScaling,
    ...(given.capacityFactor !== undefined && { capacityFactor: given.capacityFactor }),
    ...(given.diversityCoefficient !== undefined && { diversityCoefficient: given.diversityCoefficient }),
    ...(given.dropPolicy !== undefined && { dropPolicy: given.dropPolicy }),
    compat: given.compat,
  };
}

/** The configuration of the upcycled model. @throws ERR_LIBMOE_CONFIG where dense weights would be lost */
export function upcycledConfig(dense: LanguageModelConfig, options: UpcycleOptions): LanguageModelConfig {
  const given = checkedOptions(options);
  if (dense.moe !== undefined) {
    fail('ERR_LIBMOE_CONFIG', 'upcycling: the model already has MoE layers; upcycle a dense one');
  }
  return { ...dense, moe: upcycledMoe(given, dense.feedForward, dense.layers) };
}
