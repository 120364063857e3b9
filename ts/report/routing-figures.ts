import type { TopLevelSpec } from 'vega-lite';
import type { CategoryLoad, LayerRouting } from '../analysis/index.ts';
import { curvePoints, draw, ink, radiusFor, runColours, smooth } from './draw.ts';

/** Share of the tokens per expert and layer; white is the uniform share, orange above, blue below. */
export function loadFigure(layers: readonly LayerRouting[]): Promise<string> {
  const rows = layers.map(({ layer, load, experts }) => ({ row: layer, load, experts }));
  const { cells, layered, size } = heatMap('layer', rows);
  return draw({ ...size, data: { values: cells }, layer: layered } as unknown as Spec);
}

/** The same per expert and category, a map for each layer. */
export function categoryFigure(layers: readonly CategoryLoad[]): Promise<string> {
  const rows = layers.flatMap(({ layer, experts, categories }) =>
    categories.map(({ category, load }) => ({ row: category, load, experts, panel: `layer ${layer}` })),
  );
  const { cells, layered, size } = heatMap('category', rows);
  return draw({
    data: { values: cells },
    facet: {
      field: 'panel',
      type: 'nominal',
      sort: layers.map(({ layer }) => `layer ${layer}`),
      header: { title: null },
    },
    columns: layers[0]!.experts > 8 ? 1 : 2,
    spec: { ...size, layer: layered },
  } as unknown as Spec);
}

type Spec = Omit<TopLevelSpec, '$schema'>;

/** Cells and layers of a map of loads: a row of shares for each `row`. */
function heatMap(
  title: string,
  rows: readonly { row: string; load: readonly number[]; experts: number; panel?: string }[],
): { cells: object[]; layered: object[]; size: object } {
  const cells = rows.flatMap(({ row, load, experts, panel }) =>
    load.map((share, expert) => ({
      row,
      panel,
      expert,
      share,
      relative: share * experts,
      label: (100 * share).toFixed(share < 0.0995 ? 1 : 0),
    })),
  );
  const experts = Math.max(...rows.map((row) => row.experts));
  const uniform = 100 / experts;
  const sameCount = rows.every((row) => row.experts === experts);
  const step = Math.max(14, Math.min(64, Math.floor(820 / experts)));
  const most = Math.max(2, ...cells.map(({ relative }) => relative));
  const names = [...new Set(rows.map(({ row }) => row))];
  const position = {
    x: {
      field: 'expert',
      type: 'ordinal',
      title: 'expert',
      axis: { labelAngle: 0, domain: false, ticks: false, labelOverlap: true },
    },
    y: { field: 'row', type: 'ordinal', title, sort: names, axis: { domain: false, ticks: false } },
  };
  const layered = [
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
            gradientLength: Math.max(90, Math.min(160, 34 * names.length)),
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
  ];
  return { cells, layered, size: { width: { step }, height: { step: 34 } } };
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
  return draw({ hconcat: drawn, spacing: 26 } as unknown as Spec);
}
