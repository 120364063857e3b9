import type { Tokenizer } from '../data/index.ts';
import type { UpcycledPart, VisionLanguageUpcycleOptions } from '../upcycling/index.ts';
import { oneOf } from './options.ts';
import { log, printJson } from './output.ts';
import { type StepZero, upcycleText } from './upcycle-output.ts';

/** What `libmoe upcycle` of a vision-language checkpoint is told. */
export interface VisionLanguageUpcycling {
  from: string;
  out: string;
  options: VisionLanguageUpcycleOptions;
  text: string;
  textName: string;
  tokenizer: Tokenizer | undefined;
  tokenizerFrom: string;
  family: string | undefined;
  json: boolean;
}

/** `vision,projector`. */
export const partsOf = (text: string): UpcycledPart[] =>
  text
    .split(',')
    .map((part) => oneOf('--parts', part.trim(), ['vision', 'projector', 'language']) as UpcycledPart);

/** Upcycles parts of a vision-language checkpoint into a new one, and measures both models on a text that follows an image. */
export async function upcycleVisionLanguageCheckpoint(given: VisionLanguageUpcycling): Promise<void> {
  const { from, out, options, tokenizer, textName, family, json } = given;
  const { copyTokenizer } = await import('../experiment/index.ts');
  const { configOf, loadVisionLanguageModel, lostInLlava, saveVisionLanguageModel } = await import(
    '../models/vision-language/index.ts'
  );
  const { meanLossWithImage, textSequences, upcycleVisionLanguageWithReport } = await import(
    '../upcycling/index.ts'
  );
  const dense = await loadVisionLanguageModel(from);
  const stepZero: StepZero = { text: `${textName} after a made-up image`, tokens: 0, dense: 0, upcycled: 0 };
  let made: ReturnType<typeof upcycleVisionLanguageWithReport>;
  let sequences: number[][];
  try {
    const { language } = dense;
    const room = Math.min(
      256,
      language.config.maxPositions - dense.tokensPerImage,
      language.config.vocabularySize,
    );
    const counted = Array.from({ length: room }, (_, i) => i).filter((id) => id !== dense.imageTokenId);
    sequences = tokenizer
      ? textSequences(given.text, tokenizer, language).map((ids) => ids.slice(0, room))
      : [counted];
    if (!tokenizer)
      stepZero.text = 'the vocabulary in its order after a made-up image (no tokenizer was found)';
    stepZero.tokens = sequences.reduce((sum, { length }) => sum + length - 1, 0);
    made = upcycleVisionLanguageWithReport(dense, options);
    stepZero.dense = meanLossWithImage(dense, sequences);
  } finally {
    dense.dispose();
  }
  const { model, report } = made;
  try {
    stepZero.upcycled = meanLossWithImage(model, sequences);
    await saveVisionLanguageModel(model, out, {
      family,
      extra: (folder) => {
        copyTokenizer(given.tokenizerFrom, folder);
        return copyProcessor(from, folder);
      },
    });
    const lost = lostInLlava(configOf(model));
    const llava = 'LlavaForConditionalGeneration';
    const written = {
      family: lost.length > 0 ? 'LibMoeForConditionalGeneration' : llava,
      transformers: { family: llava, lost },
    };
    if (json) printJson({ out, ...report, stepZero, ...written });
    else {
      const { expertNoise, ...rest } = report;
      console.log(upcycleText({ ...rest, layers: [] }, stepZero, written));
      for (const [part, noise] of Object.entries(expertNoise ?? {}))
        console.log(`expert noise, ${part}: ${noise.changed} of ${noise.experts} experts per layer`);
      for (const note of report.notes) console.log(note);
    }
  } finally {
    model.dispose();
  }
  log(`written: ${out}`);
}

/** How images are prepared belongs to a checkpoint too. */
async function copyProcessor(from: string, to: string): Promise<void> {
  const { copyFileSync, existsSync } = await import('node:fs');
  const path = await import('node:path');
  const name = 'preprocessor_config.json';
  if (existsSync(path.join(from, name))) copyFileSync(path.join(from, name), path.join(to, name));
}
