import { type Progress, progressFigure } from './figures.ts';
import { html, Markup } from './markup.ts';
import { fixed } from './numbers.ts';
import type { RunFolder } from './run-folder.ts';

/** More panels than this are not drawn. */
const mostPanels = 12;

/** How the evaluations during training went: a figure, and in words the best and the end. Undefined where no run has two of them. */
export async function progressPart(runs: readonly RunFolder[]): Promise<Markup | undefined> {
  const curves = runs.flatMap(curvesOf);
  const names = [...new Set(curves.map(({ name }) => name))];
  if (names.length === 0) return undefined;
  const drawn = new Set(names.slice(0, mostPanels));
  const svg = await progressFigure(curves.filter(({ name }) => drawn.has(name)));
  const left = names.length - drawn.size;
  return html`<figure role="group" aria-label="Evaluations during training">${new Markup(svg)}<figcaption>Evaluations during training. A ring is the best, whose checkpoint is kept; a dashed line is where training was ended early.${left > 0 ? ` ${left} more numbers stand in evaluations.jsonl.` : ''}</figcaption></figure>
${runs.map(inWords)}`;
}

/** The first number of every task, and that by which the best is looked for. */
function curvesOf({ name: run, progress }: RunFolder): Progress[] {
  const last = progress.at(-1);
  if (last === undefined || progress.length < 2) return [];
  const { metric } = last;
  const tasks = new Set<string>();
  const firsts = Object.keys(last.values).filter((name) => {
    const task = name.slice(0, name.indexOf('/'));
    return !tasks.has(task) && tasks.add(task);
  });
  const names = [...new Set([...(metric === undefined ? [] : [metric]), ...firsts])];
  return names.flatMap((name): Progress[] => {
    const points = progress.flatMap(({ tokens, values }) => {
      const value = values[name];
      return typeof value === 'number' ? [{ tokens, value }] : [];
    });
    if (points.length === 0) return [];
    const best = name === metric ? progress.findLast((line) => line.best) : undefined;
    const value = best?.values[name];
    return [
      {
        run,
        name,
        points,
        ...(best && typeof value === 'number' && { best: { tokens: best.tokens, step: best.step, value } }),
        ...(last.stop !== undefined && { stop: { tokens: last.tokens, step: last.step } }),
      },
    ];
  });
}

function inWords({ name, progress }: RunFolder): Markup | undefined {
  const best = progress.findLast((line) => line.best);
  if (best?.metric === undefined) return undefined;
  const value = best.values[best.metric];
  const last = progress.at(-1);
  return html`<p>${name}: the best ${best.metric} is ${fixed(value ?? undefined, 4)}, of step ${best.step}.${last?.stop === undefined ? '' : ` Training was ended early at step ${last.step}: ${last.stop}.`}</p>`;
}
