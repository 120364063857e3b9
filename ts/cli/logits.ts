import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { imageOptions } from './images.ts';
import { collect, deviceOption, takeDevice } from './options.ts';
import { printJson, table } from './output.ts';

interface Options {
  device: string;
  model: string;
  tokens: string;
  out: string;
  hidden?: boolean;
  tokenizer?: string;
  json?: boolean;
  image?: string[];
  imageMode?: string;
}

export function logitsCommand(): Command {
  const [image, imageMode] = imageOptions;
  return new Command('logits')
    .description('a raw forward pass into a file, to compare with another implementation')
    .requiredOption('--model <checkpoint>', 'a checkpoint folder, a run folder, or a llama2c .bin')
    .requiredOption('--tokens <file>', 'JSON: [1, 2, 3], or several sequences [[1, 2], [3]], or a "text"')
    .requiredOption('--out <file>', 'a .safetensors file')
    .option('--hidden', 'the hidden states and the routing of every layer too')
    .option(...image!, collect)
    .option(...imageMode!)
    .option('--tokenizer <file>', 'for a text, when the checkpoint has none of its own')
    .option(...deviceOption)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nTensors, f32: logits [tokens, vocabulary]; with --hidden also hidden.<layer> [tokens, width], what each block gives,\nrouting.<layer>.experts (i32) and routing.<layer>.weights [tokens, choices]. Sequences are laid end to end.\nWith --image, of a vision-language model: each image in the place of its image token (one, or as many as it has rows), or before a text;\nalso image.features, the rows that the language model sees, and with --hidden the routing of tower and projector.\n\nExample: npx libmoe logits --model runs/demo/moe --tokens ids.json --out logits.safetensors --hidden\nMore: docs/models.md',
    )
    .action(async (o: Options) => {
      const { readFileSync } = await import('node:fs');
      const { resolveCheckpoint } = await import('../experiment/index.ts');
      const { loadTokenizer } = await import('../data/index.ts');
      const { LanguageModel, rawForward } = await import('../models/language/index.ts');
      const { loadAnyModel, rawForwardWithImages } = await import('../models/vision-language/index.ts');
      const { placedImages, readImages, withMarks } = await import('./images.ts');
      const { writeSafetensors } = await import('../storage/index.ts');
      const checkpoint = resolveCheckpoint(o.model);
      let text: string;
      try {
        text = readFileSync(o.tokens, 'utf8');
      } catch (error) {
        return fail('ERR_LIBMOE_FILE', `cannot read --tokens ${o.tokens}`, error);
      }
      const images = o.image ?? [];
      const tokenizer = (): ReturnType<typeof loadTokenizer> => loadTokenizer(o.tokenizer ?? checkpoint);
      const given = parsedJson(text, o.tokens);
      await takeDevice(o.device);
      const model = await loadAnyModel(checkpoint);
      const hidden = o.hidden ?? false;
      let sequences: ArrayLike<number>[];
      let tensors: ReturnType<typeof rawForward>;
      try {
        if (images.length === 0) {
          sequences = sequencesOf(given, o.tokens, (words) => tokenizer().encode(words));
          tensors = rawForward(model instanceof LanguageModel ? model : model.language, sequences, {
            hidden,
          });
        } else {
          if (model instanceof LanguageModel)
            return fail('ERR_LIBMOE_ARGUMENT', `--image: ${o.model} is a language model and sees no images`);
          const { pixels, tiles } = await readImages(model, images, o.imageMode);
          try {
            const placed = await placedImages(model, {
              tiles,
              ...(typeof given === 'string'
                ? { text: withMarks(given, images.length), tokenizer: tokenizer() }
                : { sequences: sequencesOf(given, o.tokens, () => new Int32Array()) }),
            });
            sequences = placed.sequences;
            tensors = rawForwardWithImages(model, sequences, { pixels, starts: placed.starts }, { hidden });
          } finally {
            pixels.dispose();
          }
        }
      } finally {
        model.dispose();
      }
      const found = [...tensors].map(([name, t]) => ({ name, dtype: t.dtype, shape: [...t.shape] }));
      try {
        writeSafetensors(o.out, tensors);
      } finally {
        for (const t of tensors.values()) t.dispose();
      }
      const tokens = sequences.reduce((all, { length }) => all + length, 0);
      if (o.json) printJson({ out: o.out, tokens, tensors: found });
      else
        console.log(
          table(
            ['tensor', 'dtype', 'shape'],
            found.map(({ name, dtype, shape }) => [name, dtype, shape.join(' × ')]),
          ),
        );
    });
}

function parsedJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    return fail('ERR_LIBMOE_DATA', `--tokens ${file} is not JSON: ${(error as Error).message}`, error);
  }
}

function sequencesOf(
  value: unknown,
  file: string,
  encode: (words: string) => Int32Array,
): ArrayLike<number>[] {
  if (typeof value === 'string') return [encode(value)];
  const rows: unknown[] = Array.isArray(value) && value.some(Array.isArray) ? value : [value];
  const isSequence = (row: unknown): row is number[] =>
    Array.isArray(row) && row.length > 0 && row.every((id) => Number.isInteger(id));
  if (!rows.every(isSequence))
    return fail(
      'ERR_LIBMOE_DATA',
      `--tokens ${file} must hold token ids, [1, 2, 3] or [[1, 2], [3]], or a text in quotes`,
    );
  return rows;
}
