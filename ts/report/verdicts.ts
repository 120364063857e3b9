import {
  bitsPerByteInterval,
  type Comparison,
  comparePaired,
  type DocumentValue,
  type Interval,
  readDocumentValues,
  verdict,
} from '../evaluation/index.ts';
import { codeOf } from '../native/index.ts';
import { lastEvaluation, type RunFolder } from './run-folder.ts';

/** Bits per byte of every run on one text task, and the paired comparison that the report's verdict rests on. */
export interface TextComparison {
  task: string;
  title: string;
  intervals: Map<string, Interval>;
  /** Of the two runs that the report judges. */
  comparison?: Comparison;
  sentence?: string;
}

/** A run is a mixture of experts if its metrics have routing. */
export function isMixture(run: RunFolder): boolean {
  return run.metrics.some(({ moe }) => moe !== undefined && Object.keys(moe).length > 0);
}

/**
 * Judges runs on the text tasks that they were evaluated on: the best mixture of experts against the best dense run, or
 * the two best runs when all are of one kind, or the two that `compare` names.
 */
export function compareTexts(
  runs: readonly RunFolder[],
  compare?: readonly [string, string],
): TextComparison[] {
  const documents = new Map<string, { title: string; byRun: Map<string, DocumentValue[]> }>();
  for (const run of runs) {
    const evaluation = lastEvaluation(run);
    for (const [task, row] of Object.entries(evaluation?.results.results ?? {})) {
      if (typeof row['bits_per_byte,none'] !== 'number') continue;
      const entry = documents.get(task) ?? {
        title: String(row.alias ?? task),
        byRun: new Map<string, DocumentValue[]>(),
      };
      documents.set(task, entry);
      try {
        entry.byRun.set(run.name, readDocumentValues(evaluation!.folder, task, 'bits_per_byte'));
      } catch (error) {
        if (codeOf(error) === undefined) throw error;
        run.notes.push(
          `eval/${evaluation!.label}/samples_${task}.jsonl cannot be used, so ${task} has no interval: ${(error as Error).message}`,
        );
      }
    }
  }
  return [...documents].map(([task, { title, byRun }]) => {
    const intervals = new Map([...byRun].map(([name, values]) => [name, bitsPerByteInterval(values)]));
    const pair = compare ?? rivals(runs, intervals);
    const [a, b] = [byRun.get(pair?.[0] ?? ''), byRun.get(pair?.[1] ?? '')];
    if (pair === undefined || a === undefined || b === undefined) return { task, title, intervals };
    try {
      const comparison = comparePaired('bits_per_byte', a, b);
      return { task, title, intervals, comparison, sentence: verdict(comparison, pair[0], pair[1]) };
    } catch (error) {
      if (codeOf(error) !== 'ERR_LIBMOE_DATA') throw error;
      return {
        task,
        title,
        intervals,
        sentence: `No verdict: ${(error as Error).message.replace(/^ERR_\w+: /, '')}`,
      };
    }
  });
}

function rivals(
  runs: readonly RunFolder[],
  intervals: ReadonlyMap<string, Interval>,
): [string, string] | undefined {
  const ranked = runs
    .filter(({ name }) => intervals.has(name))
    .sort((x, y) => intervals.get(x.name)!.value - intervals.get(y.name)!.value);
  const mixture = ranked.find(isMixture);
  const dense = ranked.find((run) => !isMixture(run));
  if (mixture !== undefined && dense !== undefined) return [mixture.name, dense.name];
  const [best, second] = ranked;
  return best !== undefined && second !== undefined ? [best.name, second.name] : undefined;
}
