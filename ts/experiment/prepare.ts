import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import {
  type DocumentSeparator,
  LibmoeOrderLoader,
  type Loader,
  loadTokenizer,
  openShards,
  PackedLoader,
  type ShardDataset,
  type Tokenizer,
  textsOf,
  trainTokenizer,
  writeShards,
  writeTokenizer,
} from '../data/index.ts';
import { fail } from '../native/index.ts';
import { readJson, writeFileAtomically } from '../storage/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe } from './language-recipe.ts';
import { documentsOf, stampOf } from './sources.ts';

/** What {@link prepareData} made or found. */
export interface Prepared {
  tokenizer: Tokenizer;
  /** The folder that holds tokenizer.json. */
  tokenizerFolder: string;
  dataset: ShardDataset;
  loader: Loader;
}

/** Options of {@link prepareData}. */
export interface PrepareOptions {
  /** Gets one line for each thing that begins or ends. */
  log: (line: string) => void;
  /** The run's own checkpoint: its tokenizer stays what it is. */
  checkpoint?: string | undefined;
  /** Ends the work; what is finished is kept. */
  signal?: AbortSignal | undefined;
  /** Which part of every batch the loader gives; default all of it. */
  shard?: { rank: number; world: number } | undefined;
  /** Everything has just been prepared by another process: only open it. */
  ready?: boolean | undefined;
}

const tokenizerFiles = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'tokenizer.bin'];

/** Copies a tokenizer (a folder's, a tokenizer.json with what lies beside it, or a llama2c `.bin`) into a checkpoint folder. */
export function copyTokenizer(from: string, to: string): void {
  if (from.endsWith('.bin')) {
    if (existsSync(from)) copyFileSync(from, path.join(to, 'tokenizer.bin'));
    return;
  }
  const isFile = from.endsWith('.json');
  for (const name of tokenizerFiles) {
    const file =
      isFile && name === 'tokenizer.json' ? from : path.join(isFile ? path.dirname(from) : from, name);
    if (existsSync(file)) copyFileSync(file, path.join(to, name));
  }
}

/** The tokenizer of a run, kept in `<out>/tokenizer`: trained on the training texts, read from a file, or the checkpoint's. */
async function prepareTokenizer(recipe: Recipe, out: string, options: PrepareOptions): Promise<string> {
  const { log, checkpoint } = options;
  const folder = path.join(out, 'tokenizer');
  const file = path.join(folder, 'tokenizer.json');
  if (options.ready && existsSync(file)) return folder;
  if (checkpoint !== undefined) {
    if (!existsSync(file) && existsSync(path.join(checkpoint, 'tokenizer.json'))) {
      mkdirSync(folder, { recursive: true });
      copyTokenizer(checkpoint, folder);
    }
    if (existsSync(file)) return folder;
  }
  const wanted = recipe.tokenizer ?? resolveCheckpoint(recipe.start?.checkpoint ?? '');
  const trainedFrom = path.join(folder, 'trained-from.json');
  if (typeof wanted === 'string') {
    const given = loadTokenizer(wanted);
    log(`tokenizer: ${given.name}, ${given.vocabularySize} ids`);
    if (wanted.endsWith('.bin')) return wanted; // llama2c's: no Hugging Face file to keep beside the checkpoints
    mkdirSync(folder, { recursive: true });
    rmSync(trainedFrom, { force: true });
    if (wanted.endsWith('.json')) {
      copyFileSync(wanted, file);
      const config = path.join(path.dirname(wanted), 'tokenizer_config.json');
      if (existsSync(config)) copyFileSync(config, path.join(folder, 'tokenizer_config.json'));
    } else copyTokenizer(wanted, folder);
    return folder;
  }
  const { train, separator } = recipe.data;
  const from = { train: wanted.train, source: train, stamp: stampOf(train), separator };
  if (existsSync(file) && existsSync(trainedFrom) && isDeepStrictEqual(readJson(trainedFrom), from))
    return folder;
  log(`training a tokenizer of ${wanted.train.vocabularySize} ids …`);
  const { maxSentenceBytes, ...rest } = wanted.train;
  const trained = await trainTokenizer(trainingTexts(recipe), {
    ...rest,
    ...(maxSentenceBytes !== null && { maxSentenceBytes }),
    ...(options.signal && { signal: options.signal }),
  });
  mkdirSync(folder, { recursive: true });
  rmSync(trainedFrom, { force: true });
  writeTokenizer(folder, trained);
  writeFileAtomically(trainedFrom, `${JSON.stringify(from, null, 2)}\n`);
  log(`tokenizer: ${trained.pieces.length} pieces in ${trained.statistics.seconds.toFixed(1)} s`);
  return folder;
}

