import { z } from 'zod';
import { fail } from '../native/index.ts';
import type { Tensor } from '../tensor/index.ts';

/** A pattern over dotted parameter names; `*` stands for any characters: `*.bias`, `blocks.3.*`, `*norm*`. */
const pattern = z.string().min(1);

/** Which parameters are trained differently from the rest. */
export const parameterGroupOptions = {
  /** Parameters that are never decayed. Default none: LibMoE decays all of them (spec/algorithms.md §4.5). */
  excludeFromDecay: z.array(pattern).default([]),
  /** The first group whose pattern fits a name decides; what it leaves out is as for the rest. */
  groups: z
    .array(
      z.strictObject({
        match: pattern,
        weightDecay: z.number().nonnegative().optional(),
        /** Factor on the schedule's learning rate; 0 freezes. */
        learningRateScale: z.number().nonnegative().optional(),
      }),
    )
    .default([]),
};

export interface ParameterGroupOptions {
  excludeFromDecay: string[];
  groups: { match: string; weightDecay?: number | undefined; learningRateScale?: number | undefined }[];
}

/** How one parameter is trained. */
export interface ParameterSettings {
  weightDecay: number;
  learningRateScale: number;
}

/**
 * Decides for each parameter. Throws ERR_LIBMOE_CONFIG for a pattern that fits no parameter: a misspelt one would silently do nothing.
 */
export function settingsOf(
  parameters: ReadonlyMap<string, Tensor>,
  weightDecay: number,
  options: ParameterGroupOptions,
): Map<string, ParameterSettings> {
  const names = [...parameters.keys()];
  const excluded = options.excludeFromDecay.map((text) => matcher(text, names));
  const groups = options.groups.map((group) => ({ ...group, matches: matcher(group.match, names) }));
  return new Map(
    names.map((name) => {
      const group = groups.find(({ matches }) => matches(name));
      const decay = excluded.some((matches) => matches(name)) ? 0 : (group?.weightDecay ?? weightDecay);
      return [name, { weightDecay: decay, learningRateScale: group?.learningRateScale ?? 1 }];
    }),
  );
}

function matcher(text: string, names: readonly string[]): (name: string) => boolean {
  const literal = text.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const expression = new RegExp(`^${literal.join('.*')}$`);
  const matches = (name: string) => expression.test(name);
  if (names.some(matches)) return matches;
  fail(
    'ERR_LIBMOE_CONFIG',
    `the pattern "${text}" fits no trained parameter; names look like ${names.slice(0, 3).join(', ')}`,
  );
}
