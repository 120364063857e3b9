import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { drawEmoji, emojiFile, emojiThings } from '../../ts/data/emoji.ts';
import { emojiQuestions } from '../../ts/data/emoji-questions.ts';
import { temporaryFolder } from '../storage/temporary.ts';

const folder = temporaryFolder();
const things = emojiThings(['Activities']).slice(0, 3);
const pixels = async (file: string): Promise<Buffer> => sharp(file).removeAlpha().raw().toBuffer();

describe('drawings of emoji', () => {
  it('come in variants that differ from each other, the same ones for everybody', async () => {
    const draw = (place: string, variants?: number) =>
      drawEmoji(things, join(folder, place), { side: 24, artists: ['noto'], ...(variants && { variants }) });
    await draw('one');
    await draw('three', 3);
    await draw('again', 3);
    for (const thing of things) {
      const file = (place: string, variant: number) => join(folder, place, emojiFile('noto', thing, variant));
      // The first is the drawing as it is.
      expect(readFileSync(file('three', 0)).equals(readFileSync(file('one', 0)))).toBe(true);
      expect(() => statSync(file('one', 1))).toThrow('ENOENT');
      const seen = await Promise.all([0, 1, 2].map((variant) => pixels(file('three', variant))));
      for (const [a, b] of [
        [0, 1],
        [0, 2],
        [1, 2],
      ] as const) {
        const apart = seen[a]!.reduce((sum, value, i) => sum + Math.abs(value - seen[b]![i]!), 0);
        // Another picture, but still one of the same thing: on average less than a quarter of the range away.
        expect(apart / seen[a]!.length).toBeGreaterThan(2);
        expect(apart / seen[a]!.length).toBeLessThan(64);
      }
      for (const variant of [1, 2])
        expect(readFileSync(file('again', variant)).equals(readFileSync(file('three', variant)))).toBe(true);
    }
  });

  it('are asked about one variant at a time', () => {
    const [first] = emojiQuestions(things, 'noto', 'name', { choices: 3, variant: 2, seed: 2 });
    expect(first!.image).toBe(emojiFile('noto', things[0]!, 2));
    expect(first!.choices[first!.answer]).toBe(things[0]!.name);
  });
});
