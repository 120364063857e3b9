import type { TopLevelSpec } from 'vega-lite';
import { curvePoints, draw, radiusFor, runColours, smooth } from './draw.ts';

/** A curve of a run and the points that belong to it. */
export interface Curve {
  run: string;
  /** Training loss in nats per token. */
  points: readonly { tokens: number; loss: number }[];
  /** Losses on held-out text, same unit. */
  heldOut: readonly { tokens: number; loss: number }[];
}

/** Training loss of several runs over the tokens they saw: raw faint, smoothed strong, held-out losses as points. */
export function lossFigure(curves: readonly Curve[]): Promise<string> {
  const lines = curves.flatMap(({ run, points }) => {
    const finite = points.filter(({ loss }) => Number.isFinite(loss));
    const smoothed = smooth(
      finite.map(({ loss }) => loss),
      radiusFor(finite.length),
    );
    const stride = Math.max(1, Math.ceil(finite.length / curvePoints));
    return finite.flatMap(({ tokens, loss }, i) =>
      i % stride === 0 || i === finite.length - 1 ? [{ run, tokens, loss, smoothed: smoothed[i] }] : [],
    );
  });
  const heldOut = curves.flatMap(({ run, heldOut }) => heldOut.map((point) => ({ run, ...point })));
  const runs = curves.map(({ run }) => run);
  const colour = {
    field: 'run',
    type: 'nominal',
    scale: runColours(runs),
    legend: {
      title: null,
      orient: 'top',
      columns: 4,
      symbolType: 'stroke',
      symbolSize: 220,
      symbolOpacity: 1,
    },
  };
  const x = {
    field: 'tokens',
    type: 'quantitative',
    title: 'training tokens',
    axis: { format: '~s', tickCount: 8 },
    scale: { nice: false, zero: false },
  };
  const y = (field: string): object => ({
    field,
    type: 'quantitative',
    title: 'loss (nats per token)',
    scale: { zero: false },
  });
  return draw({
    width: 860,
    height: 340,
    layer: [
      {
        data: { values: lines },
        mark: { type: 'line', opacity: 0.22, strokeWidth: 1 },
        encoding: { x, y: y('loss'), color: colour },
      },
      {
        data: { values: lines },
        mark: { type: 'line', strokeWidth: 2.2 },
        encoding: { x, y: y('smoothed'), color: colour },
      },
      {
        data: { values: heldOut },
        mark: { type: 'point', filled: true, size: 90, stroke: '#ffffff', strokeWidth: 1.2, opacity: 1 },
        encoding: { x, y: y('loss'), color: colour },
      },
    ],
  } as unknown as Omit<TopLevelSpec, '$schema'>);
}
