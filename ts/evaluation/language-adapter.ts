import { createHash } from 'node:crypto';
import type { Tokenizer } from '../data/tokenizer.ts';
import { KvCache } from '../models/language/kv-cache.ts';
import type { LanguageModel } from '../models/language/model.ts';
import { packSequences } from '../models/language/packed-batch.ts';
import { codeOf, fail } from '../native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.ts';
import { tokenLogProbabilities } from '../tensor/loss.ts';
import { gatherRows } from '../tensor/shape.ts';
import { batchesOf, type SharedUnit, type Unit, unitsOf, type WindowUnit } from './batching.ts';
import type { EmitScore, EvalModel, EvalTokenizer, ScoreOptions, TokenRequest } from './model.ts';

/** Raised whenever the adapter may give another number for the same weights and tokens. */
const adapterVersion = 'language-1';

/** How {@link languageAdapter} batches, and under which name its results go. */
export interface LanguageAdapterOptions {
  tokenizer: Tokenizer | EvalTokenizer;
  /** Shown in results; default "libmoe". */
  name?: string;
  /** Tokens per forward pass; scores do not depend on it. Default 2048. */
  tokenBudget?: number;
  /** Default: the model's positions. */
  maxLength?: number;
  /** Run a context once for all of its continuations. Scores do not depend on it. Default true. */
  sharePrefixes?: boolean;
}

/** A tokenizer of ts/data as evaluation needs it; whether it adds BOS is asked of the tokenizer itself. */
export function evalTokenizer(tokenizer: Tokenizer): EvalTokenizer {
  const { bosId, eosId } = tokenizer;
  const bosText = bosId === undefined ? undefined : tokenizer.idToToken(bosId);
  return {
    name: `${tokenizer.name}@${tokenizer.hash.slice(0, 12)}`,
    encode: (text) => [...tokenizer.encode(text)],
    addsBos: bosId !== undefined && tokenizer.encode('a', { addSpecialTokens: true })[0] === bosId,
    ...(bosId === undefined ? {} : { bos: bosId }),
    ...(eosId === undefined ? {} : { eos: eosId }),
    ...(bosText === undefined ? {} : { bosText }),
  };
}

/**
 * Lets evaluation ask a language model. Sequences are packed without padding, longest first; a question's context runs
 * once and its choices continue on forks of its keys and values; only scored positions meet the vocabulary. When memory
 * runs out a batch is halved and tried again. A request's score has the same bits in any batch.
 * @throws ERR_LIBMOE_ARGUMENT for sizes that are not positive integers or exceed the model's positions
 */
export function languageAdapter(model: LanguageModel, options: LanguageAdapterOptions): EvalModel {
  return new LanguageAdapter(model, options);
}

class LanguageAdapter implements EvalModel {
  readonly name: string;
  readonly tokenizer: EvalTokenizer;
  readonly maxLength: number;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  private readonly tokenBudget: number;
  private readonly sharePrefixes: boolean;

  constructor(
    private readonly model: LanguageModel,
    options: LanguageAdapterOptions,
  ) {
    const { tokenBudget = 2048, maxLength = model.config.maxPositions, sharePrefixes = true } = options;
    if (!Number.isInteger(tokenBudget) || tokenBudget < 1)
      fail('ERR_LIBMOE_ARGUMENT', `tokenBudget must be a positive integer, got ${tokenBudget}`);
    if (!Number.isInteger(maxLength) || maxLength < 1 || maxLength > model.config.maxPositions)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `maxLength must be a positive integer up to maxPositions ${model.config.maxPositions}, got ${maxLength}`,
      );
    this.name = options.name ?? 'libmoe';
    this.tokenizer = 'hash' in options.tokenizer ? evalTokenizer(options.tokenizer) : options.tokenizer;
    this.maxLength = maxLength;
    this.tokenBudget = tokenBudget;
    this.sharePrefixes = sharePrefixes;
    this.facts = {
      model_num_parameters: model.parameters().reduce((sum, parameter) => sum + parameter.size, 0),
      model_dtype: model.dtype,
      device: model.device,
      batch_size: `auto:${tokenBudget} tokens`,
    };
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
      ]),
    );
    for (const [name, value] of this.model.stateDict()) {
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
    requests: readonly TokenRequest[],
    emit: EmitScore,
    options: ScoreOptions = {},
  ): Promise<void> {
    const units = unitsOf(
      requests,
      this.maxLength,
      this.tokenBudget,
      ({ context, continuation }) =>
        this.sharePrefixes &&
        !this.model.outgrowsCache(context.length, context.length + continuation.length - 1),
    );
    const collected = new Collector(requests, units, emit);
    const { training } = this.model;
    using cache = new KvCache(this.model.config, { dtype: this.model.dtype, device: this.model.device });
    this.model.eval();
    try {
      const waiting = batchesOf(units, this.tokenBudget).reverse();
      for (let batch = waiting.pop(); batch !== undefined; batch = waiting.pop()) {
        options.signal?.throwIfAborted();
        const scores = this.run(batch, cache);
        if (scores === undefined)
          waiting.push(batch.slice(Math.ceil(batch.length / 2)), batch.slice(0, Math.ceil(batch.length / 2)));
        else for (const { request, part, score } of scores) collected.add(request, part, score);
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      if (training) this.model.train();
    }
  }

  /** Scores of a batch; undefined when it must be halved for lack of memory. */
  private run(batch: readonly Unit[], cache: KvCache): PartScore[] | undefined {
    const used: number[] = [];
    try {
      return noGrad(() =>
        scope(() => [
          ...this.scoreWindows(batch.filter((unit) => unit.kind === 'window')),
          ...this.scoreShared(
            batch.filter((unit) => unit.kind === 'shared'),
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

  private scoreWindows(units: readonly WindowUnit[]): PartScore[] {
    if (units.length === 0) return [];
    const hidden = this.model.forward(packSequences(units.map(({ window }) => window.input)));
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

  private scoreShared(units: readonly SharedUnit[], cache: KvCache, used: number[]): PartScore[] {
    if (units.length === 0) return [];
    const contexts = units.map(() => cache.add());
    used.push(...contexts);
    const hidden = this.model.forward(
      packSequences(units.map(({ context }) => context)),
      undefined,
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
      this.model.forward(
        packSequences(longer.map(({ continuation }) => continuation.slice(0, -1))),
        undefined,
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

interface TokenValues {
  values: number[];
  greedy: boolean;
}

interface PartScore {
  request: number;
  part: number;
  score: TokenValues;
}

/** Puts the windows of a request together and emits it when the last one is in: one sum in token order, whatever came first. */
class Collector {
  private readonly parts: TokenValues[][];
  private readonly missing: number[];

  constructor(
    requests: readonly TokenRequest[],
    units: readonly Unit[],
    private readonly emit: EmitScore,
  ) {
    this.parts = requests.map(() => []);
    this.missing = requests.map(() => 0);
    for (const unit of units)
      for (const request of unit.kind === 'shared' ? unit.requests : [unit.request]) this.missing[request]!++;
  }

  add(request: number, part: number, score: TokenValues): void {
    const parts = this.parts[request]!;
    parts[part] = score;
    if (--this.missing[request]! > 0) return;
    let sum = 0;
    for (const { values } of parts) for (const value of values) sum += value;
    this.emit(request, { sum, greedy: parts.every(({ greedy }) => greedy) });
    this.parts[request] = [];
  }
}
