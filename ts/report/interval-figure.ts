import type { TopLevelSpec } from 'vega-lite';
import { draw, ink, palette, quiet } from './draw.ts';

/** A row of {@link intervalFigure}. */
export interface IntervalRow {
  name: string;
  value: number;
  /** NaN: no interval is drawn. */
  low: number;
  high: number;
  /** The single runs behind the value. */
  runs: readonly number[];
}

/**
 * One row per variant in the given order: the mean with its interval, the single runs as small rings, and a dashed line at `reference`. The scale
 * does not begin at 0.
 */
export function intervalFigure(
  rows: readonly IntervalRow[],
  { title, reference }: { title: string; reference?: number },
): Promise<string> {
  const y = { field: 'name', type: 'nominal', sort: rows.map(({ name }) => name), title: null };
  const x = (field: string): object => ({
    field,
    type: 'quantitative',
    title,
    scale: { zero: false },
    axis: { tickCount: 8 },
  });
  const runs = rows.flatMap(({ name, runs: values }) => values.map((run) => ({ name, run })));
  const intervals = rows.filter(({ low, high }) => Number.isFinite(low) && Number.isFinite(high));
  return draw({
    width: 640,
    height: { step: 24 },
    layer: [
      ...(reference === undefined
        ? []
        : [
            {
              data: { values: [{}] },
              mark: { type: 'rule', strokeDash: [5, 4], color: quiet, strokeWidth: 1.2 },
              encoding: { x: { datum: reference, type: 'quantitative' } },
            },
          ]),
      {
        data: { values: intervals.map(({ runs: _, ...row }) => row) },
        mark: { type: 'rule', strokeWidth: 2, color: palette[0] },
        encoding: { y, x: x('low'), x2: { field: 'high' } },
      },
      {
        data: { values: runs },
        mark: { type: 'point', size: 28, color: quiet, strokeWidth: 1, opacity: 0.9 },
        encoding: { y, x: x('run') },
      },
      {
        data: { values: rows.map(({ runs: _, low: __, high: ___, ...row }) => row) },
        mark: { type: 'point', filled: true, size: 80, color: palette[0], stroke: ink, opacity: 1 },
        encoding: { y, x: x('value') },
      },
    ],
  } as unknown as Omit<TopLevelSpec, '$schema'>);
}
