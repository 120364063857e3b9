import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/index.ts';
import { reportFigures } from './figure-data.ts';
import { palette } from './figures.ts';
import { escapeHtml, html, type Markup } from './markup.ts';
import { compact, duration, fixed, missing, percent } from './numbers.ts';
import { progressPart } from './progress.ts';
import { lastEvaluation, type RunFolder, readRunFolder } from './run-folder.ts';
import { style } from './style.ts';
import { compareTexts, type TextComparison } from './verdicts.ts';

/** How {@link report} titles its page and whom it compares. */
export interface ReportOptions {
  title?: string;
  /** Names of the two runs that the verdict judges; default: the best mixture of experts against the best dense run. */
  compare?: readonly [string, string];
  /** Printed in the head; default: now. */
  date?: Date;
}

/** What {@link report} says in words: for a program's last line. */
export interface ReportSummary {
  file: string;
  /** One sentence per text task. */
  verdicts: string[];
  notes: string[];
}

/**
 * Writes one self-contained HTML file about one or more run folders: verdict, summary, loss curves, expert load, router
 * confidence, evaluations, environment and recipes. No script, no network, figures inline as SVG. What a run lacks is noted in the
 * place where it would stand.
 * @param runs run folders, in the order of the tables and colours
 * @throws ERR_LIBMOE_FILE for a folder that is no run, or if the file cannot be written; ERR_LIBMOE_ARGUMENT for no runs or two of one name
 */
export async function report(
  runs: readonly string[],
  file: string,
  options: ReportOptions = {},
): Promise<ReportSummary> {
  if (runs.length === 0) fail('ERR_LIBMOE_ARGUMENT', 'a report needs at least one run folder, got none');
  const folders = runs.map(readRunFolder);
  const names = folders.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    fail('ERR_LIBMOE_ARGUMENT', `two runs are named "${twice}": rename one of the folders`);
  const unknown = options.compare?.find((name) => !names.includes(name));
  if (unknown !== undefined)
    fail('ERR_LIBMOE_ARGUMENT', `no run "${unknown}" to compare; the runs are ${names.join(', ')}`);
  const texts = compareTexts(folders, options.compare);
  const page = await renderPage(folders, texts, options);
  writeFileAtomically(file, page);
  return {
    file,
    verdicts: texts.flatMap(({ sentence }) => (sentence === undefined ? [] : [sentence])),
    notes: folders.flatMap(({ name, notes }) => notes.map((note) => `${name}: ${note}`)),
  };
}

async function renderPage(
  runs: readonly RunFolder[],
  texts: readonly TextComparison[],
  options: ReportOptions,
): Promise<string> {
  const {
    title = runs.length === 1 ? `Run ${runs[0]!.name}` : `Runs ${runs.map(({ name }) => name).join(', ')}`,
    date = new Date(),
  } = options;
  const figures = await reportFigures(runs, texts);
  const body = html`<header><h1>${title}</h1><p class="meta">libmoe report · ${date.toISOString().slice(0, 16).replace('T', ' ')} UTC · ${runs.length} ${runs.length === 1 ? 'run' : 'runs'}</p></header>
${texts.map(verdictBox)}
<h2>Summary</h2>
${summaryTable(runs, texts)}
<h2>Loss</h2>
${figures.loss ?? note('No run has a loss to draw: metrics.jsonl is missing or empty.')}
${await progressPart(runs)}
<h2>Routing</h2>
${figures.routing.length > 0 ? figures.routing : note('No run has routing statistics: they come from the MoE layers of metrics.jsonl.')}
<h2>Evaluation</h2>
${figures.evaluation ?? note('No run has evaluation results.')}
${evaluationTable(runs)}
<h2>Runs</h2>
${runs.map(runSection)}
<footer class="meta">Everything above was read from ${runs.map(({ folder }) => folder).join(', ')}. Intervals are 95 %.</footer>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="libmoe report">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body><main>
${body.text}
</main></body>
</html>
`;
}

function note(text: string): Markup {
  return html`<p class="note">${text}</p>`;
}

function verdictBox({ title, sentence, comparison }: TextComparison): Markup | undefined {
  if (sentence === undefined) return undefined;
  return html`<div class="verdict${comparison?.winner === undefined ? ' open' : ''}"><strong>${title}</strong><p>${sentence}</p></div>`;
}

function swatch(i: number): Markup {
  return html`<span class="swatch" style="background:${palette[i % palette.length]}"></span>`;
}

