import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import {
  type CategoryChoices,
  type CategoryLoad,
  type LayerStep,
  loadByCategory,
} from '../analysis/index.ts';
import { type Results, readResults } from '../evaluation/results.ts';
import { codeOf, fail } from '../native/index.ts';
import { isJsonObject, RecordReader, readJournal, readJsonObject, readText } from '../storage/index.ts';
import { type EvaluationLine, evaluationsFile } from '../training/index.ts';

/** A line of a run's metrics.jsonl; everything but the step may be absent. */
export interface MetricsLine {
  step: number;
  tokens?: number;
  loss?: number;
  crossEntropy?: number;
  learningRate?: number;
  gradNorm?: number;
  tokensPerSecond?: number;
  moe?: Record<string, LayerStep>;
}

/** An evaluation of a run, of the folder `eval/<label>`. */
export interface RunEvaluation {
  label: string;
  /** The step it was made at; undefined for "final" and other names. */
  step?: number;
  folder: string;
  results: Results;
}

/** Facts of a run that nothing else in its folder tells (`summary.json`). */
export interface RunSummary {
  model?: string;
  parameters?: number;
  activeParameters?: number;
  tokens?: number;
  /** Floating-point operations of the whole training. */
  flops?: number;
  seconds?: number;
}

/** A run folder as far as it could be read; `notes` name what is missing or damaged. */
export interface RunFolder {
  name: string;
  folder: string;
  metrics: MetricsLine[];
  evaluations: RunEvaluation[];
  /** The evaluations while training went on, in order; empty when there were none. */
  progress: EvaluationLine[];
  summary: RunSummary;
  recipe?: string;
  environment?: Record<string, unknown>;
  /** What the routers did with images of several categories. */
  categories: CategoryLoad[];
  notes: string[];
}

/**
 * Reads a run folder (docs/experiments.md). Missing or damaged parts become notes, so that a report can be made of an unfinished run.
 * @throws ERR_LIBMOE_FILE if there is no such folder or it holds no part of a run at all
 */
export function readRunFolder(folder: string): RunFolder {
  if (!existsSync(folder) || !statSync(folder).isDirectory())
    fail(
      'ERR_LIBMOE_FILE',
      `no run folder ${folder}: give the folder that holds recipe.yaml and metrics.jsonl`,
    );
  const notes: string[] = [];
  const attempt = <T>(file: string, read: (path: string) => T, consequence: string): T | undefined => {
    const path = join(folder, file);
    if (!existsSync(path)) {
      notes.push(`${file} is missing: ${consequence}`);
      return undefined;
    }
    try {
      return read(path);
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      notes.push(`${file} cannot be used: ${(error as Error).message}`);
      return undefined;
    }
  };
  const recipe = attempt('recipe.yaml', (path) => readText(path), 'no recipe below.');
  const metrics = attempt('metrics.jsonl', readMetrics, 'no loss curve and no routing figures.') ?? [];
  const environment = attempt('environment.json', (path) => readJsonObject(path), 'no environment below.');
  const hasSummary = existsSync(join(folder, 'summary.json'));
  const summary = hasSummary ? (attempt('summary.json', readJsonObject, '') ?? {}) : {};
  const evaluations = readEvaluations(folder, notes);
  const hasProgress = existsSync(join(folder, evaluationsFile));
  const hasCategories = existsSync(join(folder, categoryRecords));
  if (
    recipe === undefined &&
    metrics.length === 0 &&
    environment === undefined &&
    evaluations.length === 0 &&
    !hasSummary
  )
    fail(
      'ERR_LIBMOE_FILE',
      `${folder} is no run folder: it has none of recipe.yaml, metrics.jsonl, environment.json, eval/`,
    );
  return {
    name: basename(resolve(folder)),
    folder,
    metrics,
    evaluations,
    progress: hasProgress ? (attempt(evaluationsFile, readProgress, '') ?? []) : [],
    summary: numbersOf(summary),
    categories: hasCategories ? (attempt(categoryRecords, readCategories, '') ?? []) : [],
    notes,
    ...(recipe === undefined ? {} : { recipe }),
    ...(environment === undefined ? {} : { environment }),
  };
}

/** Where a run keeps what its routers did by category (docs/routing-records.md). */
export const categoryRecords = join('routing', 'categories.records');

function readCategories(path: string): CategoryLoad[] {
  const reader = new RecordReader(path);
  try {
    return loadByCategory(
      [...reader.blocks()].map((block): CategoryChoices => {
        const { layer, category, outputs } = block.attributes;
        return {
          layer: String(layer),
          category: String(category),
          experts: reader.column(block, 'experts'),
          ...(typeof outputs === 'number' && { outputs }),
        };
      }),
    );
  } finally {
    reader.close();
  }
}

function readMetrics(path: string): MetricsLine[] {
  const lines = readJournal(path).filter((line) => typeof line.step === 'number');
  return lines as unknown as MetricsLine[];
}

function readProgress(path: string): EvaluationLine[] {
  return readJournal(path).map((line, i): EvaluationLine => {
    const { step, tokens, values } = line;
    if (typeof step === 'number' && typeof tokens === 'number' && isJsonObject(values))
      return line as unknown as EvaluationLine;
    return fail('ERR_LIBMOE_DATA', `line ${i + 1} of ${path} lacks step, tokens or values`);
  });
}

function readEvaluations(folder: string, notes: string[]): RunEvaluation[] {
  const root = join(folder, 'eval');
  if (!existsSync(root)) {
    notes.push('eval/ is missing: this run was not evaluated.');
    return [];
  }
  const evaluations: RunEvaluation[] = [];
  for (const label of readdirSync(root).sort()) {
    const place = join(root, label);
    if (!statSync(place).isDirectory()) continue;
    if (!existsSync(join(place, 'results.json'))) {
      notes.push(`eval/${label}/results.json is missing: that evaluation did not finish.`);
      continue;
    }
    try {
      const step = /^(?:step-)?(\d+)$/.exec(label)?.[1];
      evaluations.push({
        label,
        folder: place,
        results: readResults(place),
        ...(step === undefined ? {} : { step: Number(step) }),
      });
    } catch (error) {
      notes.push(`eval/${label} cannot be used: ${(error as Error).message}`);
    }
  }
  return evaluations;
}

function numbersOf(summary: Record<string, unknown>): RunSummary {
  const number = (key: string): Record<string, number> => {
    const value = summary[key];
    return typeof value === 'number' && Number.isFinite(value) ? { [key]: value } : {};
  };
  return {
    ...(typeof summary.model === 'string' ? { model: summary.model } : {}),
    ...number('parameters'),
    ...number('activeParameters'),
    ...number('tokens'),
    ...number('flops'),
    ...number('seconds'),
  };
}

/** The evaluation that speaks for a run: "final" if there is one, else the latest step, else the last by name. */
export function lastEvaluation(run: RunFolder): RunEvaluation | undefined {
  const { evaluations } = run;
  return (
    evaluations.find(({ label }) => label === 'final') ??
    evaluations.filter(({ step }) => step !== undefined).sort((a, b) => b.step! - a.step!)[0] ??
    evaluations.at(-1)
  );
}
