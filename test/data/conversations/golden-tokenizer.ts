import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Tokenizer, tokenizerFromJson } from '../../../ts/data/index.ts';

const folder = path.resolve(import.meta.dirname, '../../golden/conversations');

/** A file that test/golden/conversations/make.py made. */
export const goldenFile = (name: string): unknown =>
  JSON.parse(readFileSync(path.join(folder, name), 'utf8'));

/**
 * 424 ids of Phi-3's kind: a mark before every stretch of text, special tokens that take the blanks after them; `bos`: texts begin with `<s>`.
 */
export function phiTokenizer(options: { bos: boolean; imageMark?: boolean }): Tokenizer {
  const json = structuredClone(goldenFile('tokenizer.json')) as {
    added_tokens: object[];
    post_processor: unknown;
    model: { vocab: Record<string, number> };
  };
  if (!options.bos) json.post_processor = null;
  if (options.imageMark) json.added_tokens.push({ ...json.added_tokens[0], id: 424, content: '<image>' });
  return tokenizerFromJson(json, { bos_token: '<s>', eos_token: '</s>' });
}
