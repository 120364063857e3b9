import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { readJsonObject } from '../storage/json.ts';
import { loadSharp } from './images/decode.ts';
import { npmDataFile } from './npm-data.ts';

/** Five artists' drawings of the same things, by the npm packages `@iconify-json/<artist>`. */
export const emojiArtists = ['twemoji', 'noto', 'openmoji', 'fluent-emoji-flat', 'emojione'] as const;
/** One of {@link emojiArtists}. */
export type EmojiArtist = (typeof emojiArtists)[number];

/** A thing that all artists have drawn. */
export interface EmojiThing {
  /** As a person would say it: `red apple`. */
  name: string;
  /** Names its files. */
  slug: string;
  /** One of Unicode's categories: `Food & Drink`. */
  category: string;
}

interface Icon {
  body: string;
  left?: number;
  top?: number;
  width?: number;
  height?: number;
}

interface IconSet extends Omit<Icon, 'body'> {
  icons: Record<string, Icon>;
  aliases?: Record<string, { parent: string }>;
}

const packageOf = (artist: EmojiArtist): string => `@iconify-json/${artist}`;
const sets = new Map<EmojiArtist, IconSet>();

function setOf(artist: EmojiArtist): IconSet {
  const known = sets.get(artist);
  if (known) return known;
  const file = npmDataFile(packageOf(artist), 'icons.json');
  const set = readJsonObject(file, 'ERR_LIBMOE_DATA') as unknown as IconSet;
  sets.set(artist, set);
  return set;
}

function iconOf(artist: EmojiArtist, slug: string): Icon | undefined {
  const { icons, aliases = {}, left, top, width, height } = setOf(artist);
  const icon = icons[slug] ?? icons[aliases[slug]?.parent ?? ''];
  return icon && { left, top, width, height, ...icon };
}

const slugOf = (name: string): string =>
  name
    .toLowerCase()
    .normalize('NFD')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');

/**
 * The things of the given categories that all artists have drawn under the same name, in Unicode's order (npm package `unicode-emoji-json`).
 * @param categories default: all
 * @throws ERR_LIBMOE_DATA naming the one `npm i` when a package is not installed
 */
export function emojiThings(categories?: readonly string[]): EmojiThing[] {
  const all = readJsonObject(
    npmDataFile('unicode-emoji-json', 'data-by-emoji.json'),
    'ERR_LIBMOE_DATA',
  ) as unknown as Record<string, { name: string; group: string }>;
  const things = Object.values(all)
    .map(({ name, group }) => ({ name, slug: slugOf(name), category: group }))
    .filter(({ category }) => categories?.includes(category) ?? true)
    .filter(({ slug }) => emojiArtists.every((artist) => iconOf(artist, slug) !== undefined));
  if (things.length === 0)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `no emoji in the categories ${categories?.join(', ')}; there are ${[...new Set(Object.values(all).map(({ group }) => group))].join(', ')}`,
    );
  return things;
}

/** What the artists' packages are in which version: drawings change with it only. */
export function emojiVersions(): Record<string, string> {
  return Object.fromEntries(
    [...emojiArtists.map(packageOf), 'unicode-emoji-json'].map((name) => [
      name,
      String(readJsonObject(npmDataFile(name, 'package.json')).version),
    ]),
  );
}

/** Where {@link drawEmoji} puts a drawing, relative to its folder. @param variant 0 is the drawing as it is */
export const emojiFile = (artist: EmojiArtist, { slug }: Pick<EmojiThing, 'slug'>, variant = 0): string =>
  join(artist, variant === 0 ? `${slug}.png` : `${slug}.${variant}.png`);

/**
 * Draws things as PNG files of `side` × `side` pixels on white, one folder per artist; what is there already stays.
 * @param options `variants`: how many drawings of each, the second and later ones a little turned, sized, moved and coloured otherwise
 * @param onProgress hears how many of the drawings are there
 * @throws ERR_LIBMOE_STOPPED when the signal is aborted; what is drawn is kept
 */
export async function drawEmoji(
  things: readonly EmojiThing[],
  folder: string,
  {
    side,
    artists = emojiArtists,
    variants = 1,
    signal,
    onProgress,
  }: {
    side: number;
    artists?: readonly EmojiArtist[];
    variants?: number;
    signal?: AbortSignal | undefined;
    onProgress?: (done: number, all: number) => void;
  },
): Promise<void> {
  const all = artists.flatMap((artist) =>
    things.flatMap((thing) => Array.from({ length: variants }, (_, variant) => ({ artist, thing, variant }))),
  );
  for (const artist of artists) mkdirSync(join(folder, artist), { recursive: true });
  const together = 16;
  for (let at = 0; at < all.length; at += together) {
    if (signal?.aborted) fail('ERR_LIBMOE_STOPPED', 'stopped while drawing emoji; the same call goes on');
    await Promise.all(
      all
        .slice(at, at + together)
        .map(({ artist, thing, variant }) =>
          drawOne({ artist, thing, variant }, join(folder, emojiFile(artist, thing, variant)), side),
        ),
    );
    onProgress?.(Math.min(at + together, all.length), all.length);
  }
}

interface Drawing {
  artist: EmojiArtist;
  thing: EmojiThing;
  variant: number;
}

/** How a variant differs from the drawing as it is: by the same for everyone who asks. */
function changesOf({ artist, thing, variant }: Drawing): {
  degrees: number;
  scale: number;
  shift: [number, number];
  gain: [number, number, number];
} {
  const bytes = createHash('sha256').update(`${artist}/${thing.slug}/${variant}`).digest();
  /** Uniform in [−1, 1). */
  const draw = (i: number): number => bytes.readUInt32LE(4 * i) / 2 ** 31 - 1;
  return {
    degrees: 14 * draw(0),
    scale: 0.95 + 0.15 * draw(1),
    shift: [0.1 * draw(2), 0.1 * draw(3)],
    gain: [1 + 0.2 * draw(4), 1 + 0.2 * draw(5), 1 + 0.2 * draw(6)],
  };
}

async function drawOne(drawing: Drawing, file: string, side: number): Promise<void> {
  if (existsSync(file)) return;
  const { artist, thing, variant } = drawing;
  const { slug, name } = thing;
  const icon =
    iconOf(artist, slug) ?? fail('ERR_LIBMOE_ARGUMENT', `${artist} has not drawn "${name}" (${slug})`);
  const { left = 0, top = 0, width = 16, height = 16, body } = icon;
  const { degrees, scale, shift, gain } = changesOf(drawing);
  const [x, y] = [left + width / 2, top + height / 2];
  const moved = `translate(${x + shift[0] * width} ${y + shift[1] * height}) rotate(${degrees}) scale(${scale}) translate(${-x} ${-y})`;
  const black = body.replaceAll('currentColor', '#000');
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="${left} ${top} ${width} ${height}" ` +
    `width="${side}" height="${side}">${variant === 0 ? black : `<g transform="${moved}">${black}</g>`}</svg>`;
  const sharp = await loadSharp();
  const part = `${file}.${process.pid}.part`;
  const drawn = sharp(Buffer.from(svg)).flatten({ background: '#ffffff' });
  await (variant === 0 ? drawn : drawn.removeAlpha().linear(gain, [0, 0, 0])).png().toFile(part);
  renameSync(part, file);
}
