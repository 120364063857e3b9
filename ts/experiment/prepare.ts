import { createHash } from 'node:crypto';
import path from 'node:path';
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
  writeShards,
} from '../data/index.ts';
import { fail } from '../native/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe } from './language-recipe.ts';
import { prepareTokenizer } from './prepare-tokenizer.ts';
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
  const tokenizerFolder = await prepareTokenizer(
    {
      wanted: recipe.tokenizer ?? resolveCheckpoint(recipe.start?.checkpoint ?? ''),
      texts: () => trainingTexts(recipe),
      stamp: () => ({ source: data.train, stamp: stampOf(data.train), separator: data.separator }),
    },
    out,
    options,
  );
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
