import { z } from 'zod';
import type { ImageRecipe } from '../data/images/recipe.ts';
import { fail } from '../native/index.ts';
import { registerDocumentStep } from './document-steps.ts';
import type { Row } from './task.ts';
import { compileTemplate } from './template.ts';

// Steps that say how an image is made of others. Nothing is drawn here: the image is made when a model looks at it.

const colour = z.string().regex(/^#[0-9a-fA-F]{6}$/, 'a colour is written "#rrggbb"');
const image = z.string().default('image');

/** The rows with a recipe in place of their image. */
function withRecipes(
  rows: readonly Row[],
  column: string,
  recipe: (row: Row, file: string, where: string) => ImageRecipe,
): Row[] {
  return rows.map((row, i) => {
    const file = row[column];
    const where = `process_docs, row ${i}`;
    if (typeof file !== 'string' || file === '')
      return fail(
        'ERR_LIBMOE_DATA',
        `${where}: the column "${column}" must name an image file, got ${JSON.stringify(file) ?? 'nothing'}`,
      );
    return { ...row, [column]: recipe(row, file, where) };
  });
}

function numbers(row: Row, column: string, where: string, fits: (count: number) => boolean, what: string) {
  const value = row[column];
  return Array.isArray(value) && fits(value.length) && value.every(Number.isFinite)
    ? (value as number[])
    : fail(
        'ERR_LIBMOE_DATA',
        `${where}: the column "${column}" must hold ${what}, got ${JSON.stringify(value) ?? 'nothing'}; the row has ${Object.keys(row).join(', ')}`,
      );
}

/** Draws the outline of a box into the image. `form`: left, top, right, bottom (`corners`) or left, top, width, height (`size`), in pixels. */
registerDocumentStep('draw_box', {
  options: z.strictObject({
    image,
    box: z.string().default('bbox'),
    form: z.enum(['corners', 'size']).default('corners'),
    colour,
    width: z.int().positive().default(1),
  }),
  onlyAsked: true,
  apply: (rows, { image: column, box: name, form, colour: outline, width }) =>
    withRecipes(rows, column, (row, file, where) => {
      const [left, top, right, bottom] = numbers(row, name, where, (n) => n === 4, 'four numbers') as [
        number,
        number,
        number,
        number,
      ];
      const box = form === 'size' ? [left, top, left + right, top + bottom] : [left, top, right, bottom];
      return { make: 'box', files: [file], box, colour: outline, width };
    }),
});

/** Draws the outline of a polygon, x, y, x, y … in pixels, into the image, one pixel wide. */
registerDocumentStep('draw_polygon', {
  options: z.strictObject({ image, points: z.string().default('segmentation'), colour }),
  onlyAsked: true,
  apply: (rows, { image: column, points: name, colour: outline }) =>
    withRecipes(rows, column, (row, file, where) => ({
      make: 'polygon',
      files: [file],
      points: numbers(row, name, where, (n) => n >= 4 && n % 2 === 0, 'pairs of numbers, two at least'),
      colour: outline,
    })),
});

/** Puts several images together into one in the column `into`: beside or below each other, `size` pixels high or wide, each with its number. */
registerDocumentStep('group_images', {
  options: z.strictObject({
    /** A template that gives the list. */
    images: z.string(),
    into: z.string(),
    size: z.int().min(64).max(4096),
  }),
  onlyAsked: true,
  apply: (rows, { images, into, size }) => {
    const template = compileTemplate(images);
    return rows.map((row, i) => {
      const value = template(row);
      const files = (Array.isArray(value) ? value : [value]).filter((file) => file !== null);
      if (!files.every((file): file is string => typeof file === 'string' && file !== '') || files.length > 9)
        return fail(
          'ERR_LIBMOE_DATA',
          `process_docs, row ${i}: images must give at most nine image files, got ${JSON.stringify(value)}`,
        );
      return { ...row, [into]: files.length === 0 ? null : ({ make: 'group', files, size } as ImageRecipe) };
    });
  },
});
