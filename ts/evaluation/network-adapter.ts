import { createHash } from 'node:crypto';
import { endTokens } from '../models/language/end-tokens.ts';
import { KvCache } from '../models/language/kv-cache.ts';
import type { LanguageModel } from '../models/language/model.ts';
import { codeOf, fail } from '../native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.ts';
import { tokenLogProbabilities } from '../tensor/loss.ts';
import { gatherRows } from '../tensor/shape.ts';
import { batchesOf, type SharedUnit, type Unit, unitsOf, type WindowUnit } from './batching.ts';
import { evalTokenizer } from './eval-tokenizer.ts';
import type {
  EmitScore,
  EmitText,
  EvalModel,
  EvalTokenizer,
  GenerationRequest,
  RequestImage,
  ScoreOptions,
  TokenRequest,
} from './model.ts';
import type { LanguageAdapterOptions, Network } from './network.ts';
import { Collector, type PartScore, type TokenValues } from './score-collector.ts';
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
  private readonly endTokens: ReadonlySet<number>;
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
    const collected = new Collector(requests, units, emit);
    const { whole } = this.network;
    const { training } = whole;
    using cache = new KvCache(this.model.config, { dtype: this.model.dtype, device: this.model.device });
    whole.eval();
    try {
      const waiting = batchesOf(units, this.tokenBudget, this.batchSize).reverse();
      for (let batch = waiting.pop(); batch !== undefined; batch = waiting.pop()) {
        options.signal?.throwIfAborted();
        const images = batch.flatMap((unit) => this.imagesOf(unit, requests));
        if (images.length > 0) await this.network.load?.(images);
        const scores = this.run(batch, requests, cache);
        if (scores === undefined)
          waiting.push(batch.slice(Math.ceil(batch.length / 2)), batch.slice(0, Math.ceil(batch.length / 2)));
        else for (const { request, part, score } of scores) collected.add(request, part, score);
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      if (training) whole.train();
    }
  }

  /** Scores of a batch; undefined when it must be halved for lack of memory. */
  private run(
    batch: readonly Unit[],
    requests: readonly TokenRequest[],
    cache: KvCache,
  ): PartScore[] | undefined {
    const used: number[] = [];
    try {
      return noGrad(() =>
        scope(() => [
          ...this.scoreWindows(
            batch.filter((unit) => unit.kind === 'window'),
            requests,
          ),
          ...this.scoreShared(
            batch.filter((unit) => unit.kind === 'shared'),
            requests,
            cache,
            used,
          ),
        ]),
      );
    } catch (error) {
      if (codeOf(error) !== 'ERR_LIBMOE_OUT_OF_MEMORY' || batch.length === 1) throw error;
      return undefined;
    } finally {
      for (const sequence of used) cache.free(sequence);
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
      await new TextGenerator(this.network, this.tokenizer, requests, limits).run(emit, options);
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

  private imagesOf(unit: Unit, requests: readonly TokenRequest[]): readonly RequestImage[] {
    return requests[unit.kind === 'shared' ? unit.requests[0]! : unit.request]!.images ?? [];
  }

  private scoreWindows(units: readonly WindowUnit[], requests: readonly TokenRequest[]): PartScore[] {
    if (units.length === 0) return [];
    const hidden = this.network.forward(
      units.map((unit) => ({ tokens: unit.window.input, images: this.imagesOf(unit, requests) })),
    );
    const rows: number[] = [];
    const targets: number[] = [];
    let end = 0;
    for (const { window } of units) {
      end += window.input.length;
      for (const [k, target] of window.targets.entries()) {
        rows.push(end - window.targets.length + k);
        targets.push(target);
      }
    }
    const next = this.predictions(
      rows.length === end ? hidden : gatherRows(hidden, indices(rows, hidden)),
      targets,
    );
    return units.map(({ request, part, window }) => ({ request, part, score: next(window.targets.length) }));
  }

  private scoreShared(
    units: readonly SharedUnit[],
    requests: readonly TokenRequest[],
    cache: KvCache,
    used: number[],
  ): PartScore[] {
    if (units.length === 0) return [];
    const contexts = units.map(() => cache.add());
    used.push(...contexts);
    const hidden = this.network.forward(
      units.map((unit) => ({ tokens: unit.context, images: this.imagesOf(unit, requests) })),
      cache.at(contexts),
    );
    // The context's last position predicts the first token of every continuation.
    const choices = units.flatMap(({ requests, continuations }, unit) =>
      requests.map((request, i) => ({ request, unit, continuation: continuations[i]! })),
    );
    const last: number[] = [];
    for (const { context } of units) last.push((last.at(-1) ?? -1) + context.length);
    const firstRows = choices.map(({ unit }) => last[unit]!);
    const first = this.predictions(
      gatherRows(hidden, indices(firstRows, hidden)),
      choices.map(({ continuation }) => continuation[0]!),
    );
    const parts = choices.map(({ request }) => ({ request, part: 0, score: first(1) }));
    const longer = choices.flatMap(({ continuation, unit }, at) =>
      continuation.length > 1 ? [{ continuation, unit, at }] : [],
    );
    if (longer.length === 0) return parts;
    const forks = longer.map(({ unit }) => cache.fork(contexts[unit]!));
    used.push(...forks);
    const rest = this.predictions(
      this.network.forward(
        longer.map(({ continuation }) => ({ tokens: continuation.slice(0, -1), images: [] })),
        cache.at(forks),
      ),
      longer.flatMap(({ continuation }) => continuation.slice(1)),
    );
    for (const { at, continuation } of longer) {
      const head = parts[at]!.score;
      const tail = rest(continuation.length - 1);
      parts[at]!.score = { values: [...head.values, ...tail.values], greedy: head.greedy && tail.greedy };
    }
    return parts;
  }

  /** Log-probabilities of `targets` after the rows of `hidden`, handed out from the front. */
  private predictions(hidden: Tensor, targets: readonly number[]): (count: number) => TokenValues {
    const { logProbability, greedy } = tokenLogProbabilities(
      hidden,
      this.model.outputWeight,
      this.model.output?.bias,
      indices(targets, hidden),
    );
    const values = logProbability.readSync() as Float32Array | Float64Array;
    const picks = greedy.readSync() as Int32Array;
    let at = 0;
    return (count) => {
      const from = at;
      at += count;
      return {
        values: [...values.subarray(from, at)],
        greedy: targets.slice(from, at).every((target, i) => picks[from + i] === target),
      };
    };
  }
}

function indices(values: readonly number[], like: Tensor): Tensor {
  return tensor([...values], [values.length], { dtype: 'i32', device: like.device });
}
