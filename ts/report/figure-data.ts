import { join } from 'node:path';
import { type LayerRouting, routingByLayer } from '../analysis/index.ts';
import { codeOf } from '../native/index.ts';
import { readJournal } from '../storage/index.ts';
import {
  type Curve,
  categoryFigure,
  confidenceFigure,
  evaluationFigure,
  loadFigure,
  lossFigure,
  type Score,
} from './figures.ts';
import { html, Markup } from './markup.ts';
import { fixed, percent } from './numbers.ts';
import { lastEvaluation, type RunEvaluation, type RunFolder } from './run-folder.ts';
import type { TextComparison } from './verdicts.ts';

/** The figures of a report, ready to insert. */
export interface ReportFigures {
  loss?: Markup;
  routing: Markup[];
  evaluation?: Markup;
}

export async function reportFigures(
  runs: readonly RunFolder[],
  texts: readonly TextComparison[],
): Promise<ReportFigures> {
  const curves = runs.map(curveOf);
  const hasLoss = curves.some(({ points }) => points.length > 0);
  const heldOutTask = curves.some(({ heldOut }) => heldOut.length > 0);
  const loss = hasLoss
    ? figure(
        await lossFigure(curves),
        'Training loss',
        `Training loss over the tokens seen, faint as logged, strong as a moving average${heldOutTask ? '; dots are losses on held-out text' : ''}. Runs that continue another one start where its weights left off.`,
      )
    : undefined;
  const routing: Markup[] = [];
  for (const run of runs) routing.push(...(await routingFigures(run)), ...(await categoryFigures(run)));
  const scores = scoresOf(runs, texts);
  const evaluation =
    scores.length > 0
      ? figure(
          await evaluationFigure(scores),
          'Evaluation results',
          'Marks are 95 % intervals. Bars begin at 0, the dashed line is chance; bits per byte (less is better) are dots on a closer scale that does not begin at 0.',
        )
      : undefined;
  return {
    routing,
    ...(loss === undefined ? {} : { loss }),
    ...(evaluation === undefined ? {} : { evaluation }),
  };
}

/** A figure with its caption; the SVG is our own and goes in as it is. */
function figure(svg: string, label: string, caption: string): Markup {
  return html`<figure role="group" aria-label="${label}">${new Markup(svg)}<figcaption>${caption}</figcaption></figure>`;
}

function curveOf(run: RunFolder): Curve {
  const points = run.metrics.flatMap(({ tokens, step, crossEntropy, loss }) => {
    const value = crossEntropy ?? loss;
    return typeof value === 'number' ? [{ tokens: tokens ?? step, loss: value }] : [];
  });
  const heldOut = run.evaluations.flatMap((evaluation) => {
    const loss = tokenLoss(evaluation);
    const line =
      evaluation.step === undefined
        ? run.metrics.at(-1)
        : run.metrics.find(({ step }) => step >= evaluation.step!);
    return loss === undefined || line === undefined ? [] : [{ tokens: line.tokens ?? line.step, loss }];
  });
  return { run: run.name, points, heldOut };
}

/** Mean loss per token on the first text task of an evaluation, in the unit of the training loss. */
function tokenLoss({ folder, results }: RunEvaluation): number | undefined {
  const task = Object.entries(results.results).find(
    ([, row]) => typeof row['bits_per_byte,none'] === 'number',
  )?.[0];
  if (task === undefined) return undefined;
  try {
    let sum = 0;
    let tokens = 0;
    for (const { libmoe } of readJournal(join(folder, `samples_${task}.jsonl`)) as {
      libmoe?: { sums?: number[]; tokens?: number[] };
    }[]) {
      sum += libmoe?.sums?.[0] ?? Number.NaN;
      tokens += libmoe?.tokens?.[0] ?? Number.NaN;
    }
    return Number.isFinite(sum / tokens) ? -sum / tokens : undefined;
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined; // the comparison of texts notes the missing samples
  }
}

