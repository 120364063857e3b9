import { createHash } from 'node:crypto';
import { endTokens } from '../models/language/end-tokens.ts';
import { KvCache } from '../models/language/kv-cache.ts';
import type { LanguageModel } from '../models/language/model.ts';
import { fail } from '../native/index.ts';
import { batchesOf, unitsOf } from './batching.ts';
import { evalTokenizer } from './eval-tokenizer.ts';
import { LikelihoodScorer } from './likelihood-scorer.ts';
import type {
  EmitScore,
  EmitText,
  EvalModel,
  EvalTokenizer,
  GenerationRequest,
  ScoreOptions,
  TokenRequest,
} from './model.ts';
import type { LanguageAdapterOptions, Network } from './network.ts';
import { RoutingTap } from './routing-tap.ts';
import { Collector } from './score-collector.ts';
import { TextGenerator } from './text-generation.ts';

/** Raised whenever the adapter may give another number for the same weights and tokens. */
const adapterVersion = 'language-1';

/** Lets evaluation ask any {@link Network}: see languageAdapter. */
export class NetworkAdapter implements EvalModel {
  readonly name: string;
  readonly tokenizer: EvalTokenizer;
  readonly maxLength: number;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  private readonly tokenBudget: number;
  private readonly batchSize: number | undefined;
  private readonly sharePrefixes: boolean;
  readonly endTokens: ReadonlySet<number>;
  readonly imagePlaceholder?: string;
  readonly encodeTurn?: EvalModel['encodeTurn'];

  constructor(
    private readonly network: Network,
    options: LanguageAdapterOptions,
  ) {
    const model = network.language;
    const { tokenBudget = 2048, maxLength = model.config.maxPositions, sharePrefixes = true } = options;
    const { batchSize } = options;
    for (const [key, value] of Object.entries({ tokenBudget, batchSize: batchSize ?? 1 }))
      if (!Number.isInteger(value) || value < 1)
        fail('ERR_LIBMOE_ARGUMENT', `${key} must be a positive integer, got ${value}`);
    if (!Number.isInteger(maxLength) || maxLength < 1 || maxLength > model.config.maxPositions)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `maxLength must be a positive integer up to maxPositions ${model.config.maxPositions}, got ${maxLength}`,
      );
    this.name = options.name ?? 'libmoe';
    this.tokenizer = 'hash' in options.tokenizer ? evalTokenizer(options.tokenizer) : options.tokenizer;
    this.maxLength = maxLength;
    this.tokenBudget = tokenBudget;
    this.batchSize = batchSize;
    this.sharePrefixes = sharePrefixes;
    const { eos } = this.tokenizer;
    this.endTokens = new Set([
      ...endTokens(model, network.checkpoint ?? model.checkpoint),
      ...(eos === undefined ? [] : [eos]),
      ...(options.endTokens ?? []),
    ]);
    if (network.imagePlaceholder !== undefined) this.imagePlaceholder = network.imagePlaceholder;
    if (network.encodeTurn) this.encodeTurn = network.encodeTurn;
    this.facts = {
      model_num_parameters: network.whole.parameters().reduce((sum, parameter) => sum + parameter.size, 0),
      model_dtype: model.dtype,
      device: model.device,
      batch_size: batchSize ?? `auto:${tokenBudget} tokens`,
      ...options.facts,
    };
  }

  private get model(): LanguageModel {
    return this.network.language;
  }

  fingerprint(): string {
    const hash = createHash('sha256').update(
      JSON.stringify([
        adapterVersion,
        this.model.config,
        this.tokenizer.name,
        this.maxLength,
        this.model.dtype,
        this.model.device,
        ...(this.network.identity === undefined ? [] : [this.network.identity]),
      ]),
    );
    for (const [name, value] of this.network.whole.stateDict()) {
      const data = value.readSync();
      hash.update(`${name}:${value.dtype}:${value.shape.join('x')};`);
      hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    return hash.digest('hex');
  }

  loglikelihoodRolling(
    requests: readonly TokenRequest[],
    emit: EmitScore,
    options?: ScoreOptions,
  ): Promise<void> {
    return this.loglikelihood(requests, emit, options);
  }

  async loglikelihood(
    given: readonly TokenRequest[],
    emit: EmitScore,
    options: ScoreOptions = {},
  ): Promise<void> {
    const requests = given.map((request) => this.stretched(request, request.continuation.length - 1));
    const units = unitsOf(
      requests,
      this.maxLength,
      this.tokenBudget,
      ({ context, continuation }) =>
        this.sharePrefixes &&
        !this.model.outgrowsCache(context.length, context.length + continuation.length - 1),
    );
    const tap = new RoutingTap(this.network, options.routing);
    const collected = new Collector(requests, units, (index, score) => {
      tap.finish(index);
      emit(index, score);
    });
    const { whole } = this.network;
    const { training } = whole;
    using cache = new KvCache(this.model.config, { dtype: this.model.dtype, device: this.model.device });
    const scorer = new LikelihoodScorer(this.network, requests, cache, tap);
    whole.eval();
    try {
      const waiting = batchesOf(units, this.tokenBudget, this.batchSize).reverse();
      for (let batch = waiting.pop(); batch !== undefined; batch = waiting.pop()) {
        options.signal?.throwIfAborted();
        const images = batch.flatMap((unit) => scorer.imagesOf(unit));
        if (images.length > 0) await this.network.load?.(images);
        const scores = scorer.run(batch);
        if (scores === undefined)
          waiting.push(batch.slice(Math.ceil(batch.length / 2)), batch.slice(0, Math.ceil(batch.length / 2)));
        else for (const { request, part, score } of scores) collected.add(request, part, score);
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      if (training) whole.train();
    }
  }

  async generateUntil(
    given: readonly GenerationRequest[],
    emit: EmitText,
    options: ScoreOptions = {},
  ): Promise<void> {
    const requests = given.map((request) => this.stretched(request, 0));
    const { whole } = this.network;
    const { training } = whole;
    whole.eval();
    try {
      const { tokenBudget, maxLength, endTokens, batchSize: rows = 32 } = this;
      const limits = { rows, tokenBudget, maxLength, endTokens };
      const { routing } = options;
      await new TextGenerator(this.network, this.tokenizer, requests, limits, routing).run(emit, options);
    } finally {
      if (training) whole.train();
    }
  }

  /**
   * @param more tokens behind the context that the network sees
   * @throws ERR_LIBMOE_DATA for images that do not fit into the model's positions
   */
  private stretched<R extends TokenRequest | GenerationRequest>(request: R, more: number): R {
    if (!request.images?.length) return request;
    const context = this.network.stretched?.(request) ?? request.context;
    const length = context.length + more;
    if (length > this.maxLength)
      fail(
        'ERR_LIBMOE_DATA',
        `a prompt with its images is ${length} tokens long, and ${this.name} takes ${this.maxLength}: its images cannot be cut`,
      );
    return { ...request, context };
  }
}
