import type { TopLevelSpec } from 'vega-lite';

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

export const ink = '#1b1f24';
export const quiet = '#57606a';
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
export async function draw(spec: Omit<TopLevelSpec, '$schema'>): Promise<string> {
  // Loaded when first drawn: they take longer to load than the rest of the library.
  const [{ parse, View }, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
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

/** Panels beside and below each other, each with axes of its own. */
export function drawPanels(panels: readonly object[], columns: number): Promise<string> {
  return draw({
    concat: panels,
    columns,
    spacing: 36,
    resolve: { scale: { x: 'independent', y: 'independent' } },
  } as unknown as Omit<TopLevelSpec, '$schema'>);
}

/** At most this many points per curve: more are not seen and make the file large. */
export const curvePoints = 400;

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
export function radiusFor(count: number): number {
  return Math.floor(count / 40);
}

export function runColours(runs: readonly string[]): { domain: readonly string[]; range: string[] } {
  return { domain: runs, range: runs.map((_, i) => palette[i % palette.length]!) };
}