async function routingFigures(run: RunFolder): Promise<Markup[]> {
  let layers: LayerRouting[];
  try {
    layers = routingByLayer(run.metrics);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    run.notes.push(`routing cannot be shown: ${(error as Error).message}`);
    return [];
  }
  if (layers.length === 0) return [];
  return [
    html`<h3>${run.name}: load of the experts</h3>`,
    figure(
      await loadFigure(layers),
      `Expert load of ${run.name}`,
      'Share of the tokens that each expert got in each MoE layer, in percent, over the last fifth of training. White is the uniform share, orange more, blue less.',
    ),
    html`<div class="scroll"><table><thead><tr><th>layer</th><th class="number">experts</th><th class="number">load entropy<br><small>1 = uniform</small></th><th class="number">largest / mean load</th><th class="number">idle experts</th><th class="number">dropped</th><th class="number">router entropy<br><small>nats, at the end</small></th><th class="number">margin<br><small>at the end</small></th></tr></thead>
<tbody>${layers.map((layer) => html`<tr><td>${layer.layer}</td><td class="number">${layer.experts}</td><td class="number">${fixed(layer.loadEntropy, 3)}</td><td class="number">${fixed(layer.maxOverMean, 2)}</td><td class="number">${percent(layer.idle, 0)}</td><td class="number">${percent(layer.droppedShare, 2)}</td><td class="number">${fixed(layer.entropy.at(-1)?.value, 3)}</td><td class="number">${fixed(layer.margin.at(-1)?.value, 3)}</td></tr>`)}</tbody></table></div>`,
    html`<h3>${run.name}: confidence of the routers</h3>`,
    figure(
      await confidenceFigure(layers),
      `Router entropy, margin and balance of ${run.name}`,
      'Over training, smoothed. Falling entropy and rising margin: the router becomes surer. Load balance near 1: all experts are used alike.',
    ),
  ];
}

async function categoryFigures({ name, categories }: RunFolder): Promise<Markup[]> {
  if (categories.length === 0) return [];
  return [
    html`<h3>${name}: load of the experts by category of the image</h3>`,
    figure(
      await categoryFigure(categories),
      `Expert load of ${name} by category`,
      'Share of the rows of images of each category that each expert got, in percent, in each MoE layer of the trained model. White is the uniform share, orange more, blue less. Rows that differ: experts that some kinds of images go to more than others.',
    ),
    html`<div class="scroll"><table><thead><tr><th>layer</th><th class="number">what an expert tells of the category<br><small>bits, of ${fixed(Math.log2(Math.max(1, ...categories.map((layer) => layer.categories.length))), 2)} at the most</small></th></tr></thead>
<tbody>${categories.map(({ layer, information }) => html`<tr><td>${layer}</td><td class="number">${fixed(information, 4)}</td></tr>`)}</tbody></table></div>`,
  ];
}

/** The first metric of every task, with intervals: from the bootstrap for bits per byte, else ± 1.96 standard errors. */
function scoresOf(runs: readonly RunFolder[], texts: readonly TextComparison[]): Score[] {
  return runs.flatMap((run) => {
    const results = lastEvaluation(run)?.results;
    return Object.entries(results?.results ?? {}).flatMap(([task, row]): Score[] => {
      const key = Object.keys(row).find((name) => name.endsWith(',none') && !name.includes('_stderr'));
      const value = key === undefined ? undefined : row[key];
      if (key === undefined || typeof value !== 'number') return [];
      const metric = key.split(',')[0]!;
      const error = row[`${metric}_stderr,none`];
      const interval =
        metric === 'bits_per_byte'
          ? texts.find((text) => text.task === task)?.intervals.get(run.name)
          : undefined;
      const half = typeof error === 'number' ? 1.96 * error : 0;
      const share = results?.higher_is_better[task]?.[metric] === true;
      const chance = results?.libmoe?.chance?.[task];
      return [
        {
          task: String(row.alias ?? task),
          metric,
          run: run.name,
          value,
          low: interval?.low ?? value - half,
          high: interval?.high ?? value + half,
          fromZero: share,
          ...(chance === undefined ? {} : { chance }),
        },
      ];
    });
  });
}
