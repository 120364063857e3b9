import type { Tokenizer } from '../tokenizer.ts';
import { imageMark } from './conversation.ts';
import { type EncodedText, imageSlot } from './encoding.ts';
import type { RoundMarks } from './templates.ts';

/** Ids and labels as LibMoE makes them, and whether it gave up. */
export interface LibmoeLabels extends EncodedText {
  /** The lengths did not add up: nothing of the conversation is learned. */
  ignored: boolean;
}

/**
 * Ids and labels of a prompt as LibMoE's preprocessing makes them (spec/algorithms.md §5.3). The prompt is encoded piece by piece around its
 * images. To find the answers it is taken apart into rounds, each of them encoded again, and places are found by adding up lengths: where a
 * tokenizer does not behave as assumed, labels are a token off, and where the sum is not the length of the prompt the whole conversation is
 * ignored. `rounds` undefined: the template `plain`, of which all but the images is learned.
 */
export function libmoeLabels(
  prompt: string,
  tokenizer: Tokenizer,
  context: number,
  rounds: RoundMarks | undefined,
): LibmoeLabels {
  const withImage = prompt.includes(imageMark);
  const encoded = pieceIds(prompt, tokenizer);
  // Text without images is cut before it is looked at, text with images after they are expanded.
  const ids = withImage ? encoded : encoded.slice(0, context);
  const learned = ids.map((id) => id !== imageSlot);
  if (rounds === undefined) {
    // The original masks as many places as the image's own text has, BOS included.
    learned.fill(false, 0, pieceIds(imageMark, tokenizer).length);
    return { ids, learned, ignored: false };
  }
  const pad = tokenizer.tokenToId('<unk>') ?? -2;
  const total = ids.reduce((count, id) => count + (id === pad ? 0 : 1), 0);
  const ignore = (from: number, to: number) => learned.fill(false, from, to);
  let place = 1;
  ignore(0, place);
  for (const [i, round] of roundsOf(prompt, rounds).entries()) {
    const halves = round.split(rounds.header);
    if (round === '' || halves.length !== 2) break;
    const later = i === 0 ? 0 : rounds.laterAllowance;
    const asked = pieceIds(halves[0]! + rounds.header, tokenizer).length - rounds.allowance - later;
    ignore(place, place + asked);
    place += pieceIds(round, tokenizer).length - later;
  }
  ignore(place, ids.length);
  const ignored = place < context && place !== total;
  if (ignored) learned.fill(false);
  return { ids, learned, ignored };
}

/** The prompt cut at its terminators, so many of them to a round. */
function roundsOf(prompt: string, { terminator, parts: [first, later] }: RoundMarks): string[] {
  const pieces = prompt.split(terminator);
  const rounds = [pieces.slice(0, first).join(terminator)];
  for (let i = first; i < pieces.length; i += later) rounds.push(pieces.slice(i, i + later).join(terminator));
  return rounds;
}

/** Ids of the text between images, each encoded by itself; of the BOS that each may begin with only the first stays. */
function pieceIds(text: string, tokenizer: Tokenizer): number[] {
  const { bosId } = tokenizer;
  const ids: number[] = [];
  for (const [i, piece] of text.split(imageMark).entries()) {
    const encoded = Array.from(tokenizer.encode(piece, { addSpecialTokens: true }));
    if (i > 0) ids.push(imageSlot);
    ids.push(...(i > 0 && encoded[0] === bosId ? encoded.slice(1) : encoded));
  }
  return ids;
}
