import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { z } from 'zod';
import { drawEmoji, emojiArtists, emojiThings, emojiVersions } from '../data/emoji.ts';
import { emojiQuestionKinds, emojiQuestions } from '../data/emoji-questions.ts';
import { permutation } from '../data/shuffle.ts';
import { registerDataset } from './dataset.ts';

/** Questions about emoji as one artist drew them; the drawings are made when they are first needed. */
registerDataset('emoji', {
  options: z.strictObject({
    artist: z.enum(emojiArtists),
    question: z.enum(emojiQuestionKinds),
    /** Unicode's categories; default: all. */
    categories: z.array(z.string()).min(1).optional(),
    first: z.int().positive().optional(),
    /** Names to choose from. */
    choices: z.int().min(2).default(8),
    seed: z.int().nonnegative().default(0),
    /** Of the drawings, in pixels. */
    side: z.int().positive().default(48),
    /** Where the drawings go. */
    folder: z.string().default('runs/cache/emoji'),
  }),
  load: async ({ artist, question, categories, first, choices, seed, side, folder }) => {
    const things = emojiThings(categories).slice(0, first);
    const versions = createHash('sha256').update(JSON.stringify(emojiVersions())).digest('hex').slice(0, 8);
    const place = resolve(folder, `${side}-${versions}`);
    await drawEmoji(things, place, { side, artists: [artist] });
    const rows = emojiQuestions(things, artist, question, { choices, seed });
    // Things stand by category; the first so many of a limit are to be of all.
    return Array.from(permutation(rows.length, seed, 0, 'emoji/questions'), (at) => {
      const row = rows[at]!;
      return { ...row, image: resolve(place, row.image) };
    });
  },
});