function summaryTable(runs: readonly RunFolder[], texts: readonly TextComparison[]): Markup {
  const best = texts.map(({ intervals }) => Math.min(...[...intervals.values()].map(({ value }) => value)));
  return html`<div class="scroll"><table>
<thead><tr><th>run</th><th>model</th><th class="number">parameters</th><th class="number">active</th><th class="number">tokens</th><th class="number">FLOP</th><th class="number">time</th>${texts.map(({ title }) => html`<th class="number">${title}<br><small>bits per byte</small></th>`)}</tr></thead>
<tbody>${runs.map(
    (run, i) =>
      html`<tr><td>${swatch(i)}${run.name}</td><td>${run.summary.model ?? missing}</td><td class="number">${compact(run.summary.parameters)}</td><td class="number">${compact(run.summary.activeParameters)}</td><td class="number">${compact(run.summary.tokens ?? run.metrics.at(-1)?.tokens)}</td><td class="number">${compact(run.summary.flops)}</td><td class="number">${duration(run.summary.seconds)}</td>${texts.map(
        ({ intervals }, t) => {
          const interval = intervals.get(run.name);
          return html`<td class="number${interval?.value === best[t] && intervals.size > 1 ? ' best' : ''}">${fixed(interval?.value, 4)}${interval === undefined ? undefined : html`<small>${fixed(interval.low, 3)} – ${fixed(interval.high, 3)}</small>`}</td>`;
        },
      )}</tr>`,
  )}</tbody></table></div>
<p class="hint">Active = parameters that one token meets. FLOP = operations of the whole training. Bits per byte: less is better; below each the 95 % interval of a bootstrap over documents. Runs are judged against each other by the paired comparison above, which is finer than these intervals.</p>`;
}

function evaluationTable(runs: readonly RunFolder[]): Markup | undefined {
  const evaluated = runs.map((run) => ({ run, evaluation: lastEvaluation(run) }));
  const rows = new Map<string, { task: string; metric: string; better: boolean | undefined }>();
  for (const { evaluation } of evaluated)
    for (const [task, values] of Object.entries(evaluation?.results.results ?? {}))
      for (const key of Object.keys(values)) {
        const [metric = '', filter] = key.split(',');
        if (filter === undefined || metric.endsWith('_stderr')) continue;
        rows.set(`${task} ${metric}`, {
          task,
          metric,
          better: evaluation?.results.higher_is_better[task]?.[metric.split('/')[0]!],
        });
      }
  if (rows.size === 0) return undefined;
  let before = '';
  return html`<div class="scroll"><table>
<thead><tr><th>task</th><th>metric</th>${runs.map((run, i) => html`<th class="number">${swatch(i)}${run.name}</th>`)}</tr></thead>
<tbody>${[...rows.values()].map(({ task, metric, better }) => {
    const values = evaluated.map(({ evaluation }) => evaluation?.results.results[task]?.[`${metric},none`]);
    const numbers = values.filter((value) => typeof value === 'number');
    const top =
      better === undefined || numbers.length < 2
        ? Number.NaN
        : better
          ? Math.max(...numbers)
          : Math.min(...numbers);
    const first = task !== before;
    before = task;
    const alias = evaluated
      .map(({ evaluation }) => evaluation?.results.results[task]?.alias)
      .find((name) => name !== undefined);
    const chance = evaluated
      .map(({ evaluation }) => evaluation?.results.libmoe?.chance?.[task])
      .find((value) => value !== undefined);
    return html`<tr><td>${first ? String(alias ?? task) : ''}${first && chance !== undefined ? html`<small>chance ${percent(chance)}</small>` : undefined}</td><td>${metric.replaceAll('_', ' ')} ${better === undefined ? '' : better ? '↑' : '↓'}</td>${evaluated.map(
      ({ evaluation }, i) => {
        const value = values[i];
        const error = evaluation?.results.results[task]?.[`${metric}_stderr,none`];
        return html`<td class="number${value === top ? ' best' : ''}">${typeof value === 'number' ? measured(value) : (value ?? missing)}${typeof error === 'number' ? ` ± ${measured(error)}` : ''}</td>`;
      },
    )}</tr>`;
  })}</tbody></table></div>
<p class="hint">± is the standard error. Evaluations: ${evaluated.map(({ run, evaluation }) => `${run.name}: ${evaluation === undefined ? 'none' : `${evaluation.label}, scorer ${evaluation.results.libmoe?.scorer_mode ?? 'unknown'}`}`).join('; ')}.</p>`;
}

function runSection(run: RunFolder, i: number): Markup {
  const { environment, recipe, notes } = run;
  return html`<h3>${swatch(i)}${run.name}</h3>
${notes.map(note)}
${environment === undefined ? undefined : html`<details><summary>Environment</summary><dl>${Object.entries(environment).map(([key, value]) => html`<dt>${key}</dt><dd>${typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd>`)}</dl></details>`}
${recipe === undefined ? undefined : html`<details><summary>Recipe</summary><pre>${recipe}</pre></details>`}`;
}

/** Four decimals for shares and bits, fewer for perplexities in the thousands. */
function measured(value: number): string {
  return fixed(value, Math.abs(value) >= 100 ? 1 : 4);
}
