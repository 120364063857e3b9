import { z } from 'zod';
import { fail } from '../native/index.ts';
import { isJsonObject, type JsonValue } from '../storage/json.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import type { Loader, TokenBatch } from './batch.ts';
import { permutation } from './shuffle.ts';
import type { TokenDataset } from './token-dataset.ts';
import { shuffledDocuments, storedStream, type TokenStream } from './token-stream.ts';

/** Options of {@link PackedLoader}. */
export interface PackedLoaderOptions {
  /** Tokens of a sequence. */
  sequenceLength: number;
  /** Sequences of a batch over all ranks; a multiple of `world`. */
  batchSequences: number;
  seed?: number;
  /**
   * `windows` (default): the stored tokens are cut into windows, the windows are shuffled; `documents`: the documents are shuffled, then cut;
   * `none`: as stored.
   */
  shuffle?: 'windows' | 'documents' | 'none';
  /** Ends a sequence where a document ends, so that attention does not cross documents (default false). */
  splitAtDocuments?: boolean;
  /** Epochs until the end; default without end. The last batch may then be smaller (left out when `world` > 1). */
  epochs?: number;
  rank?: number;
  world?: number;
  /** Sequences of a batch that go to a rank: a block (default) or every `world`-th. */
  slicing?: 'contiguous' | 'interleaved';
}

/**
 * Windows of a token data set as packed batches. The order of the sequences is a function of (seed, epoch, index) alone: a loader resumed at
 * any place, with any number of ranks, continues as if it had never stopped. In every epoch each token that has a predecessor is predicted
 * exactly once: the last window of an epoch is moved back to full length and what it repeats is not a target again. Epochs follow each other
 * inside batches.
 */
export class PackedLoader implements Loader {
  readonly tokensPerBatch: number;
  readonly shard: { readonly rank: number; readonly world: number };
  /** Sequences of an epoch. */
  readonly windowsPerEpoch: number;
  private readonly dataset: TokenDataset;
  private readonly options: Required<PackedLoaderOptions>;
  private readonly fingerprint: string;
  private epoch = 0;
  private position = 0;
  private cached?: { epoch: number; stream: TokenStream; order?: Int32Array };

  /** Throws ERR_LIBMOE_ARGUMENT for options out of range and ERR_LIBMOE_DATA when the data are shorter than a sequence. */
  constructor(dataset: TokenDataset, options: PackedLoaderOptions) {
    this.dataset = dataset;
    this.options = checked(options);
    const { sequenceLength, batchSequences, rank, world, seed, shuffle, splitAtDocuments } = this.options;
    if (dataset.length < sequenceLength + 1) {
      fail(
        'ERR_LIBMOE_DATA',
        `a sequence of ${sequenceLength} tokens and its last target need ${sequenceLength + 1} tokens, the data have ${dataset.length}: ` +
          'shorten sequenceLength or give more text',
      );
    }
    this.windowsPerEpoch = Math.ceil((dataset.length - 1) / sequenceLength);
    this.tokensPerBatch = (batchSequences / world) * sequenceLength;
    this.shard = { rank, world };
    this.fingerprint = [
      dataset.fingerprint,
      dataset.length,
      sequenceLength,
      seed,
      shuffle,
      splitAtDocuments,
    ].join('/');
  }

  /** True when the last epoch is over. */
  get done(): boolean {
    const { epochs, batchSequences, world } = this.options;
    const left = (epochs - this.epoch) * this.windowsPerEpoch - this.position;
    return world > 1 ? left < batchSequences : left <= 0;
  }

  next(): TokenBatch {
    if (this.done) {
      fail(
        'ERR_LIBMOE_STATE',
        `the ${this.options.epochs} epochs of this loader are over: raise epochs, or ask .done first`,
      );
    }
    const { epochs, batchSequences, rank, world, slicing } = this.options;
    const left = (epochs - this.epoch) * this.windowsPerEpoch - this.position;
    const count = Math.min(batchSequences, left);
    const share = count / world;
    const parts: Window[] = [];
    for (let i = 0; i < count; ++i) {
      const mine =
        world === 1 || (slicing === 'contiguous' ? Math.floor(i / share) === rank : i % world === rank);
      if (mine) parts.push(this.window(this.epoch, this.position));
      this.position += 1;
      if (this.position === this.windowsPerEpoch) {
        this.position = 0;
        this.epoch += 1;
      }
    }
    return packed(parts);
  }

  /** The batches until `done`. */
  *[Symbol.iterator](): Generator<TokenBatch> {
    while (!this.done) yield this.next();
  }

  state(): JsonValue {
    return { epoch: this.epoch, position: this.position, fingerprint: this.fingerprint };
  }

