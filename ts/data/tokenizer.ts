import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { fail } from '../native/index.ts';
import { readJsonObject } from '../storage/json.ts';
import { readLlama2cTokenizer } from './llama2c-tokenizer.ts';
import { impliedWordSplit, wordEncoder } from './word-encoder.ts';

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Adds what the tokenizer's own template adds, such as BOS (default false: training data and prompts say it themselves). */
  addSpecialTokens?: boolean;
}

/** Options of {@link Tokenizer.decode}. */
export interface DecodeOptions {
  /** Leaves BOS, EOS and the like out of the text (default true). */
  skipSpecialTokens?: boolean;
}

/** Text to ids and back. */
export interface Tokenizer {
  readonly name: string;
  /** SHA-256 of the file it was read from, which tells whether token files belong to it. */
  readonly hash: string;
  /** Number of ids: the highest id + 1. */
  readonly vocabularySize: number;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  /** The ids of a text. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Throws ERR_LIBMOE_TOKENIZER for an id outside the vocabulary. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** The token as it stands in the vocabulary, undefined for an id outside it. */
  idToToken(id: number): string | undefined;
  /** The id of a token as it stands in the vocabulary, undefined when it is not there. */
  tokenToId(token: string): number | undefined;
}

/**
 * Reads a tokenizer: a folder with tokenizer.json (or tokenizer.bin), a Hugging Face tokenizer.json (tokenizer_config.json beside it is used when present),
 * or a llama2c `.bin`.
 * @throws ERR_LIBMOE_FILE when there is no such file, ERR_LIBMOE_TOKENIZER when it is not a tokenizer of a known kind.
 */
export function loadTokenizer(path: string): Tokenizer {
  const file = tokenizerFile(path);
  const content = readFileSync(file);
  const hash = createHash('sha256').update(content).digest('hex');
  if (file.endsWith('.bin')) return readLlama2cTokenizer(content, basename(file), hash);
  const config = join(dirname(file), 'tokenizer_config.json');
  const name = path === file ? basename(file) : basename(path);
  return huggingFace(
    readJsonObject(file, 'ERR_LIBMOE_TOKENIZER'),
    existsSync(config) ? readJsonObject(config, 'ERR_LIBMOE_TOKENIZER') : {},
    { file, name, hash },
  );
}

/**
 * A tokenizer from the parsed content of a tokenizer.json and a tokenizer_config.json, as {@link trainTokenizer} returns them.
 * @throws ERR_LIBMOE_TOKENIZER when it is not a tokenizer of a known kind.
 */
export function tokenizerFromJson(json: object, config: object = {}, name = 'tokenizer'): Tokenizer {
  const hash = createHash('sha256').update(JSON.stringify(json)).digest('hex');
  return huggingFace(json as JsonObject, config as JsonObject, { file: name, name, hash });
}

type JsonObject = Record<string, unknown>;

function tokenizerFile(path: string): string {
  if (!existsSync(path)) {
    fail(
      'ERR_LIBMOE_FILE',
      `expected a tokenizer.json, a folder with one or a llama2c .bin, but there is no ${path}`,
    );
  }
  if (!statSync(path).isDirectory()) return path;
  const file = join(path, 'tokenizer.json');
  if (!existsSync(file)) {
    const llama2c = join(path, 'tokenizer.bin');
    if (existsSync(llama2c)) return llama2c;
    const model = existsSync(join(path, 'tokenizer.model'));
    fail(
      'ERR_LIBMOE_FILE',
      `the folder ${path} has no tokenizer.json${model ? ' (tokenizer.model is not read: convert it with transformers, save_pretrained)' : ''}`,
    );
  }
  return file;
}

const modelTypes = ['BPE', 'Unigram', 'WordPiece', 'WordLevel'];

function huggingFace(
  json: JsonObject,
  config: JsonObject,
  source: { file: string; name: string; hash: string },
): Tokenizer {
  const model = json.model as JsonObject | undefined;
  if (model === undefined || model === null || typeof model !== 'object' || model.vocab === undefined) {
    fail('ERR_LIBMOE_TOKENIZER', `${source.file} has no model with a vocabulary: is it a tokenizer.json?`);
  }
  if (model.type !== undefined && !modelTypes.includes(String(model.type))) {
    fail(
      'ERR_LIBMOE_TOKENIZER',
      `${source.file}: model type must be one of ${modelTypes.join(', ')}, got ${String(model.type)}`,
    );
  }
  const complete = {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...json,
  };
  let engine: HuggingFaceTokenizer;
  try {
    const split = impliedWordSplit(complete);
    engine = new HuggingFaceTokenizer(split ? { ...complete, pre_tokenizer: split } : complete, config);
  } catch (error) {
    fail('ERR_LIBMOE_TOKENIZER', `${source.file} cannot be used: ${(error as Error).message}`, error);
  }
  return new HuggingFaceAdapter(engine, complete, config, source);
}

