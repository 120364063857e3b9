import { LanguageModel, type LanguageModelConfig, matchNames } from '../models/language/index.ts';
import { newVisionLanguageModel, type VisionLanguageConfig } from '../models/vision-language/index.ts';
import { codeOf, fail } from '../native/index.ts';
import type { Module } from '../nn/index.ts';
import { withoutValues } from '../nn/linear-options.ts';
import { type UpcycledPart, upcycledParts } from '../upcycling/index.ts';
import { chosenBy, type Lora } from './lora.ts';

/** What is learnt of a model, or of a part of it. */
export interface Learned {
  /** Parameters that are trained, adapters among them. */
  trained: number;
  /** Those of adapters, which the model has besides. */
  beside: number;
  /** Numbers per token that the tape keeps of adapters. */
  besideKept: number;
  /** Whether dense feed-forward layers have one at their first matrix. */
  besideUp: boolean;
  /** Whether the matrix of the output is trained. */
  output: boolean;
}

/** All of a model of so many parameters, or nothing. */
export const learnedWhole = (total: number): Learned => ({
  ...{ trained: total, beside: 0, besideKept: 0, besideUp: false },
  output: total > 0,
});

/** What is trained of each part of a model whose tensors have names, but no values. */
function learnedIn<Part extends string>(
  model: Module,
  parts: readonly Part[],
  { trained, lora }: { trained: readonly string[]; lora: Lora | undefined },
): Record<Part, Learned> {
  const parameters = model.namedParameters();
  const matched = new Set(matchNames([...parameters.keys()], trained).matched);
  const chosen = lora && chosenBy(lora, model, parts.map(prefixOf));
  for (const name of chosen?.frozen ?? []) matched.delete(name);
  const of = (part: Part): Learned => {
    const own = [...matched].filter((name) => name.startsWith(prefixOf(part)));
    const matrices = [...(chosen?.matched ?? [])].filter(([name]) => name.startsWith(prefixOf(part)));
    const beside = matrices.reduce((sum, [, { shape }]) => sum + lora!.rank * (shape[0]! + shape[1]!), 0);
    return {
      trained: own.reduce((sum, name) => sum + parameters.get(name)!.size, beside),
      beside,
      besideKept: matrices.length * (lora?.rank ?? 0),
      besideUp: matrices.some(([name]) => /(^|\.)feedForward\.up/.test(name)),
      output: own.some((name) =>
        /(^|\.)(output|embedding)\.weight$/.test(name.replace(/\.attention\..*/, '')),
      ),
    };
  };
  return Object.fromEntries(parts.map((part) => [part, of(part)])) as Record<Part, Learned>;
}

const prefixOf = (part: string): string => (part === '' ? '' : `${part}.`);

/** Patterns that name whole parts. */
const wholeParts = (patterns: readonly string[]): UpcycledPart[] | undefined => {
  const named = patterns.map((pattern) =>
    upcycledParts.filter((part) => pattern === '*' || pattern === `${part}.*`),
  );
  return named.every((parts) => parts.length > 0) ? [...new Set(named.flat())] : undefined;
};

/** What of a vision-language model is trained, by part. @throws ERR_LIBMOE_CONFIG for patterns that name nothing */
export function learnedOf(
  { trained, lora }: { trained: readonly string[]; lora?: Lora | undefined },
  config: VisionLanguageConfig,
  totals: Record<UpcycledPart, number>,
): Record<UpcycledPart, Learned> {
  const whole = lora ? undefined : wholeParts(trained);
  if (whole) {
    const of = (part: UpcycledPart): Learned => learnedWhole(whole.includes(part) ? totals[part] : 0);
    return { vision: of('vision'), projector: of('projector'), language: of('language') };
  }
  using model = withoutValues(() => newVisionLanguageModel(config, { seed: 'later', dtype: 'bf16' }));
  return said('training.trained or training.lora', () => learnedIn(model, upcycledParts, { trained, lora }));
}

/** What of a language model is trained. @throws ERR_LIBMOE_CONFIG for targets that name nothing */
export function learnedOfLanguage(
  lora: Lora | undefined,
  config: LanguageModelConfig,
  total: number,
): Learned {
  if (!lora) return learnedWhole(total);
  using model = withoutValues(() => new LanguageModel(config, { seed: 'later', dtype: 'bf16' }));
  return said('training.lora', () => learnedIn(model, [''], { trained: ['*'], lora })['']);
}

function said<T>(keys: string, look: () => T): T {
  try {
    return look();
  } catch (error) {
    if (codeOf(error) !== 'ERR_LIBMOE_CONFIG') throw error;
    return fail(
      'ERR_LIBMOE_CONFIG',
      `${keys}: ${(error as Error).message.replace('ERR_LIBMOE_CONFIG: ', '')}`,
      error,
    );
  }
}
