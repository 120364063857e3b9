import { closeSync, openSync, statSync } from 'node:fs';
import { fail } from '../native/index.ts';
import { readFully } from '../storage/safetensors-header.ts';
import {
  readChecked,
  readManifest,
  type ShardManifest,
  sha256,
  shardPaths,
  tokenBytes,
} from './shard-files.ts';
import { checkRange, lastNotAbove, type TokenDataset } from './token-dataset.ts';

/** Options of {@link openShards}. */
export interface OpenShardsOptions {
  /** `checksums` (default) reads every file once; `sizes` only looks at their lengths, for data of many gigabytes. */
  verify?: 'checksums' | 'sizes';
  /** The hash of the tokenizer that the model uses; other data are refused. */
  tokenizerHash?: string;
}

/** Shards on disk, read where they are needed. */
export interface ShardDataset extends TokenDataset {
  readonly manifest: ShardManifest;
}

/**
 * Opens a folder that {@link writeShards} completed.
 * @throws ERR_LIBMOE_FILE when there is no manifest; ERR_LIBMOE_DATA when it is incomplete, a shard is missing, cut off or damaged, or the
 * tokenizer is another.
 */
export function openShards(folder: string, options: OpenShardsOptions = {}): ShardDataset {
  const manifest = readManifest(folder);
  if (!manifest.complete) {
    fail('ERR_LIBMOE_DATA', `${folder} is not complete: run its preparation again, finished shards are kept`);
  }
  if (options.tokenizerHash !== undefined && options.tokenizerHash !== manifest.tokenizer.hash) {
    fail(
      'ERR_LIBMOE_DATA',
      `${folder} was made with the tokenizer ${manifest.tokenizer.name} (${manifest.tokenizer.hash.slice(0, 12)}…), ` +
        `the model uses ${options.tokenizerHash.slice(0, 12)}…: prepare the data with the model's tokenizer`,
    );
  }
  const width = tokenBytes[manifest.dtype];
  const documentOffsets = new Float64Array(manifest.documents + 1);
  const starts: number[] = [];
  let documents = 0;
  let tokens = 0;
  for (const [i, shard] of manifest.shards.entries()) {
    const paths = shardPaths(folder, i);
    const index = readChecked(paths.index, 4 * (shard.documents + 1), shard.indexHash);
    if (options.verify === 'sizes') checkSize(paths.tokens, shard.tokens * width);
    else readChecked(paths.tokens, shard.tokens * width, shard.tokensHash);
    for (let d = 0; d < shard.documents; ++d)
      documentOffsets[documents + d] = tokens + index.readUInt32LE(4 * d);
    starts.push(tokens);
    documents += shard.documents;
    tokens += shard.tokens;
  }
  if (documents !== manifest.documents || tokens !== manifest.tokens) {
    fail('ERR_LIBMOE_DATA', `${folder}/manifest.json contradicts itself: prepare the data again`);
  }
  documentOffsets[documents] = tokens;
  return new FileShards(folder, manifest, documentOffsets, starts);
}

function checkSize(file: string, bytes: number): void {
  const size = statSync(file, { throwIfNoEntry: false })?.size;
  if (size !== bytes) {
    fail(
      'ERR_LIBMOE_DATA',
      `${file} should have ${bytes} bytes, ${size === undefined ? 'is missing' : `has ${size}`}: prepare the data again`,
    );
  }
}

class FileShards implements ShardDataset {
  readonly length: number;
  readonly shardLengths: readonly number[];
  readonly vocabularySize: number;
  readonly fingerprint: string;
  readonly manifest: ShardManifest;
  readonly documentOffsets: Float64Array;
  private readonly folder: string;
  private readonly starts: readonly number[];
  private readonly descriptors = new Map<number, number>();
  private closed = false;

  constructor(
    folder: string,
    manifest: ShardManifest,
    documentOffsets: Float64Array,
    starts: readonly number[],
  ) {
    this.folder = folder;
    this.manifest = manifest;
    this.documentOffsets = documentOffsets;
    this.starts = starts;
    this.length = manifest.tokens;
    this.shardLengths = manifest.shards.map((shard) => shard.tokens);
    this.vocabularySize = manifest.tokenizer.vocabularySize;
    this.fingerprint = sha256(manifest.shards.map((shard) => shard.tokensHash).join()).slice(0, 16);
  }

  read(start: number, end: number): Int32Array {
    if (this.closed) fail('ERR_LIBMOE_DISPOSED', `the shards of ${this.folder} are closed`);
    checkRange(start, end, this.length);
    const out = new Int32Array(end - start);
    for (let at = start; at < end; ) {
      const shard = lastNotAbove(this.starts, at);
      const stop = Math.min(end, this.starts[shard]! + this.shardLengths[shard]!);
      out.set(this.readShard(shard, at - this.starts[shard]!, stop - at), at - start);
      at = stop;
    }
    return out;
  }

  close(): void {
    this.closed = true;
    for (const descriptor of this.descriptors.values()) closeSync(descriptor);
    this.descriptors.clear();
  }

  private readShard(shard: number, start: number, count: number): Uint16Array | Int32Array {
    const file = shardPaths(this.folder, shard).tokens;
    let descriptor = this.descriptors.get(shard);
    if (descriptor === undefined) {
      descriptor = openSync(file, 'r');
      this.descriptors.set(shard, descriptor);
    }
    const tokens = this.manifest.dtype === 'u16' ? new Uint16Array(count) : new Int32Array(count);
    readFully(descriptor, new Uint8Array(tokens.buffer), start * tokens.BYTES_PER_ELEMENT, file);
    return tokens;
  }
}
