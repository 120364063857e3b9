import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import {
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
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { Recipe } from './recipe.ts';
import { documentsOf } from './sources.ts';

/** What {@link prepareData} made or found. */
export interface Prepared {
  tokenizer: Tokenizer;
  /** The folder that holds tokenizer.json. */
  tokenizerFolder: string;
  dataset: ShardDataset;
  loader: Loader;
}

type Log = (line: string) => void;

const tokenizerFiles = ['tokenizer.json', 'tokenizer_config.json', 'tokenizer.bin'];

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

/**
 * The tokenizer of a run, kept in `<out>/tokenizer`: trained on the training texts, read from a file, or the checkpoint's. A resumed run finds it
 * there and does not train it again.
 */
async function prepareTokenizer(recipe: Recipe, out: string, log: Log): Promise<string> {
  const folder = path.join(out, 'tokenizer');
  const wanted = recipe.tokenizer ?? resolveCheckpoint(recipe.start?.checkpoint ?? '');
  if (typeof wanted === 'string') {
    const given = loadTokenizer(wanted);
    log(`tokenizer: ${given.name}, ${given.vocabularySize} ids`);
    if (wanted.endsWith('.bin')) return wanted; // llama2c's: no Hugging Face file to keep beside the checkpoints
    mkdirSync(folder, { recursive: true });
    if (wanted.endsWith('.json')) {
      copyFileSync(wanted, path.join(folder, 'tokenizer.json'));
      const config = path.join(path.dirname(wanted), 'tokenizer_config.json');
      if (existsSync(config)) copyFileSync(config, path.join(folder, 'tokenizer_config.json'));
    } else copyTokenizer(wanted, folder);
    return folder;
  }
  if (existsSync(path.join(folder, 'tokenizer.json'))) return folder;
  log(`training a tokenizer of ${wanted.train.vocabularySize} ids …`);
  const trained = await trainTokenizer(textsOf(documentsOf(recipe.data.train)), wanted.train);
  mkdirSync(folder, { recursive: true });
  writeTokenizer(folder, trained);
  log(`tokenizer: ${trained.pieces.length} pieces in ${trained.statistics.seconds.toFixed(1)} s`);
  return folder;
}

/** Tokenizer, token shards and loader of a recipe; what an earlier call left on disk is used again. */
export async function prepareData(recipe: Recipe, out: string, log: Log): Promise<Prepared> {
  const { data, seed } = recipe;
  const tokenizerFolder = await prepareTokenizer(recipe, out, log);
  const tokenizer = loadTokenizer(tokenizerFolder);
  const key = createHash('sha256')
    .update(JSON.stringify([data.train, tokenizer.hash]))
    .digest('hex')
    .slice(0, 16);
  const shards = path.join(data.cache ?? path.join(path.dirname(out), 'cache'), key);
  let shown = 0;
  const manifest = await writeShards(documentsOf(data.train), {
    out: shards,
    tokenizer: tokenizerFolder,
    workers: data.workers,
    onProgress: ({ documents, tokens, seconds }) => {
      if (seconds - shown < 5) return;
      shown = seconds;
      log(`tokenising: ${documents} documents, ${tokens} tokens, ${seconds.toFixed(0)} s`);
    },
  });
  log(`training data: ${manifest.documents} documents, ${manifest.tokens} tokens`);
  const dataset = openShards(shards, { tokenizerHash: tokenizer.hash });
  const { sequenceLength, batchSequences, order, splitAtDocuments } = data;
  const loader =
    order === 'libmoe'
      ? new LibmoeOrderLoader(dataset, { sequenceLength, batchSequences })
      : new PackedLoader(dataset, { sequenceLength, batchSequences, seed, shuffle: order, splitAtDocuments });
  return { tokenizer, tokenizerFolder, dataset, loader };
}
