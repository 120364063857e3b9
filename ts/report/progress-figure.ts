import { drawPanels, ink, runColours } from './draw.ts';

/** A number of the evaluations during a run's training. */
export interface Progress {
  run: string;
  /** As in `piqa/acc_norm`. */
  name: string;
  points: readonly { tokens: number; value: number }[];
  /** The best by this number, where the run looked for it. */
  best?: { tokens: number; step: number; value: number };
  /** Where the training was ended early. */
  stop?: { tokens: number; step: number };
}

/** One panel per number, a line per run; a ring around the best, a dashed line where training was ended early. */
export function progressFigure(progress: readonly Progress[]): Promise<string> {
  const runs = [...new Set(progress.map(({ run }) => run))];
  const colour = {
    field: 'run',
    type: 'nominal',
    scale: runColours(runs),
    legend: runs.length > 1 ? { title: null, orient: 'top', symbolType: 'stroke', symbolSize: 220 } : null,
  };
  const x = {
    field: 'tokens',
    type: 'quantitative',
    title: 'training tokens',
    axis: { format: '~s', tickCount: 5 },
    scale: { nice: false, zero: false },
  };
  const y = {
    field: 'value',
    type: 'quantitative',
    title: null,
    scale: { zero: false, padding: 22 },
    axis: { tickCount: 6 },
  };
  const panels = [...new Set(progress.map(({ name }) => name))].map((name) => {
    const own = progress.filter((one) => one.name === name);
    const values = own.flatMap(({ run, points }) => points.map((point) => ({ run, ...point })));
    const best = own.flatMap(({ run, best: at }) =>
      at ? [{ run, ...at, label: `best, step ${at.step}` }] : [],
    );
    const stops = own.flatMap(({ run, stop }) =>
      stop ? [{ run, ...stop, label: `ended early, step ${stop.step}` }] : [],
    );
    const label = { fontSize: 11, color: ink };
    return {
      title: { text: name, fontSize: 13, offset: 10 },
      width: 380,
      height: 210,
      layer: [
        {
          data: { values },
          mark: { type: 'line', strokeWidth: 2, point: { size: 34 } },
          encoding: { x, y, color: colour },
        },
        ...(stops.length === 0
          ? []
          : [
              {
                data: { values: stops },
                mark: { type: 'rule', strokeDash: [5, 4], strokeWidth: 1.4 },
                encoding: { x, color: colour },
              },
              {
                data: { values: stops },
                mark: { type: 'text', align: 'right', baseline: 'top', dx: -5, y: 4, ...label },
                encoding: { x, text: { field: 'label' } },
              },
            ]),
        ...(best.length === 0
          ? []
          : [
              {
                data: { values: best },
                mark: { type: 'point', size: 190, strokeWidth: 2.2, filled: false, opacity: 1 },
                encoding: { x, y, color: colour },
              },
              {
                data: { values: best },
                mark: { type: 'text', dy: -14, ...label },
                encoding: { x, y, text: { field: 'label' } },
              },
            ]),
      ],
    };
  });
  return drawPanels(panels, 2);
}
