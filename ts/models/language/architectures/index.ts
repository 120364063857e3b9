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
import { olmoe } from './olmoe.ts';
import { phi3 } from './phi3.ts';
import { qwen2, qwen3 } from './qwen.ts';
import { qwen2Moe, qwen3Moe } from './qwen-moe.ts';

export type { Architecture, FileTensor } from './architecture.ts';

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

/** The family of a config.json. @throws ERR_LIBMOE_UNSUPPORTED naming the known ones */
export function architectureOf(json: JsonObject, source: string): Architecture {
  const named = Array.isArray(json.architectures) ? json.architectures[0] : undefined;
  const found = architectures.find(
    (candidate) =>
      candidate.name === named || (named === undefined && candidate.modelType === json.model_type),
  );
  return (
    found ??
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${source}: the architecture ${JSON.stringify(named ?? json.model_type ?? null)} cannot be read; known are ${architectures.map((known) => known.name).join(', ')}`,
    )
  );
}

/** The family that describes a model, `preferred` if that does, with its config.json fields. */
export function describe(
  config: LanguageModelConfig,
  preferred?: string,
): { architecture: Architecture; fields: JsonObject } {
  const first = architectures.filter(({ name }) => name === preferred);
  for (const architecture of [...first, ...architectures]) {
    const fields = architecture.write(config);
    if (fields !== undefined) return { architecture, fields };
  }
  return fail('ERR_LIBMOE_STATE', 'no architecture describes this model');
}
