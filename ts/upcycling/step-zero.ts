import type { Tokenizer } from '../data/index.ts';
import { type LanguageModel, packSequences } from '../models/language/index.ts';
import type { VisionLanguageModel } from '../models/vision-language/index.ts';
import { ForwardContext } from '../moe/index.ts';
import { noGrad, scope, type Tensor } from '../tensor/index.ts';

/** A text to compare two models of one tokenizer on, where nobody gives a better one. */
export const sampleText: string =
  `One morning a girl named Ida found a small boat at the edge of the river. It had no oars and no name. She asked her
brother whose boat it was, but he did not know. They waited until noon, and then they painted a red stripe on its side and called it Wren. All that
summer they rowed to the island and back. They took bread, apples and a book about birds. When the rain came in the autumn they pulled the boat up
to the barn and turned it over. "It will sleep now," said Ida. In the spring a letter came. An old man wrote that the boat had been his, that he
had let it go in a storm, and that he was glad it had found a good home.`.replaceAll('\n', ' ');

/** How long the sequences are on which models are compared, and how many tokens there are at most. */
const sequenceTokens = 256;
const mostTokens = 8192;

/** The beginning of a text as token sequences that a model takes, each with the tokenizer's BOS where it has one. */
export function textSequences(text: string, tokenizer: Tokenizer, model: LanguageModel): number[][] {
  const ids = [...tokenizer.encode(text)].slice(0, mostTokens);
  const start = tokenizer.bosId === undefined ? [] : [tokenizer.bosId];
  const length = Math.min(sequenceTokens, model.config.maxPositions - start.length);
  const sequences: number[][] = [];
  for (let at = 0; at < ids.length; at += length) sequences.push([...start, ...ids.slice(at, at + length)]);
  return sequences.filter((sequence) => sequence.length > 1);
}

/** Mean cross entropy of predicting every token but the first of each sequence, in nats per token, outside training. */
export function meanLoss(model: LanguageModel, sequences: readonly (readonly number[])[]): number {
  return meanOver(sequences, (sequence, context) =>
    model.loss(
      { ...packSequences([sequence.slice(0, -1)]), targets: Int32Array.from(sequence.slice(1)) },
      context,
    ),
  );
}

/** The same with a made-up image, waves of colour, before each sequence. */
export function meanLossWithImage(
  model: VisionLanguageModel,
  sequences: readonly (readonly number[])[],
): number {
  const { imageTokenId, tokensPerImage } = model;
  const side = model.vision.imageSize;
  const wave = (i: number): number => Math.sin(i * 0.02) * Math.cos(Math.floor(i / side) * 0.05);
  const pixels = Float32Array.from({ length: 3 * side * side }, (_, i) => wave(i));
  const image = Array<number>(tokensPerImage).fill(imageTokenId);
  return meanOver(sequences, (sequence, context) => {
    const batch = packSequences([[...image, ...sequence.slice(0, -1)]]);
    const targets = Int32Array.from([...image.map(() => -1), ...sequence.slice(1)]);
    const images = { pixels, count: 1, side, starts: Int32Array.of(0) };
    return model.loss({ ...batch, targets, images }, context);
  });
}

function meanOver(
  sequences: readonly (readonly number[])[],
  loss: (sequence: readonly number[], context: ForwardContext) => Tensor,
): number {
  let nats = 0;
  let tokens = 0;
  for (const sequence of sequences) {
    using context = new ForwardContext();
    const mean = noGrad(() => scope(() => loss(sequence, context).item()));
    nats += mean * (sequence.length - 1);
    tokens += sequence.length - 1;
  }
  return nats / tokens;
}
