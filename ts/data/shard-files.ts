import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/atomic.ts';
import { type JsonValue, readJsonObject, reasonOf } from '../storage/json.ts';

/** What ends each document: an id, a text that is tokenised with it (LibMoE's `<STORY_SEP>`), or nothing. */
export type DocumentSeparator = { id: number } | { text: string } | null;

/** LibMoE's separator: plain text for which BPE learns pieces (spec/algorithms.md §4.3). */
export const storySeparator: DocumentSeparator = { text: '<STORY_SEP>' };

/** What is written about one shard once it is whole. */
export interface ShardEntry {
  documents: number;
  tokens: number;
  /** SHA-256 of the token file. */
  tokensHash: string;
  /** SHA-256 of the index file. */
  indexHash: string;
  /** SHA-256 of the texts it was made from. */
  sourceHash: string;
}

/** manifest.json of a folder of shards. */
export interface ShardManifest {
  format: 'libmoe-shards';
  version: 1;
  /** False while documents may still be missing. */
  complete: boolean;
  tokenizer: { name: string; hash: string; vocabularySize: number };
  dtype: 'u16' | 'i32';
  separator: DocumentSeparator;
  /** A shard is closed when its documents reach this many characters. */
  shardCharacters: number;
  documents: number;
  tokens: number;
  shards: ShardEntry[];
  /** What the caller said that the documents are made from. */
  source?: JsonValue;
}

/** Files of shard `index`: tokens, document index, and the entry whose presence says that the other two are whole. */
export function shardPaths(folder: string, index: number): { tokens: string; index: string; entry: string } {
  const stem = join(folder, `shard-${String(index).padStart(5, '0')}`);
  return { tokens: `${stem}.bin`, index: `${stem}.idx`, entry: `${stem}.json` };
}

/** Bytes of a token in a file. */
export const tokenBytes = { u16: 2, i32: 4 } as const;

/** Writes one shard, its entry last. `offsets` has a document's beginning per entry and the number of tokens at the end. */
export function writeShard(
  folder: string,
  index: number,
  content: { tokens: Uint16Array | Int32Array; offsets: Uint32Array; sourceHash: string },
): ShardEntry {
  const paths = shardPaths(folder, index);
  const tokens = bytesOf(content.tokens);
  const offsets = bytesOf(content.offsets);
  const entry: ShardEntry = {
    documents: content.offsets.length - 1,
    tokens: content.tokens.length,
    tokensHash: sha256(tokens),
    indexHash: sha256(offsets),
    sourceHash: content.sourceHash,
  };
  writeFileAtomically(paths.tokens, tokens);
  writeFileAtomically(paths.index, offsets);
  writeFileAtomically(paths.entry, `${JSON.stringify(entry)}\n`);
  return entry;
}

/** The entry of a shard if it is whole and made from the given texts. */
export function finishedShard(folder: string, index: number, sourceHash: string): ShardEntry | undefined {
  const paths = shardPaths(folder, index);
  if (!existsSync(paths.entry) || !existsSync(paths.tokens) || !existsSync(paths.index)) return undefined;
  let entry: Partial<ShardEntry>;
  try {
    entry = readJsonObject(paths.entry);
    if (entry.sourceHash !== sourceHash) return undefined;
    const whole =
      sha256(readFileSync(paths.tokens)) === entry.tokensHash &&
      sha256(readFileSync(paths.index)) === entry.indexHash;
    return whole ? (entry as ShardEntry) : undefined;
  } catch {
    return undefined; // it is simply made again
  }
}

/** Reads and checks manifest.json. Throws ERR_LIBMOE_FILE when it is missing and ERR_LIBMOE_DATA when it is something else. */
export function readManifest(folder: string): ShardManifest {
  const file = join(folder, 'manifest.json');
  if (!existsSync(file))
    fail(
      'ERR_LIBMOE_FILE',
      `expected a folder of token shards, but there is no ${file}: run "libmoe data prepare"`,
    );
  const manifest = readJsonObject(file, 'ERR_LIBMOE_DATA') as unknown as ShardManifest;
  if (manifest.format !== 'libmoe-shards' || manifest.version !== 1 || !Array.isArray(manifest.shards)) {
    fail('ERR_LIBMOE_DATA', `${file} is not a manifest of token shards of version 1`);
  }
  return manifest;
}

/** Writes manifest.json. */
export function writeManifest(folder: string, manifest: ShardManifest): void {
  writeFileAtomically(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 1)}\n`);
}

/** Reads a file of a shard and checks its length and checksum. Throws ERR_LIBMOE_DATA naming the file and what to do. */
export function readChecked(file: string, bytes: number, hash: string): Buffer {
  let content: Buffer;
  try {
    content = readFileSync(file);
  } catch (error) {
    fail(
      'ERR_LIBMOE_DATA',
      `${file} is listed in the manifest but cannot be read (${reasonOf(error)}): prepare the data again`,
      error,
    );
  }
  if (content.length !== bytes) {
    fail(
      'ERR_LIBMOE_DATA',
      `${file} should have ${bytes} bytes, has ${content.length}: prepare the data again`,
    );
  }
  if (sha256(content) !== hash) {
    fail(
      'ERR_LIBMOE_DATA',
      `${file} is damaged (its checksum is not that of the manifest): prepare the data again`,
    );
  }
  return content;
}

/** SHA-256 in hex. */
export function sha256(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

/** The texts' common checksum; lengths go in, so that no two lists of texts look alike. */
export function sourceHashOf(texts: readonly string[]): string {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest('hex');
}

function bytesOf(array: Uint16Array | Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
