import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TokenizerTrainingOptions, trainTokenizer, writeTokenizer } from '../../../ts/data/bpe-training.ts';

const out = process.env.OUT ?? '/tmp/libmoe-tokenizers';
const file = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
for (const { name, options } of JSON.parse(file('cases.json')) as { name: string; options: TokenizerTrainingOptions }[]) {
  writeTokenizer(join(out, name), await trainTokenizer([file('mixed.txt')], options));
}
