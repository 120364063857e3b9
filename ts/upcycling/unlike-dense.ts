import type { MoeConfig } from '../models/language/index.ts';
import { routerDefinition } from '../moe/index.ts';

/**
 * Why a model with this configuration, all of whose experts are copies of one dense layer, does not compute what the dense model does: one
 * sentence per reason, from the definition of its router, the options of its layers, and what was done to the copies.
 */
export function whyUnlikeDense(
  { moe }: { moe?: (Omit<MoeConfig, 'layers' | 'expert' | 'shared'> & { shared?: unknown }) | undefined },
  done: { expertNoise?: unknown; only?: unknown; fromScratch?: boolean } = {},
): string[] {
  if (moe === undefined) return [];
  const { name, ...options } = moe.router;
  const definition = routerDefinition(name);
  const why = definition.unlikeDense?.(definition.options.parse(options), moe);
  const reasons: string[] = [];
  if (why !== undefined) reasons.push(`router ${name}: ${why}`);
  if (moe.shared && moe.sharedMix === 'sum')
    reasons.push('sharedMix sum: the shared block and the experts are added, together twice the dense layer');
  if (moe.routedScaling !== 1)
    reasons.push(`routedScaling ${moe.routedScaling}: the output of the experts is multiplied by it`);
  if (moe.capacityFactor !== undefined)
    reasons.push(
      `capacityFactor ${moe.capacityFactor}: choices beyond the capacity of an expert are dropped and add nothing`,
    );
  if (done.fromScratch) reasons.push('fromScratch: the experts are new, the dense layers are lost');
  if (done.expertNoise !== undefined) reasons.push('expertNoise: the experts are no exact copies');
  if (done.only !== undefined) reasons.push('only: a part of the dense model was not taken over');
  return reasons;
}
