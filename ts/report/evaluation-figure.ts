import { drawPanels, ink, quiet, runColours } from './draw.ts';

/** A number of a run on a task. */
export interface Score {
  task: string;
  metric: string;
  run: string;
  value: number;
  low: number;
  high: number;
  /** What guessing gives. */
  chance?: number;
  /** Shown from 0 as bars; otherwise (bits per byte) as points on a closer scale. */
  fromZero: boolean;
}

/** One panel per task: bars (or points where 0 is far away) with 95 % intervals, chance as a dashed line. */
export function evaluationFigure(scores: readonly Score[]): Promise<string> {
  const runs = [...new Set(scores.map(({ run }) => run))];
  const colour = { field: 'run', type: 'nominal', scale: runColours(runs), legend: null };
  const panels = [...new Set(scores.map(({ task }) => task))].map((task) => {
    const values = scores.filter((score) => score.task === task);
    const { metric, fromZero, chance } = values[0]!;
    const x = {
      field: 'run',
      type: 'nominal',
      sort: runs,
      title: null,
      axis: {
        labelAngle: runs.length > 3 || runs.some((run) => run.length > 14) ? -35 : 0,
        labelLimit: 150,
        ticks: false,
      },
    };
    const y = (field: string): object => ({
      field,
      type: 'quantitative',
      title: metric.replaceAll('_', ' '),
      scale: { zero: fromZero },
      axis: { tickCount: 6 },
    });
    return {
      title: { text: task, fontSize: 13, offset: 10 },
      width: Math.max(120, 64 * runs.length),
      height: 210,
      data: { values },
      layer: [
        fromZero
          ? {
              mark: { type: 'bar', size: 36, cornerRadiusEnd: 3, opacity: 0.88 },
              encoding: { x, y: y('value'), color: colour },
            }
          : {
              mark: { type: 'point', filled: true, size: 150, opacity: 1 },
              encoding: { x, y: y('value'), color: colour },
            },
        {
          mark: { type: 'rule', strokeWidth: 1.6, color: ink },
          encoding: { x, y: y('low'), y2: { field: 'high' } },
        },
        { mark: { type: 'tick', thickness: 1.6, size: 12, color: ink }, encoding: { x, y: y('low') } },
        { mark: { type: 'tick', thickness: 1.6, size: 12, color: ink }, encoding: { x, y: y('high') } },
        {
          mark: { type: 'text', dx: 9, dy: -7, align: 'left', fontSize: 11, color: ink },
          encoding: { x, y: y('value'), text: { field: 'value', type: 'quantitative', format: '.3f' } },
        },
        ...(chance === undefined || !fromZero
          ? []
          : [
              {
                mark: { type: 'rule', strokeDash: [5, 4], color: quiet, strokeWidth: 1.4 },
                encoding: { y: { datum: chance } },
              },
            ]),
      ],
    };
  });
  return drawPanels(panels, 3);
}
