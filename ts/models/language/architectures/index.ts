import { fail } from '../../../native/index.ts';
import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig } from '../config.ts';
import type { Architecture } from './architecture.ts';
import { deepseekV2, deepseekV3 } from './deepseek.ts';
import { gptOss } from './gpt-oss.ts';
import { gpt2 } from './gpt2.ts';
import { libmoe } from './libmoe.ts';
import { llama } from './llama.ts';
import { llama4, llama4WithImages } from './llama4.ts';
import { mistral } from './mistral.ts';
import { mixtral } from './mixtral.ts';
import { lacking, mixture } from './needs.ts';
import { olmoe } from './olmoe.ts';
import { phi3 } from './phi3.ts';
import { qwen2, qwen3 } from './qwen.ts';
import { qwen2Moe, qwen3Moe } from './qwen-moe.ts';

export type { Architecture, FileTensor } from './architecture.ts';
export type { FamilyNeed } from './needs.ts';

/** Every family that can be read and written; the first that describes a model is used to write it. */
export const architectures: readonly Architecture[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  phi3,
  gpt2,
  mixtral,
  olmoe,
  qwen2Moe,
  qwen3Moe,
  llama4,
  llama4WithImages,
  deepseekV2,
  deepseekV3,
  gptOss,
  libmoe,
];

/** What configurations of the vision-language models that libmoe reads are called. */
const seesImages = new Set([
  'LlavaForConditionalGeneration',
  'LibMoeForConditionalGeneration',
  'llava',
  'libmoe_llava',
]);

/** The family of a config.json. @throws ERR_LIBMOE_UNSUPPORTED naming the known ones */
export function architectureOf(json: JsonObject, source: string): Architecture {
  const named = Array.isArray(json.architectures) ? json.architectures[0] : undefined;
  const found = architectures.find(
    (candidate) =>
      candidate.name === named || (named === undefined && candidate.modelType === json.model_type),
  );
  if (!found && seesImages.has(String(named ?? json.model_type)))
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${source}: this is a vision-language model (${named ?? json.model_type}), not a language model: load it with loadVisionLanguageModel; on the command line libmoe generate --image FILE shows it images`,
    );
  return (
    found ??
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${source}: the architecture ${JSON.stringify(named ?? json.model_type ?? null)} cannot be read; known are ${architectures.map((known) => known.name).join(', ')}`,
    )
  );
}

/** What of a model a family lacks, in words that follow "a model with"; empty when it has all of it. */
const lostIn = (architecture: Architecture, config: LanguageModelConfig): string[] =>
  lacking(architecture.needs(config));

const preferring = (name: string | undefined): Architecture[] => [
  ...architectures.filter((known) => known.name === name),
  ...architectures,
];

/** A family that `transformers` knows, and what of a model it lacks. */
export interface PublicFamily {
  /** As `architectures` of config.json names it. */
  family: string;
  /** In words that follow "a model with"; empty when the family has all of the model. */
  lost: string[];
}

/**
 * The family of `transformers` that has a model, or the nearest: the one that lacks the fewest things of it.
 * @param preferred comes first among equals
 */
export function publicFamilyOf(config: LanguageModelConfig, preferred?: string): PublicFamily {
  const cost = (lost: readonly string[]): number => (lost.includes(mixture) ? Infinity : lost.length);
  return preferring(preferred)
    .filter((known) => known !== libmoe)
    .map((known) => ({ family: known.name, lost: lostIn(known, config) }))
    .reduce((best, other) => (cost(other.lost) < cost(best.lost) ? other : best));
}

/** As what a model is written. */
export interface FamilyChoice {
  /** Is taken where it has the model. */
  preferred?: string | undefined;
  /** Must have the model: the name of a family, or `public` for any that `transformers` knows. */
  required?: string | undefined;
}

/**
 * The family as which a model is written, with its config.json fields: without `required` the first that has the model, which is ours at last.
 * @throws ERR_LIBMOE_UNSUPPORTED saying what the required family lacks, ERR_LIBMOE_ARGUMENT for one that is not known
 */
export function familyOf(
  config: LanguageModelConfig,
  { preferred, required }: FamilyChoice = {},
): { architecture: Architecture; fields: JsonObject } {
  const architecture =
    required === undefined
      ? preferring(preferred).find((known) => lostIn(known, config).length === 0)!
      : requiredFamily(config, required, preferred);
  return { architecture, fields: architecture.write(config) };
}

function requiredFamily(config: LanguageModelConfig, required: string, preferred?: string): Architecture {
  const nearest = required === 'public' ? publicFamilyOf(config, preferred).family : required;
  const found =
    architectures.find(({ name }) => name === nearest) ??
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `no family "${required}": known are public (any that transformers knows), ${architectures.map(({ name }) => name).join(', ')}`,
    );
  const lost = lostIn(found, config);
  if (lost.length === 0) return found;
  const who =
    required === 'public' ? `no family of transformers has this model; the nearest, ${nearest},` : nearest;
  return fail(
    'ERR_LIBMOE_UNSUPPORTED',
    `${who} knows no model with ${lost.join('; ')}: change that, or save it as ${libmoe.name}, which only libmoe loads`,
  );
}
