import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { column } from './columns.ts';
import { registerScorer } from './scorer.ts';

/** Left, top, right, bottom. */
export type Box = readonly [number, number, number, number];

const NUMBER = '\\s*(-?\\d+(?:\\.\\d+)?)';
const LIST = new RegExp(`\\[${NUMBER},${NUMBER},${NUMBER},${NUMBER}\\s*\\]`);
const thresholds = [0.1, 0.3, 0.5, 0.7, 0.9];

/** Intersection over union; 0 where both boxes are empty. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = ([left, top, right, bottom]: Box): number => (right - left) * (bottom - top);
  const union = area(a) + area(b) - width * height;
  return union === 0 ? 0 : (width * height) / union;
}

/** ScreenSpot: the first `[x1, y1, x2, y2]`. Metrics `iou`, `acc_0.1` … `acc_0.9`, and `center`: whether the middle lies in the gold box. */
registerScorer('box_iou', {
  options: z.strictObject({ box: z.string().default('bbox') }),
  score: (response, { doc }, { box: name }) => {
    const gold = column(doc, name);
    if (!Array.isArray(gold) || gold.length !== 4 || !gold.every((x) => typeof x === 'number'))
      return fail('ERR_LIBMOE_DATA', `column "${name}" must hold four numbers, got ${JSON.stringify(gold)}`);
    const match = LIST.exec(response);
    const said = (match === null ? [0, 0, 0, 0] : match.slice(1).map(Number)) as unknown as Box;
    const wanted = gold as unknown as Box;
    const iou = intersectionOverUnion(wanted, said);
    const [x, y] = [(said[0] + said[2]) / 2, (said[1] + said[3]) / 2];
    return {
      values: {
        iou,
        ...Object.fromEntries(thresholds.map((least) => [`acc_${least}`, Number(iou >= least)])),
        center: Number(wanted[0] <= x && x <= wanted[2] && wanted[1] <= y && y <= wanted[3]),
      },
      parsed: match === null ? null : match[0],
    };
  },
});
