import { z } from 'zod';
import { coefficientSchema } from '../coefficient.ts';
import { balanceModes, type GateLossOptions } from '../losses.ts';
import type { RouterPlace } from '../registry.ts';

/** Options of every router: which losses it adds to the objective. What is left out follows the flavour. */
export const lossOptions = z.object({
  /** Defaults of LibMoE's language models or of its vision-language layers. */
  flavour: z.enum(['language', 'vision-language']).default('language'),
  balance: z.enum(balanceModes).optional(),
  /** Factor of the balance loss. */
  balanceCoefficient: coefficientSchema.default(0.01),
  /** Factor of the router z-loss; default 0, in vision-language models 0.001. */
  zCoefficient: coefficientSchema.optional(),
});
/** {@link lossOptions} with every default written out. */
export type LossOptions = z.output<typeof lossOptions>;

/** The losses of both flavours. */
export function lossesOf(options: LossOptions, place: RouterPlace): Omit<GateLossOptions, 'topK'> {
  const language = options.flavour === 'language';
  return {
    balance: options.balance ?? (language ? 'standard' : 'switch'),
    balanceCoefficient: options.balanceCoefficient,
    zCoefficient: options.zCoefficient ?? (language ? 0 : 0.001),
    // LibMoE's vision-language layers count the first of the K choices only.
    choices: place.compat === 'libmoe' && !language ? 'first' : 'all',
  };
}