  restore(state: JsonValue): void {
    const { epoch, position, fingerprint } = isJsonObject(state) ? state : {};
    const fits = (value: unknown, end: number): value is number =>
      typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < end;
    if (
      !fits(epoch, Number.POSITIVE_INFINITY) ||
      !fits(position, this.windowsPerEpoch) ||
      fingerprint !== this.fingerprint
    ) {
      fail(
        'ERR_LIBMOE_STATE',
        `the saved place ${JSON.stringify(state)} is not one of this loader (${this.fingerprint}): data, sequenceLength, seed, shuffle and ` +
          'splitAtDocuments must be those of the saved run',
      );
    }
    this.epoch = epoch;
    this.position = position;
  }

  private window(epoch: number, position: number): Window {
    const { sequenceLength, splitAtDocuments } = this.options;
    const { stream, order } = this.epochOrder(epoch);
    const wanted = (order ? order[position]! : position) * sequenceLength;
    const start = Math.min(wanted, stream.length - 1 - sequenceLength);
    const tokens = stream.read(start, start + sequenceLength + 1);
    const targets = tokens.slice(1);
    targets.fill(-1, 0, wanted - start);
    const starts = [0];
    if (splitAtDocuments) {
      for (const boundary of stream.boundaries(start, start + sequenceLength + 1)) {
        // The first token of a document is not foretold by the one before it.
        targets[boundary - start - 1] = -1;
        if (boundary < start + sequenceLength) starts.push(boundary - start);
      }
    }
    return { ids: tokens.subarray(0, sequenceLength), targets, starts };
  }

  private epochOrder(epoch: number): { stream: TokenStream; order?: Int32Array } {
    if (this.cached?.epoch !== epoch) {
      const { seed, shuffle } = this.options;
      this.cached =
        shuffle === 'documents'
          ? { epoch, stream: shuffledDocuments(this.dataset, seed, epoch) }
          : {
              epoch,
              stream: storedStream(this.dataset),
              order: shuffle === 'windows' ? permutation(this.windowsPerEpoch, seed, epoch) : undefined,
            };
    }
    return this.cached;
  }
}

/** One sequence, or several where it was split: ids and targets `[length]`, and where its parts begin. */
export interface Window {
  ids: Int32Array;
  targets: Int32Array;
  starts: readonly number[];
}

/** Lays windows end to end. */
export function packed(windows: readonly Window[]): TokenBatch {
  const tokens = windows.reduce((sum, window) => sum + window.ids.length, 0);
  const batch: TokenBatch = {
    ids: new Int32Array(tokens),
    targets: new Int32Array(tokens),
    sequenceOffsets: new Int32Array(windows.reduce((sum, window) => sum + window.starts.length, 1)),
  };
  let at = 0;
  let sequence = 0;
  for (const window of windows) {
    batch.ids.set(window.ids, at);
    batch.targets.set(window.targets, at);
    for (const start of window.starts) batch.sequenceOffsets[sequence++] = at + start;
    at += window.ids.length;
  }
  batch.sequenceOffsets[sequence] = tokens;
  return batch;
}

const count = z.number().int().min(1);
const optionsSchema = z.strictObject({
  sequenceLength: count,
  batchSequences: count,
  seed: z.number().int().nonnegative().default(0),
  shuffle: z.enum(['windows', 'documents', 'none']).default('windows'),
  splitAtDocuments: z.boolean().default(false),
  epochs: z.union([count, z.literal(Number.POSITIVE_INFINITY)]).default(Number.POSITIVE_INFINITY),
  rank: z.number().int().default(0),
  world: count.default(1),
  slicing: z.enum(['contiguous', 'interleaved']).default('contiguous'),
});

function checked(options: PackedLoaderOptions): Required<PackedLoaderOptions> {
  const parsed = optionsSchema.safeParse(options);
  if (!parsed.success) {
    const why = explainIssues(optionsSchema, parsed.error.issues, options);
    return fail('ERR_LIBMOE_ARGUMENT', `PackedLoader: ${why}`);
  }
  const { batchSequences, rank, world } = parsed.data;
  checkRank(batchSequences, rank, world);
  return parsed.data;
}

/** Throws ERR_LIBMOE_ARGUMENT unless the batch can be shared evenly and the rank exists. */
export function checkRank(batchSequences: number, rank: number, world: number): void {
  if (batchSequences % world !== 0) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `batchSequences must be a multiple of the ${world} ranks, got ${batchSequences}`,
    );
  }
  if (!Number.isInteger(rank) || rank < 0 || rank >= world) {
    fail('ERR_LIBMOE_ARGUMENT', `rank must lie in 0…${world - 1}, got ${rank}`);
  }
}
