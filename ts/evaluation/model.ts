import type { EmitRouting } from './routing-tap.ts';

/** What evaluation needs of a tokenizer. Every tokenizer of ts/data fits through `evalTokenizer`. */
export interface EvalTokenizer {
  /** Goes into results and cache keys. */
  readonly name: string;
  /** Tokens of the text alone, without special tokens. */
  encode(text: string): readonly number[];
  readonly bos?: number;
  readonly eos?: number;
  /** Text of the BOS token, to notice that a context begins with it already. */
  readonly bosText?: string;
  /** Whether the tokenizer puts BOS before a text of its own accord. */
  readonly addsBos: boolean;
  /** Text of tokens, special ones left out. Only generation needs it. */
  decode?(ids: readonly number[]): string;
}

/** An image of a request. */
export interface RequestImage {
  file: string;
  /** Of the file's bytes: what stands for it in cache keys. */
  sha256: string;
}

/** One sum of log-probabilities that is wanted: `Σ_k log p(continuation_k | context, continuation_<k)`. */
export interface TokenRequest {
  kind: 'loglikelihood' | 'loglikelihood_rolling';
  /** At least one token. */
  context: readonly number[];
  /** At least one token. */
  continuation: readonly number[];
  /** Images of the context, one per placeholder token in it, in their order. */
  images?: readonly RequestImage[];
  /** The answer is to say of so many of the last continuation tokens what the model gave for them. */
  last?: number;
}

/** How a text is to be generated, and where it ends. */
export interface Generation {
  /** The text ends before the earliest of these. */
  until: readonly string[];
  /** At most so many new tokens. */
  maxTokens: number;
  /** 0: always the likeliest token. */
  temperature: number;
  topP?: number;
  topK?: number;
  /** Of the sampling. The nth draw depends on it, the prompt and `repeat` alone. */
  seed: number;
  /** Which of several samples for the same prompt. */
  repeat: number;
}

/** A text that is wanted: what the model says after `context`. */
export interface GenerationRequest {
  kind: 'generate_until';
  /** At least one token. */
  context: readonly number[];
  generation: Generation;
  /** Images of the context, one per placeholder token in it, in their order. */
  images?: readonly RequestImage[];
}

/** The answer to a {@link GenerationRequest}. */
export interface GeneratedText {
  /** Without the stop string and what came after it. */
  text: string;
  /** Tokens that the model made, those cut off with the stop string included. */
  tokens: number;
  /** What ended it. `not_finite`: the network gave something that is no number. */
  ended: 'stop' | 'eos' | 'length' | 'not_finite';
}

/** The answer to a {@link TokenRequest}. */
export interface TokenScore {
  /** Natural logarithm, summed in double precision in token order. */
  sum: number;
  /** Whether every continuation token was the model's first choice. */
  greedy: boolean;
  /** Of as many of the last continuation tokens as the request asks for. */
  last?: LastTokens;
}

/** What a model gave for the last tokens of a text, each predicted from the true tokens before it. */
export interface LastTokens {
  /** Of the true tokens, in nats. */
  logProbabilities: readonly number[];
  /** The likeliest tokens in their place. */
  firstChoices: readonly number[];
}

/** How scoring may be ended early. */
export interface ScoreOptions {
  /** Aborting ends the work at the next batch; the promise then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Told of every request, before its answer, where MoE layers sent its tokens. A model without any need not call it. */
  routing?: EmitRouting;
}

/** Reports a finished request by its position, so that each answer can be kept at once. */
export type EmitScore = (index: number, score: TokenScore) => void;

/** Reports a finished text by the position of its request. */
export type EmitText = (index: number, answer: GeneratedText) => void;

/**
 * A model as evaluation sees it; every engine may stand behind it. Answers may come in any order; an implementation gives
 * the event loop a turn after every batch.
 */
export interface EvalModel {
  readonly name: string;
  readonly tokenizer: EvalTokenizer;
  /** The most tokens the network takes at once. */
  readonly maxLength: number;
  /** Text that stands for an image in a prompt; absent: the model sees none. Its tokenizer makes one token of it. */
  readonly imagePlaceholder?: string;
  /**
   * A question and its answer as a turn of the conversations that the model was trained on; of the answer all is scored that the model has to say,
   * what ends it included. Absent: texts go to the model as they are.
   */
  encodeTurn?(question: string, answer: string): Pick<TokenRequest, 'context' | 'continuation'>;
  /** Tokens that end a generated text: part of its cache key. Absent: nothing but the weights decides. */
  readonly endTokens?: ReadonlySet<number>;
  /** Facts for the results file, e.g. parameters, dtype, device. */
  readonly facts?: Readonly<Record<string, string | number | boolean>>;
  /** Hash of weights, config, tokenizer and adapter version: part of every cache key, so two models never share answers. */
  fingerprint(): string | Promise<string>;
  /** Log-likelihoods of all requests, handed to `emit` as they come, in any order. */
  loglikelihood(requests: readonly TokenRequest[], emit: EmitScore, options?: ScoreOptions): Promise<void>;
  /** As loglikelihood, for texts that may be longer than `maxLength`: scored in disjoint windows. */
  loglikelihoodRolling(
    requests: readonly TokenRequest[],
    emit: EmitScore,
    options?: ScoreOptions,
  ): Promise<void>;
  /** Texts that continue the contexts, handed to `emit` as they come, in any order. Absent: the model cannot be asked for text. */
  generateUntil?(
    requests: readonly GenerationRequest[],
    emit: EmitText,
    options?: ScoreOptions,
  ): Promise<void>;
}