class HuggingFaceAdapter implements Tokenizer {
  readonly name: string;
  readonly hash: string;
  readonly vocabularySize: number;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly padId?: number;
  private readonly engine: HuggingFaceTokenizer;
  private readonly cleanUp: boolean;
  /** For tokenizers of our own training. */
  private readonly encodeFast?: (text: string) => number[];

  constructor(
    engine: HuggingFaceTokenizer,
    json: JsonObject,
    config: JsonObject,
    source: { name: string; hash: string },
  ) {
    this.engine = engine;
    this.name = source.name;
    this.hash = source.hash;
    const model = engine.model!;
    widenCache(model);
    this.encodeFast = wordEncoder(json, (word) =>
      model([word]).map((token: string) => model.tokens_to_ids.get(token)!),
    );
    this.cleanUp = config.clean_up_tokenization_spaces === true;
    let highest = -1;
    for (const id of engine.get_vocab(true).values()) if (id > highest) highest = id;
    this.vocabularySize = highest + 1;
    // Without a configuration file the usual names are looked up.
    this.bosId = this.special(config.bos_token, ['<s>', '<bos>', '<|begin_of_text|>']);
    this.eosId = this.special(config.eos_token, ['</s>', '<eos>', '<|end_of_text|>', '<|endoftext|>']);
    this.padId = this.special(config.pad_token, ['<pad>', '[PAD]', '<|pad|>', '<|padding|>']);
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (typeof text !== 'string') fail('ERR_LIBMOE_ARGUMENT', `encode expects a string, got ${typeof text}`);
    // Half a surrogate pair cannot be written in UTF-8; it becomes U+FFFD, as everywhere else text is stored.
    const wellFormed = /[\ud800-\udfff]/.test(text)
      ? new TextDecoder().decode(new TextEncoder().encode(text))
      : text;
    if (this.encodeFast) return Int32Array.from(this.encodeFast(wellFormed));
    const { ids } = this.engine.encode(wellFormed, { add_special_tokens: options.addSpecialTokens ?? false });
    for (const id of ids) {
      if (id === undefined)
        fail(
          'ERR_LIBMOE_TOKENIZER',
          `${this.name} has neither a token for a part of the text nor an unknown token`,
        );
    }
    return Int32Array.from(ids);
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const list = Array.from(ids);
    for (const id of list) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize) {
        fail('ERR_LIBMOE_TOKENIZER', `ids must lie in 0…${this.vocabularySize - 1}, got ${id}`);
      }
    }
    if (list.length === 0) return '';
    return this.engine.decode(list, {
      skip_special_tokens: options.skipSpecialTokens ?? true,
      clean_up_tokenization_spaces: this.cleanUp,
    });
  }

  idToToken(id: number): string | undefined {
    return this.engine.id_to_token(id);
  }

  tokenToId(token: string): number | undefined {
    return this.engine.token_to_id(token);
  }

  private special(configured: unknown, usual: readonly string[]): number | undefined {
    const content =
      typeof configured === 'string' ? configured : (configured as JsonObject | null | undefined)?.content;
    if (typeof content === 'string') return this.engine.token_to_id(content);
    if (configured === null) return undefined;
    const added = this.engine.get_added_tokens_decoder();
    for (const token of usual) {
      const id = this.engine.token_to_id(token);
      if (id !== undefined && added.has(id)) return id;
    }
    return undefined;
  }
}

/** The engine's cache of words holds 10,000 and costs two map operations per hit; natural text wants more and cheaper. */
function widenCache(model: object): void {
  if (!('cache' in model)) return;
  const words = new Map<string, string[]>();
  model.cache = {
    get: (word: string) => words.get(word),
    put: (word: string, tokens: string[]) => {
      if (words.size >= 200_000) words.clear();
      words.set(word, tokens);
    },
    clear: () => words.clear(),
  };
}
