import { fail } from '../native/index.ts';
import { isJsonObject, type JsonValue } from '../storage/json.ts';
import type { Loader, TokenBatch } from './batch.ts';
import { checkRank, packed, type Window } from './packed-loader.ts';
import { lastNotAbove, type TokenDataset } from './token-dataset.ts';

/** Options of {@link LibmoeOrderLoader}. */
export interface LibmoeOrderOptions {
  /** Tokens of a sample, the original's `unroll`. */
  sequenceLength: number;
  /** Samples of a batch over all ranks. */
  batchSequences: number;
  /** Only this many tokens of the data are used. */
  tokenLimit?: number;
  /**
   * `fixed` (default): chunk offsets are an ordinary prefix sum. `libmoe`: they are summed with the size of the current chunk instead of the
   * one before, as in the original, so that tails of chunks are lost and heads are read twice.
   */
  compat?: 'fixed' | 'libmoe';
  rank?: number;
  world?: number;
}

/**
 * The batch order of LibMoE's pretraining: the samples are shared out to as many lanes as a batch has sequences,
 * lane j reading its own contiguous stretch, step p takes sample `j·length + p` of each. Sample i = tokens
 * `[i·unroll, i·unroll + unroll]`, the last of them only a target. A rank takes a contiguous block of lanes. Without end: after the last
 * step the first one follows.
 */
export class LibmoeOrderLoader implements Loader {
  readonly tokensPerBatch: number;
  readonly shard: { readonly rank: number; readonly world: number };
  /** Samples in the data. */
  readonly samples: number;
  /** Steps of an epoch. */
  readonly laneLength: number;
  private readonly options: Required<LibmoeOrderOptions>;
  private readonly dataset: TokenDataset;
  /** Where chunk i is taken to begin, and where it does. */
  private readonly offsets: number[] = [];
  private readonly starts: number[] = [];
  private readonly total: number;
  private readonly fingerprint: string;
  private epoch = 0;
  private position = 0;

  /** Throws ERR_LIBMOE_ARGUMENT for options out of range and ERR_LIBMOE_DATA when there is less than one batch. */
  constructor(dataset: TokenDataset, options: LibmoeOrderOptions) {
    this.dataset = dataset;
    const { sequenceLength, batchSequences, compat = 'fixed', rank = 0, world = 1 } = options;
    const tokenLimit = options.tokenLimit ?? Number.POSITIVE_INFINITY;
    this.options = { sequenceLength, batchSequences, tokenLimit, compat, rank, world };
    for (const [name, value] of Object.entries({ sequenceLength, batchSequences, world })) {
      if (!Number.isInteger(value) || value < 1)
        fail('ERR_LIBMOE_ARGUMENT', `${name} must be a whole number of 1 or more, got ${value}`);
    }
    if (compat !== 'fixed' && compat !== 'libmoe') {
      fail('ERR_LIBMOE_ARGUMENT', `compat must be "fixed" or "libmoe", got "${String(compat)}"`);
    }
    checkRank(batchSequences, rank, world);
    let start = 0;
    let offset = 0;
    for (const [i, length] of dataset.shardLengths.entries()) {
      if (i > 0) offset += compat === 'libmoe' ? length : dataset.shardLengths[i - 1]!;
      this.offsets.push(offset);
      this.starts.push(start);
      start += length;
    }
    this.total = offset + (dataset.shardLengths.at(-1) ?? 0);
    const usable = Math.min(this.total, tokenLimit);
    // The original counts a sample whose last target lies beyond the data; here it is one that predicts nothing at its end.
    this.samples = Math.floor(
      (compat === 'libmoe' ? usable : Math.min(usable, this.total - 1)) / sequenceLength,
    );
    this.laneLength = Math.floor(this.samples / batchSequences);
    if (this.laneLength < 1) {
      fail(
        'ERR_LIBMOE_DATA',
        `${batchSequences} lanes of ${sequenceLength} tokens need as many samples, the data have ${Math.max(0, this.samples)}: ` +
          'shorten sequenceLength or batchSequences or give more text',
      );
    }
    this.tokensPerBatch = (batchSequences / world) * sequenceLength;
    this.shard = { rank, world };
    this.fingerprint = [
      'libmoe-order',
      dataset.fingerprint,
      sequenceLength,
      batchSequences,
      tokenLimit,
      compat,
    ].join('/');
  }

  next(): TokenBatch {
    const { batchSequences, rank, world } = this.options;
    const lanes = batchSequences / world;
    const parts: Window[] = [];
    for (let lane = rank * lanes; lane < (rank + 1) * lanes; ++lane) {
      parts.push(this.sample(this.position + lane * this.laneLength));
    }
    this.position += 1;
    if (this.position === this.laneLength) {
      this.position = 0;
      this.epoch += 1;
    }
    return packed(parts);
  }

  state(): JsonValue {
    return { epoch: this.epoch, position: this.position, fingerprint: this.fingerprint };
  }

  restore(state: JsonValue): void {
    const { epoch, position, fingerprint } = isJsonObject(state) ? state : {};
    const whole = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0;
    if (
      !whole(epoch) ||
      !whole(position) ||
      position >= this.laneLength ||
      fingerprint !== this.fingerprint
    ) {
      fail(
        'ERR_LIBMOE_STATE',
        `the saved place ${JSON.stringify(state)} is not one of this loader (${this.fingerprint})`,
      );
    }
    this.epoch = epoch;
    this.position = position;
  }

  /** Tokens `[start, start + count)` as the chunk table finds them: from one chunk, and from the head of the next when it runs short. */
  private read(start: number, count: number): Int32Array {
    const chunk = lastNotAbove(this.offsets, start);
    const lengths = this.dataset.shardLengths;
    const from = Math.min(start - this.offsets[chunk]!, lengths[chunk]!);
    const first = this.dataset.read(
      this.starts[chunk]! + from,
      this.starts[chunk]! + Math.min(from + count, lengths[chunk]!),
    );
    if (first.length === count || chunk + 1 === lengths.length) return first;
    if (this.options.compat === 'fixed') {
      // Chunks may be shorter than a sample; with true offsets that is no different from one long chunk.
      return this.dataset.read(start, Math.min(start + count, this.dataset.length));
    }
    const next = this.starts[chunk + 1]!;
    const rest = this.dataset.read(next, next + Math.min(count - first.length, lengths[chunk + 1]!));
    const both = new Int32Array(first.length + rest.length);
    both.set(first);
    both.set(rest, first.length);
    return both;
  }

  private sample(index: number): Window {
    const { sequenceLength } = this.options;
    const tokens = this.read(index * sequenceLength, sequenceLength + 1);
    const targets = new Int32Array(sequenceLength).fill(-1);
    targets.set(tokens.subarray(1));
    if (tokens.length < sequenceLength) {
      fail(
        'ERR_LIBMOE_DATA',
        `sample ${index} has only ${tokens.length} tokens: a chunk is shorter than a sample, use compat "fixed"`,
      );
    }
    return { ids: tokens.subarray(0, sequenceLength), targets, starts: [0] };
  }
}
