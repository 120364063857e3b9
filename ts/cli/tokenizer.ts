import { Command } from 'commander';
import { whole } from './options.ts';
import { log, printJson } from './output.ts';

interface Options {
  input: string[];
  vocab: string;
  out: string;
  column?: string;
  splitDigits: boolean;
  byteFallback?: boolean;
  json?: boolean;
}

export function tokenizerCommand(): Command {
  const train = new Command('train')
    .description(
      "byte-pair encoding with SentencePiece's and LibMoE's options, written as a Hugging Face tokenizer.json",
    )
    .requiredOption(
      '--input <files...>',
      'text, JSON lines or parquet (.gz and .zst too): files, folders or patterns',
    )
    .requiredOption(
      '--vocab <n>',
      'number of ids, the single characters or bytes and special tokens among them',
    )
    .requiredOption('--out <file>', 'tokenizer.json, or the folder it goes into')
    .option('--column <name>', 'the text column of JSON lines and parquet', 'text')
    .option('--no-split-digits', 'let numbers form tokens')
    .option('--byte-fallback', 'spell unknown characters as bytes')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe tokenizer train --input a.txt corpus/*.jsonl.gz --vocab 8000 --out tokenizer.json\nMore: docs/data.md',
    )
    .action(async (o: Options) => {
      const { readCorpus, textsOf, trainTokenizer, writeTokenizer } = await import('../data/index.ts');
      const trained = await trainTokenizer(
        textsOf(readCorpus(o.input, { ...(o.column && { column: o.column }) })),
        {
          vocabularySize: whole('--vocab', o.vocab),
          splitDigits: o.splitDigits,
          byteFallback: o.byteFallback ?? false,
        },
      );
      const file = writeTokenizer(o.out, trained);
      if (o.json) printJson({ file, vocabularySize: trained.pieces.length, ...trained.statistics });
      else log(`${trained.pieces.length} pieces in ${trained.statistics.seconds.toFixed(1)} s: ${file}`);
    });
  return new Command('tokenizer').description('train tokenizers').addCommand(train);
}
