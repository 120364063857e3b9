import {
  architectures,
  type LanguageModelConfig,
  type LanguageModelOptions,
  resolveLanguageModelConfig,
} from '../../ts/models/language/index.ts';
import type { JsonObject } from '../../ts/storage/json.ts';

/** What a config.json of a family of checkpoints means, by the name of its architecture. */
export const fieldsOf = (family: string, json: JsonObject): LanguageModelOptions =>
  architectures.find(({ name }) => name === family)!.read(json, 'config.json');

export const configOf = (family: string, json: JsonObject): LanguageModelConfig =>
  resolveLanguageModelConfig(fieldsOf(family, json));
