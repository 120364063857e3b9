import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import type { LayerRouting } from '../analysis/index.ts';

/** Okabe & Ito's eight colours (2008), told apart by every kind of colour vision; black and yellow last: weak as thin lines. */
export const palette = [
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#E69F00',
  '#56B4E9',
  '#000000',
  '#F0E442',
] as const;

const ink = '#1b1f24';
const quiet = '#57606a';
const config = {
  background: '#ffffff',
  font: 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif',
  axis: {
    labelColor: ink,
    titleColor: ink,
    labelFontSize: 11,
    titleFontSize: 12,
    titleFontWeight: 500,
    gridColor: '#e6e9ed',
    domainColor: '#9aa4af',
    tickColor: '#9aa4af',
    titlePadding: 8,
  },
  legend: {
    labelColor: ink,
    titleColor: ink,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 500,
    labelLimit: 260,
    titleLimit: 300,
    symbolStrokeWidth: 3,
  },
  title: {
    color: ink,
    fontSize: 14,
    fontWeight: 600,
    subtitleColor: quiet,
    subtitleFontSize: 12,
    anchor: 'start',
    offset: 12,
    subtitlePadding: 4,
  },
  header: { labelColor: ink, titleColor: ink, labelFontSize: 12, labelFontWeight: 600 },
  view: { stroke: null },
} as const;

/** Draws a vega-lite specification as SVG text, without a browser. The namespaces are left out: it goes into an HTML page. */
async function draw(spec: Omit<TopLevelSpec, '$schema'>): Promise<string> {
  const view = new View(parse(compile({ ...spec, config, padding: 4 } as unknown as TopLevelSpec).spec), {
    renderer: 'none',
  });
  try {
    const svg = await view.toSVG();
    return svg.replace(/ xmlns(:xlink)?="[^"]*"/g, '');
  } finally {
    view.finalize();
  }
}

/** A curve of a run and the points that belong to it. */
export interface Curve {
  run: string;
  /** Training loss in nats per token. */
  points: readonly { tokens: number; loss: number }[];
  /** Losses on held-out text, same unit. */
  heldOut: readonly { tokens: number; loss: number }[];
}

/** At most this many points per curve: more are not seen and make the file large. */
const curvePoints = 400;

/**
 * Centred moving average over up to `2 · radius + 1` values, fewer at both ends (always as many before as after), so that the
 * curve neither lags nor bends at its ends.
 */
export function smooth(values: readonly number[], radius: number): number[] {
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1)! + value);
  return values.map((_, i) => {
    const reach = Math.min(radius, i, values.length - 1 - i);
    return (sums[i + reach + 1]! - sums[i - reach]!) / (2 * reach + 1);
  });
}

/** About a twentieth of the points make up one smoothed value. */
function radiusFor(count: number): number {
  return Math.floor(count / 40);
}

