import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { loadTokenizer, trainTokenizer, writeTokenizer } from '../data/index.ts';
import { readJson, writeFileAtomically } from '../storage/index.ts';
import type { PrepareOptions } from './prepare.ts';
import type { tokenizerSchema } from './recipe-parts.ts';

/** Where the tokenizer of a run comes from. */
export interface TokenizerSource {
  /** A file or folder, a checkpoint that has one, or how to train one. */
  wanted: z.output<typeof tokenizerSchema>;
  /** What one learns from that is trained. */
  texts(): AsyncIterable<string>;
  /** Stands for these texts: another value, another tokenizer. */
  stamp(): Record<string, unknown>;
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

/** The tokenizer of a run, kept in `<out>/tokenizer`: trained on the run's texts, read from a file, or the checkpoint's. */
export async function prepareTokenizer(
  { wanted, texts, stamp }: TokenizerSource,
  out: string,
  options: Omit<PrepareOptions, 'shard'>,
): Promise<string> {
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
  const trainedFrom = path.join(folder, 'trained-from.json');
  if (typeof wanted === 'string') {
    const given = loadTokenizer(wanted);
    log(`tokenizer: ${given.name}, ${given.vocabularySize} ids`);
    if (wanted.endsWith('.bin')) return wanted; // llama2c's: no Hugging Face file to keep beside the checkpoints
    mkdirSync(folder, { recursive: true });
    rmSync(trainedFrom, { force: true });
    copyTokenizer(wanted, folder);
    return folder;
  }
  const from = { train: wanted.train, ...stamp() };
  if (existsSync(file) && existsSync(trainedFrom) && isDeepStrictEqual(readJson(trainedFrom), from))
    return folder;
  log(`training a tokenizer of ${wanted.train.vocabularySize} ids …`);
  const { maxSentenceBytes, ...rest } = wanted.train;
  const trained = await trainTokenizer(texts(), {
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