/** What a tokenizer learns from: the texts as they will be tokenised, so a separator that is text is among them. */
async function* trainingTexts({ data: { train, separator } }: Recipe): AsyncGenerator<string> {
  const end = typeof separator === 'object' ? separator.text : '';
  for await (const text of textsOf(documentsOf(train))) yield text + end;
}

/**
 * Tokenizer, token shards and loader of a recipe; what an earlier call left on disk is used again.
 * @throws ERR_LIBMOE_STOPPED when the signal was aborted, and what tokenizer, corpus and loader throw
 */
export async function prepareData(recipe: Recipe, out: string, options: PrepareOptions): Promise<Prepared> {
  const { data } = recipe;
  const { log, signal } = options;
  const tokenizerFolder = await prepareTokenizer(recipe, out, options);
  const tokenizer = loadTokenizer(tokenizerFolder);
  const { train, separator, shardCharacters } = data;
  const key = createHash('sha256')
    .update(JSON.stringify([train, tokenizer.hash, separator, shardCharacters]))
    .digest('hex')
    .slice(0, 16);
  const shards = path.join(data.cache ?? path.join(path.dirname(out), 'cache'), key);
  if (!options.ready) await prepareShards(recipe, shards, { tokenizer, tokenizerFolder, log, signal });
  // The checksums have just been compared.
  const dataset = openShards(shards, { tokenizerHash: tokenizer.hash, verify: 'sizes' });
  try {
    return { tokenizer, tokenizerFolder, dataset, loader: loaderOf(recipe, dataset, options.shard) };
  } catch (error) {
    dataset.close();
    throw error;
  }
}

/** Tokenises the training texts into a folder, unless they lie there already. */
async function prepareShards(
  { data: { train, separator, shardCharacters, workers } }: Recipe,
  shards: string,
  {
    tokenizer,
    tokenizerFolder,
    log,
    signal,
  }: Pick<Prepared, 'tokenizer' | 'tokenizerFolder'> & PrepareOptions,
): Promise<void> {
  let shown = 0;
  const manifest = await writeShards(documentsOf(train), {
    out: shards,
    tokenizer: tokenizerFolder,
    shardCharacters,
    source: stampOf(train),
    ...(separator !== 'eos' && { separator: separatorOf(separator, tokenizer) }),
    ...(workers !== 'auto' && { workers }),
    ...(signal && { signal }),
    onProgress: ({ documents, tokens, seconds }) => {
      if (seconds - shown < 5) return;
      shown = seconds;
      log(`tokenising: ${documents} documents, ${tokens} tokens, ${seconds.toFixed(0)} s`);
    },
  });
  log(`training data: ${manifest.documents} documents, ${manifest.tokens} tokens`);
}

function separatorOf(separator: 'bos' | 'none' | { text: string }, tokenizer: Tokenizer): DocumentSeparator {
  if (separator !== 'bos') return separator === 'none' ? null : separator;
  const { bosId, name } = tokenizer;
  if (bosId === undefined)
    return fail('ERR_LIBMOE_RECIPE', `data.separator: bos, but the tokenizer ${name} has no BOS token`);
  return { id: bosId };
}

function loaderOf(
  { data, seed }: Recipe,
  dataset: ShardDataset,
  shard: PrepareOptions['shard'] = { rank: 0, world: 1 },
): Loader {
  const { sequenceLength, batchSequences, order, splitAtDocuments, compat, tokenLimit } = data;
  if (order !== 'libmoe')
    return new PackedLoader(dataset, {
      sequenceLength,
      batchSequences,
      seed,
      shuffle: order,
      splitAtDocuments,
      ...shard,
    });
  const limit = tokenLimit !== null ? { tokenLimit } : {};
  return new LibmoeOrderLoader(dataset, { sequenceLength, batchSequences, compat, ...limit, ...shard });
}
