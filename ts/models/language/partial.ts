import { fail } from '../../native/index.ts';
import { noGrad } from '../../tensor/index.ts';
import { LanguageModel } from './model.ts';

/** Names that match at least one pattern, and the others. */
export interface MatchedNames {
  matched: ReadonlySet<string>;
  rest: readonly string[];
}

/**
 * Sorts names by patterns in which `*` stands for any text.
 * @throws ERR_LIBMOE_CONFIG for a pattern that matches none of them
 */
export function matchNames(names: readonly string[], patterns: readonly string[]): MatchedNames {
  const matched = new Set<string>();
  for (const pattern of patterns) {
    const escaped = pattern.split('*').map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
    const expression = new RegExp(`^${escaped.join('.*')}$`);
    const found = names.filter((name) => expression.test(name));
    if (found.length === 0)
      fail(
        'ERR_LIBMOE_CONFIG',
        `the pattern "${pattern}" matches no tensor of the model (there are ${names.slice(0, 3).join(', ')}, …; * stands for any text)`,
      );
    for (const name of found) matched.add(name);
  }
  return { matched, rest: names.filter((name) => !matched.has(name)) };
}

/**
 * A model of the same configuration that has only those tensors of `trained` whose names match one of the patterns (`*` is any text); the
 * others, buffers too, are those of a new model of this seed. For controlled studies such as a trained shared expert among new routed ones.
 * @returns the new model, and the names of what was drawn
 * @throws ERR_LIBMOE_CONFIG for a pattern that matches nothing
 */
export function takeOnly(
  trained: LanguageModel,
  patterns: readonly string[],
  seed: number,
): { model: LanguageModel; drawn: readonly string[] } {
  const state = trained.stateDict();
  const { matched, rest } = matchNames([...state.keys()], patterns);
  const model = new LanguageModel(trained.config, { seed, dtype: trained.dtype, device: trained.device });
  if (trained.checkpoint !== undefined) model.checkpoint = trained.checkpoint;
  if (trained.family !== undefined) model.family = trained.family;
  if (trained.specialTokens !== undefined) model.specialTokens = trained.specialTokens;
  noGrad(() => {
    for (const [name, target] of model.stateDict())
      if (matched.has(name)) target.write(state.get(name)!.readSync());
  });
  return { model, drawn: rest };
}