function runColours(runs: readonly string[]): { domain: readonly string[]; range: string[] } {
  return { domain: runs, range: runs.map((_, i) => palette[i % palette.length]!) };
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

/** Share of the tokens per expert and layer; white is the uniform share, orange above, blue below. */
export function loadFigure(layers: readonly LayerRouting[]): Promise<string> {
  const cells = layers.flatMap(({ layer, load, experts }) =>
    load.map((share, expert) => ({
      layer,
      expert,
      share,
      relative: share * experts,
      label: (100 * share).toFixed(share < 0.0995 ? 1 : 0),
    })),
  );
  const experts = Math.max(...layers.map((layer) => layer.experts));
  const uniform = 100 / experts;
  const sameCount = layers.every((layer) => layer.experts === experts);
  const step = Math.max(14, Math.min(64, Math.floor(820 / experts)));
  const most = Math.max(2, ...cells.map(({ relative }) => relative));
  const position = {
    x: {
      field: 'expert',
      type: 'ordinal',
      title: 'expert',
      axis: { labelAngle: 0, domain: false, ticks: false, labelOverlap: true },
    },
    y: {
      field: 'layer',
      type: 'ordinal',
      title: 'layer',
      sort: layers.map(({ layer }) => layer),
      axis: { domain: false, ticks: false },
    },
  };
  return draw({
    width: { step },
    height: { step: 34 },
    data: { values: cells },
    layer: [
      {
        mark: { type: 'rect', stroke: '#ffffff', strokeWidth: 2, cornerRadius: 3 },
        encoding: {
          ...position,
          color: {
            field: 'relative',
            type: 'quantitative',
            scale: { domain: [0, 1, most], range: ['#0072B2', '#f7f7f7', '#D55E00'], interpolate: 'lab' },
            legend: {
              title: sameCount
                ? ['share of tokens', `(1 = uniform = ${Number(uniform.toFixed(1))} %)`]
                : ['share of tokens', '(1 = uniform)'],
              orient: 'right',
              values: [0, 0.5, 1, ...(most > 2.6 ? [(1 + most) / 2] : []), most],
              format: '.2~f',
              labelExpr: "datum.value == 1 ? '1 ◂ uniform' : datum.label + ' ×'",
              gradientLength: Math.max(90, Math.min(160, 34 * layers.length)),
            },
          },
        },
      },
      ...(step >= 26
        ? [
            {
              mark: { type: 'text', fontSize: 11 },
              encoding: {
                ...position,
                text: { field: 'label', type: 'nominal' },
                color: {
                  condition: {
                    test: `datum.relative < 0.3 || datum.relative > ${(1 + 0.75 * (most - 1)).toFixed(3)}`,
                    value: '#ffffff',
                  },
                  value: ink,
                },
              },
            },
          ]
        : []),
    ],
  } as unknown as Omit<TopLevelSpec, '$schema'>);
}

/** Entropy and margin of the routers and balance of the load over training, a line per layer. */
export function confidenceFigure(layers: readonly LayerRouting[]): Promise<string> {
  const panels = [
    { key: 'entropy', title: 'Router entropy', unit: 'nats per token' },
    { key: 'margin', title: 'Router margin', unit: 'gap between the best choices' },
    { key: 'balance', title: 'Load balance (1 = uniform)', unit: 'load entropy' },
  ] as const;
  const names = layers.map(({ layer }) => `layer ${layer}`);
  // Few layers: colours that are easy to tell apart. Many: an ordered ramp, since depth is an order.
  const scale = layers.length <= 6 ? runColours(names) : { domain: names, scheme: 'viridis' };
  const drawn = panels.flatMap(({ key, title, unit }) => {
    const values = layers.flatMap((layer) => {
      const series = layer[key].filter(({ value }) => Number.isFinite(value));
      const smoothed = smooth(
        series.map(({ value }) => value),
        radiusFor(series.length),
      );
      const stride = Math.max(1, Math.ceil(series.length / (curvePoints / 2)));
      return series.flatMap(({ step }, i) =>
        i % stride === 0 || i === series.length - 1
          ? [{ layer: `layer ${layer.layer}`, step, value: smoothed[i] }]
          : [],
      );
    });
    if (values.length === 0) return [];
    return [
      {
        title: { text: title, fontSize: 12, offset: 8 },
        width: 245,
        height: 190,
        data: { values },
        mark: { type: 'line', strokeWidth: 2 },
        encoding: {
          x: {
            field: 'step',
            type: 'quantitative',
            title: 'step',
            axis: { tickCount: 5, format: '~s' },
            scale: { nice: false, zero: false },
          },
          y: {
            field: 'value',
            type: 'quantitative',
            title: unit,
            scale: { zero: false },
            axis: { tickCount: 5 },
          },
          color: {
            field: 'layer',
            type: 'nominal',
            sort: names,
            scale,
            legend: { title: null, orient: 'top', symbolType: 'stroke', symbolSize: 200, columns: 8 },
          },
        },
      },
    ];
  });
  return draw({ hconcat: drawn, spacing: 26 } as unknown as Omit<TopLevelSpec, '$schema'>);
}

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
  return draw({
    concat: panels,
    columns: 3,
    spacing: 36,
    resolve: { scale: { x: 'independent', y: 'independent' } },
  } as unknown as Omit<TopLevelSpec, '$schema'>);
}
