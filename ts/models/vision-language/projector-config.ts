import { z } from 'zod';
import { routerDefinition } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { activationNames } from '../../nn/feed-forward.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import { moeSchema } from '../language/config.ts';
import { withFlavour } from '../vision/config.ts';

/** The mixture of experts in a projector: as in a language model, but there is one layer, and its experts have the form of `mlp2x_gelu`. */
export const projectorMoeSchema = moeSchema.omit({ layers: true, expert: true, shared: true }).extend({
  router: z.looseObject({ name: z.string() }).default({ name: 'smoe' }),
  /** A further expert of the same form that sees every token. */
  shared: z.boolean().optional(),
});

/** Between tower and language model; unknown keys are errors. */
export const projectorSchema = z.strictObject({
  /** `linear`; `mlpNx_gelu`: N linear layers with the activation between them; `moe`: experts of the form of `mlp2x_gelu`; `identity`. */
  type: z
    .string()
    .regex(
      /^(linear|identity|moe|mlp[1-9]\d?x_gelu)$/,
      'must be linear, mlpNx_gelu (N from 1 to 99), moe or identity',
    )
    .default('mlp2x_gelu'),
  activation: z.enum(activationNames).exclude(['clampedSwiglu']).default('gelu'),
  bias: z.boolean().default(true),
  /** Before all else, factor × factor neighbouring rows become one that is factor² times as wide. */
  pixelShuffle: z.number().int().positive().default(1),
  moe: projectorMoeSchema.optional(),
});

/** What a user writes of a projector: defaults may be left out. */
export type ProjectorOptions = z.input<typeof projectorSchema>;
/** A projector, every default written out. */
export type ProjectorConfig = z.output<typeof projectorSchema>;

/** Checks a projector's configuration and writes out its defaults. @throws ERR_LIBMOE_CONFIG */
export function resolveProjectorConfig(options: unknown): ProjectorConfig {
  const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `projector: ${message}`);
  const parsed = projectorSchema.safeParse(options);
  if (!parsed.success) return wrong(explainIssues(projectorSchema, parsed.error.issues, options));
  const { type, moe } = parsed.data;
  if (type === 'moe' && !moe) wrong('type "moe" needs moe: { experts, topK, … }');
  if (type !== 'moe' && moe) wrong(`moe goes with type "moe", not "${type}"`);
  if (moe && moe.topK > moe.experts)
    wrong(`moe.topK ${moe.topK} is more than the ${moe.experts} experts there are`);
  if (moe && routerDefinition(moe.router.name).byTokenId)
    wrong(
      `router "${moe.router.name}" goes by the ids of tokens, which rows of images have not: choose another`,
    );
  if (moe?.sharedMix === 'half' && !moe.shared) wrong('moe.sharedMix "half" needs moe.shared');
  return moe ? { ...parsed.data, moe: { ...moe, router: withFlavour(moe.router) } } : parsed.data;
}

/** Linear layers of a projector without experts. */
export function linearLayersOf({ type }: Pick<ProjectorConfig, 'type'>): number {
  if (type === 'linear') return 1;
  return Number(/^mlp(\d+)x_gelu$/.exec(type)?.[1] ?? 0);
}
