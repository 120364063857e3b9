import type { DecodedImage } from './decode.ts';

/** Red, green and blue, 0 to 255 each. */
export type Colour = readonly [number, number, number];

/** Colours one pixel; those beside the image are left out. */
function dot({ width, height, rgb }: DecodedImage, x: number, y: number, colour: Colour): void {
  if (x >= 0 && y >= 0 && x < width && y < height) rgb.set(colour, 3 * (y * width + x));
}

/** A line one pixel wide (Bresenham 1965) without its last pixel. */
function line(onto: DecodedImage, from: readonly number[], to: readonly number[], colour: Colour): void {
  const [dx, dy] = [to[0]! - from[0]!, to[1]! - from[1]!];
  const steps = Math.max(Math.abs(dx), Math.abs(dy));
  const flat = Math.abs(dx) > Math.abs(dy);
  const [less, sideways] = [Math.min(Math.abs(dx), Math.abs(dy)), Math.sign(flat ? dy : dx)];
  const forward = Math.sign(flat ? dx : dy);
  let [along, across] = flat ? [from[0]!, from[1]!] : [from[1]!, from[0]!];
  // Twice the distance of the next pixel's middle from the line, in pixels times steps.
  let error = 2 * less - steps;
  for (let i = 0; i < steps; i += 1) {
    if (flat) dot(onto, along, across, colour);
    else dot(onto, across, along, colour);
    if (error >= 0) {
      across += sideways;
      error -= 2 * steps;
    }
    error += 2 * less;
    along += forward;
  }
}

/**
 * The outline of the box from (left, top) to (right, bottom), both of which belong to it, `width` pixels wide and inwards. Coordinates are cut off to whole
 * pixels: the same pixels as Pillow's `ImageDraw.rectangle(box, outline, width)`.
 */
export function drawBox(onto: DecodedImage, box: readonly number[], colour: Colour, width: number): void {
  const [left, top, right, bottom] = box.map(Math.trunc) as [number, number, number, number];
  for (let i = 0; i < width; i += 1) {
    for (const y of [top + i, bottom - i]) line(onto, [left, y], [right + 1, y], colour);
    for (const x of [left + i, right - i]) line(onto, [x, top + width], [x, bottom - width + 1], colour);
  }
}

/** The outline of a polygon, one pixel wide; `points` are x, y, x, y …: the same pixels as Pillow's `ImageDraw.polygon(points, outline)`. */
export function drawPolygon(onto: DecodedImage, points: readonly number[], colour: Colour): void {
  const whole = points.map(Math.trunc);
  for (let i = 0; i + 1 < whole.length; i += 2) {
    const next = i + 3 < whole.length ? i + 2 : 0;
    line(onto, [whole[i]!, whole[i + 1]!], [whole[next]!, whole[next + 1]!], colour);
  }
}

/** Fills the pixels from (left, top) up to, and without, (right, bottom). */
export function fillBox(onto: DecodedImage, box: readonly number[], colour: Colour): void {
  const [left, top, right, bottom] = box as [number, number, number, number];
  for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 1) dot(onto, x, y, colour);
}

// A row per line, a dot per pixel.
const glyphs: Readonly<Record<string, string>> = {
  '[': '## #. #. #. #. #. ##',
  ']': '## .# .# .# .# .# ##',
  0: '.###. #...# #...# #...# #...# #...# .###.',
  1: '..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.',
  2: '.###. #...# ....# ...#. ..#.. .#... #####',
  3: '.###. #...# ....# ..##. ....# #...# .###.',
  4: '...#. ..##. .#.#. #..#. ##### ...#. ...#.',
  5: '##### #.... ####. ....# ....# #...# .###.',
  6: '..##. .#... #.... ####. #...# #...# .###.',
  7: '##### ....# ...#. ..#.. .#... .#... .#...',
  8: '.###. #...# #...# .###. #...# #...# .###.',
  9: '.###. #...# #...# .#### ....# ...#. .##..',
};

/** Digits and square brackets in a face of 5 by 7 dots of `size` pixels, so that an image looks the same on every machine. */
export function drawDigits(
  onto: DecodedImage,
  text: string,
  [left, top]: readonly [number, number],
  size: number,
  colour: Colour,
): void {
  let x = left;
  for (const mark of text) {
    const rows = glyphs[mark]!.split(' ');
    for (const [r, row] of rows.entries())
      for (const [c, set] of [...row].entries()) {
        const [from, to] = [x + c * size, top + r * size];
        if (set === '#') fillBox(onto, [from, to, from + size, to + size], colour);
      }
    x += (rows[0]!.length + 1) * size;
  }
}
