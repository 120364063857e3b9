import { existsSync } from 'node:fs';
import path from 'node:path';
import { readJsonObject } from '../../storage/json.ts';
import type { LanguageModel } from './model.ts';

/**
 * The tokens that end a text, as a checkpoint says: `eos_token_id` of config.json and of generation_config.json, where chat models list the
 * ends of a turn. Ids outside the vocabulary are left out.
 */
export function endTokens(model: LanguageModel, checkpoint?: string): number[] {
  const file = checkpoint === undefined ? undefined : path.join(checkpoint, 'generation_config.json');
  const given = file !== undefined && existsSync(file) ? readJsonObject(file, 'ERR_LIBMOE_CHECKPOINT') : {};
  const ids = [model.specialTokens?.eos_token_id, given.eos_token_id].flat();
  const known = ids.filter(
    (id): id is number => Number.isInteger(id) && (id as number) < model.config.vocabularySize,
  );
  return [...new Set(known)];
}
