import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { drawEmoji, emojiArtists, emojiThings, emojiVersions } from '../data/emoji.ts';
import { conversationsOfQuestions, emojiQuestionKinds, emojiQuestions } from '../data/emoji-questions.ts';
import { writeFileAtomically } from '../storage/index.ts';
import { count } from './recipe-parts.ts';

/** Conversations about emoji of some artists, from npm packages: real images with names on any machine. */
export const emojiSourceSchema = z.strictObject({
  dataset: z.literal('emoji'),
  artists: z.array(z.enum(emojiArtists)).min(1),
  /** Unicode's categories; default: all. */
  categories: z.array(z.string()).min(1).optional(),
  /** Only so many things, the first ones. */
  first: count.optional(),
  questions: z.array(z.enum(emojiQuestionKinds)).min(1).default(['name']),
  /** Of the drawings, in pixels. */
  side: count.default(48),
  /** Drawings of each thing by each artist: one as it is, the others a little turned, sized, moved and coloured otherwise. */
  variants: count.max(100).default(1),
});
/** An emoji source with every default written out. */
export type EmojiSource = z.output<typeof emojiSourceSchema>;

const keyOf = (value: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify([value, emojiVersions()]))
    .digest('hex')
    .slice(0, 16);

/** Where drawings of this side are kept. */
export const emojiFolder = (cache: string, side: number): string => path.join(cache, `emoji-${keyOf(side)}`);

/** Draws what a source names and writes its conversations, unless both are there. @throws ERR_LIBMOE_DATA, ERR_LIBMOE_STOPPED */
export async function emojiConversations(
  source: EmojiSource,
  cache: string,
  { signal, log }: { signal: AbortSignal | undefined; log: (line: string) => void },
): Promise<{ conversations: string; images: string }> {
  const { artists, categories, first, questions, side, variants } = source;
  const things = emojiThings(categories).slice(0, first);
  const images = emojiFolder(cache, side);
  let shown = performance.now();
  await drawEmoji(things, images, {
    side,
    artists,
    variants,
    signal,
    onProgress: (done, all) => {
      if (performance.now() - shown < 5000) return;
      shown = performance.now();
      log(`drawing emoji: ${done} of ${all}`);
    },
  });
  const conversations = path.join(cache, `emoji-${keyOf(source)}.json`);
  if (!existsSync(conversations)) {
    const records = artists.flatMap((artist) =>
      Array.from({ length: variants }).flatMap((_, variant) =>
        questions.flatMap((kind) =>
          // Each variant asks for other wrong names.
          conversationsOfQuestions(emojiQuestions(things, artist, kind, { variant, seed: variant })),
        ),
      ),
    );
    writeFileAtomically(conversations, `${JSON.stringify(records)}\n`);
  }
  return { conversations, images };
}
