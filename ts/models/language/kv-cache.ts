import { fail } from '../../native/index.ts';
import type { LayerCache } from '../../nn/attention.ts';
import { cacheCopyBlock } from '../../tensor/attention.ts';
import {
  type DeviceName,
  type Dtype,
  defaultDevice,
  keep,
  noGrad,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../tensor/index.ts';
import { cat } from '../../tensor/shape.ts';
import { blockSizeFor, placePieces } from './cached-pieces.ts';
import { type LanguageModelConfig, valueDimOf } from './config.ts';

/** Sizes of a {@link KvCache}. */
export interface KvCacheOptions {
  /** Tokens per block; default 16, or less where layers see pieces of sequences, which it must divide. */
  blockSize?: number;
  /** Blocks to begin with; the pools double when they are full. Default 16. */
  blocks?: number;
  /** Never more blocks than this. Default: no limit. */
  maxBlocks?: number;
  dtype?: Dtype;
  device?: DeviceName;
}

interface Sequence {
  length: number;
  blocks: number[];
}

/** Some sequences of a cache, in the order of a batch: what a model's forward takes. */
export interface CachedSequences {
  cache: KvCache;
  sequences: readonly number[];
}

/** Room made for one forward pass; {@link commit} makes the new tokens count. */
export interface CacheStep {
  /** Length of each sequence before this step. */
  starts: number[];
  layer(index: number): LayerCache;
  commit(): void;
  /** Gives the room back: the pass failed. */
  abandon(): void;
}

/**
 * Keys and values of past tokens for decoding and shared-prefix scoring. Each layer has a pool of fixed-size blocks (after Kwon et al. 2023, arXiv
 * 2309.06180); a sequence is a list of blocks. A fork shares the blocks of its parent, and a shared block is copied when one of them writes to it.
 */
export class KvCache {
  readonly blockSize: number;
  readonly #layers: { keys: Tensor; values: Tensor }[];
  readonly #sequences = new Map<number, Sequence>();
  readonly #maxBlocks: number;
  readonly #device: DeviceName;
  readonly #chunk: number | undefined;
  #references: number[];
  #free: number[];
  #next = 0;
  #disposed = false;

  /** @throws ERR_LIBMOE_ARGUMENT for sizes that are not positive integers */
  constructor(
    config: Pick<LanguageModelConfig, 'layers' | 'keyValueHeads' | 'headDim' | 'attention' | 'chunk'>,
    options: KvCacheOptions = {},
  ) {
    this.#chunk = config.chunk?.size;
    const { blocks = 16, maxBlocks = Number.MAX_SAFE_INTEGER } = options;
    const blockSize = blockSizeFor(config.chunk?.size, options.blockSize);
    for (const [name, value] of Object.entries({ blockSize, blocks, maxBlocks })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        fail('ERR_LIBMOE_ARGUMENT', `KvCache: ${name} must be a positive integer, got ${value}`);
      }
    }
    this.blockSize = blockSize;
    this.#maxBlocks = maxBlocks;
    this.#device = options.device ?? defaultDevice();
    const count = Math.min(blocks, maxBlocks);
    const pool = (width: number): Tensor => {
      const shape = [count, blockSize, config.keyValueHeads, width];
      return keep(zeros(shape, { dtype: options.dtype ?? 'f32', device: this.#device }));
    };
    this.#layers = Array.from({ length: config.layers }, () => ({
      keys: pool(config.headDim),
      values: pool(valueDimOf(config)),
    }));
    this.#references = Array(count).fill(0);
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  /** Starts an empty sequence and returns its id. */
  add(): number {
    this.#alive();
    const id = this.#next++;
    this.#sequences.set(id, { length: 0, blocks: [] });
    return id;
  }

  /** A new sequence with the same past; the past is shared, not copied. */
  fork(sequence: number): number {
    const from = this.#sequence(sequence);
    const id = this.add();
    // Not the room that a step in progress has beyond the past: both would write there.
    const blocks = from.blocks.slice(0, Math.ceil(from.length / this.blockSize));
    this.#sequences.set(id, { length: from.length, blocks });
    for (const block of blocks) this.#references[block]! += 1;
    return id;
  }

  /** Forgets all tokens from `length` on. @throws ERR_LIBMOE_ARGUMENT when the sequence is shorter than that */
  truncate(sequence: number, length: number): void {
    const state = this.#sequence(sequence);
    if (!Number.isInteger(length) || length < 0 || length > state.length) {
      fail('ERR_LIBMOE_ARGUMENT', `cannot cut a sequence of ${state.length} tokens to ${length}`);
    }
    state.length = length;
    this.#trim(state);
  }

  /** Ends a sequence; its blocks are used again once no fork needs them. */
  free(sequence: number): void {
    this.truncate(sequence, 0);
    this.#sequences.delete(sequence);
  }

  /** Tokens of a sequence. */
  length(sequence: number): number {
    return this.#sequence(sequence).length;
  }

  /** Blocks that hold tokens, and blocks there are. */
  usage(): { used: number; blocks: number; sequences: number } {
    const blocks = this.#references.length;
    return { used: blocks - this.#free.length, blocks, sequences: this.#sequences.size };
  }

  /** These sequences in this order, for a model's forward. */
  at(sequences: readonly number[]): CachedSequences {
    for (const sequence of sequences) this.#sequence(sequence);
    if (new Set(sequences).size !== sequences.length) {
      fail('ERR_LIBMOE_ARGUMENT', `a sequence is named twice in [${sequences.join(', ')}]: fork it`);
    }
    return { cache: this, sequences };
  }

  /**
   * Makes room for `counts[i]` more tokens of `sequences[i]`. The tensors of the step belong to the scope of the caller. End it with `commit`, or
   * with `abandon`, which leaves the cache as it was.
   * @throws ERR_LIBMOE_OUT_OF_MEMORY when `maxBlocks` do not suffice
   */
  begin(sequences: readonly number[], counts: readonly number[]): CacheStep {
    this.#alive();
    const states = sequences.map((sequence) => this.#sequence(sequence));
    const abandon = (): void => {
      for (const state of states) this.#trim(state);
    };
    try {
      states.forEach((state, i) => {
        this.#extend(state, counts[i]!);
      });
    } catch (error) {
      abandon();
      throw error;
    }
    const starts = states.map((state) => state.length);
    const width = Math.max(1, ...states.map((state) => state.blocks.length));
    const table = new Int32Array(states.length * width).fill(-1);
    states.forEach((state, i) => {
      table.set(state.blocks, i * width);
    });
    const at = { dtype: 'i32', device: this.#device } as const;
    const shared = {
      blockTable: tensor(table, [states.length, width], at),
      keyLengths: tensor(
        starts.map((start, i) => start + counts[i]!),
        [states.length],
        at,
      ),
    };
    const own = states.map((state) => state.blocks);
    const pieces =
      this.#chunk === undefined
        ? undefined
        : placePieces(own, starts, counts, { ...at, size: this.#chunk, blockSize: this.blockSize });
    return {
      starts,
      layer: (index) => ({ ...this.#layers[index]!, ...shared, pieces }),
      commit: () => {
        states.forEach((state, i) => {
          state.length += counts[i]!;
        });
      },
      abandon,
    };
  }

  /** Frees the pools. */
  dispose(): void {
    this.#disposed = true;
    for (const { keys, values } of this.#layers) {
      keys.dispose();
      values.dispose();
    }
    this.#sequences.clear();
  }

  /** As `dispose`, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #alive(): void {
    if (this.#disposed) fail('ERR_LIBMOE_DISPOSED', 'this KvCache was freed');
  }

  #sequence(id: number): Sequence {
    this.#alive();
    const found = this.#sequences.get(id);
    return found ?? fail('ERR_LIBMOE_ARGUMENT', `the cache has no sequence ${id}: add() or fork() makes one`);
  }

  /** Gives back the blocks beyond the length. */
  #trim(state: Sequence): void {
    for (const block of state.blocks.splice(Math.ceil(state.length / this.blockSize))) this.#release(block);
  }

  #release(block: number): void {
    this.#references[block]! -= 1;
    if (this.#references[block] === 0) this.#free.push(block);
  }

  #take(): number {
    if (this.#free.length === 0) this.#grow();
    const block = this.#free.pop()!;
    this.#references[block] = 1;
    return block;
  }

  /** Gives a sequence blocks for `count` more tokens, and a partly filled last block of its own. */
  #extend(state: Sequence, count: number): void {
    const filled = state.length % this.blockSize;
    const last = state.blocks[Math.floor(state.length / this.blockSize)];
    if (count > 0 && filled > 0 && last !== undefined && this.#references[last]! > 1) {
      const own = this.#take();
      for (const { keys, values } of this.#layers) {
        cacheCopyBlock(keys, last, own);
        cacheCopyBlock(values, last, own);
      }
      state.blocks[Math.floor(state.length / this.blockSize)] = own;
      this.#release(last);
    }
    const needed = Math.ceil((state.length + count) / this.blockSize);
    while (state.blocks.length < needed) state.blocks.push(this.#take());
  }

  #grow(): void {
    const before = this.#references.length;
    const after = Math.min(2 * before, this.#maxBlocks);
    if (after === before) {
      fail(
        'ERR_LIBMOE_OUT_OF_MEMORY',
        `the cache has all of its ${before} blocks of ${this.blockSize} tokens in use: free() or truncate() sequences, or raise maxBlocks`,
      );
    }
    const grown = (old: Tensor): Tensor =>
      noGrad(() =>
        scope(() => {
          const more = zeros([after - before, ...old.shape.slice(1)], {
            dtype: old.dtype,
            device: old.device,
          });
          return keep(cat([old, more], 0));
        }),
      );
    for (const layer of this.#layers) {
      for (const part of ['keys', 'values'] as const) {
        const old = layer[part];
        layer[part] = grown(old);
        old.dispose();
      }
    }
    for (let block = after - 1; block >= before; block--) this.#free.push(block);
    for (let block = before; block < after; block++) this.#references.push(0);
  }
}
