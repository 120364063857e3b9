import { z } from 'zod';
import { type Compat, routerDefinition, routerNames } from '../../../ts/moe/index.ts';
import { made } from './routed.ts';

type Flavour = 'language' | 'vision-language';

export interface RouterCase {
  name: string;
  compat: Compat;
  /** What the router must be told to be made at all. */
  options: { flavour?: Flavour };
  /** How many of 4 experts a token may have, of 1, 2 and 4: top 1 alone is the method of some papers. */
  topKs: number[];
}

/** Whether a router of 4 experts can be made; what it refuses it must refuse for `reason`. */
function accepts(
  { name, compat, options }: Omit<RouterCase, 'topKs'>,
  topK: number,
  reason: RegExp,
): boolean {
  try {
    made(name, { experts: 4, topK, compat }, options).dispose();
    return true;
  } catch (error) {
    if (!reason.test(String(error))) throw error;
    return false;
  }
}

/**
 * Every registered router in every behaviour it has, with options that it accepts there. LibMoE has every one of its methods in the
 * vision-language layers, not all of them in language models: `first` is the flavour to prefer in compat libmoe.
 */
export function routerCases(first: Flavour): RouterCase[] {
  const flavours = [first, first === 'language' ? 'vision-language' : 'language'] as const;
  return routerNames().flatMap((name) => {
    const definition = routerDefinition(name);
    const flavoured = definition.options instanceof z.ZodObject && 'flavour' in definition.options.shape;
    return (definition.compat ?? ['fixed']).map((compat) => {
      const choices = compat === 'libmoe' && flavoured ? flavours.map((flavour) => ({ flavour })) : [{}];
      const options = choices.find((given) =>
        accepts({ name, compat, options: given }, 1, /LibMoE's language models cannot/),
      );
      if (!options) throw new Error(`no options make router ${name} in compat ${compat}`);
      const topKs = [1, 2, 4].filter((k) => accepts({ name, compat, options }, k, k > 1 ? /topK/ : /^$/));
      return { name, compat, options, topKs };
    });
  });
}
