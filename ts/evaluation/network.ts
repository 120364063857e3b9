import type { Tokenizer } from '../data/tokenizer.ts';
import type { CachedSequences } from '../models/language/kv-cache.ts';
import type { LanguageModel } from '../models/language/model.ts';
import type { ForwardContext } from '../moe/index.ts';
import type { Module } from '../nn/module.ts';
import type { Tensor } from '../tensor/index.ts';
import type { EvalModel, EvalTokenizer, RequestImage, TokenRequest } from './model.ts';

/** How an adapter batches, and under which name its results go. */
export interface LanguageAdapterOptions {
  tokenizer: Tokenizer | EvalTokenizer;
  /** Shown in results; default "libmoe". */
  name?: string;
  /** More of the model for the results' `config`. */
  facts?: Readonly<Record<string, string | number | boolean>>;
  /** Tokens per forward pass; scores do not depend on it. Default 2048. */
  tokenBudget?: number;
  /** Questions or texts per forward pass at most; scores do not depend on it. Default: as the token budget says, and 32 texts. */
  batchSize?: number;
  /** Tokens that end a generated text, beside the tokenizer's EOS and those that the checkpoint names. */
  endTokens?: readonly number[];
  /** Default: the model's positions. */
  maxLength?: number;
  /** Run a context once for all of its continuations. Scores do not depend on it. Default true. */
  sharePrefixes?: boolean;
}

/** A sequence as a network sees it. */
export interface NetworkSequence {
  tokens: readonly number[];
  images: readonly RequestImage[];
}

/** What an adapter runs sequences through. */
export interface Network {
  /** Its vocabulary, positions and cache. */
  readonly language: LanguageModel;
  /** All of it: what has parameters and modes. */
  readonly whole: Module;
  /** The folder it was loaded from, if that is not the language model's. */
  readonly checkpoint?: string;
  /** Facts beside the configuration of the language model that decide about the numbers. */
  readonly identity?: unknown;
  readonly imagePlaceholder?: string;
  readonly encodeTurn?: EvalModel['encodeTurn'];
  /** Stands for rows of images. */
  readonly imageToken?: number;
  /** Tokens that are no text and are never generated. */
  readonly never?: readonly number[];
  /** The context of a request with images as the network counts it: each placeholder stretched to the rows of its image. */
  stretched?(request: Pick<TokenRequest, 'context' | 'images'>): readonly number[];
  /** Reads the images of a batch before it runs. */
  load?(images: readonly RequestImage[]): Promise<void>;
  /** Hidden states after the last norm, `[tokens, dModel]`. */
  forward(sequences: readonly NetworkSequence[], cached?: CachedSequences, context?: ForwardContext): Tensor;
}
