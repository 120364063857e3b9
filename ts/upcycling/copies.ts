import { matchNames } from '../models/language/index.ts';
import { type RoutedModel, routerBufferRule, routerRule } from '../models/language/initial-values.ts';
import { fail } from '../native/index.ts';
import type { Module } from '../nn/module.ts';
import { noGrad, type Tensor, view } from '../tensor/index.ts';
import type { NoiseReport } from './expert-noise.ts';
import type { CheckedUpcycleOptions } from './options.ts';

/** What {@link upcycle} did with every parameter. */
export interface UpcycleReport {
  /** Indices of the layers that became MoE layers. */
  layers: number[];
  /** Parameters taken over unchanged: name in both models. */
  copied: string[];
  /** Dense feed-forward parameters and how often each was copied. */
  replicated: { from: string; to: string; copies: number }[];
  /** Parameters and buffers that the dense model does not have, drawn anew. */
  initialised: string[];
  /** What the dense model has too but `only` left out: drawn as in a new model. */
  leftOut: string[];
  /** What was done to the copies, where noise was asked for. */
  expertNoise?: NoiseReport;
  /** Why the new model does not compute what the dense one does; empty where it does. */
  unlikeDense: string[];
  parameters: { before: number; after: number };
}

/** What was done with the weights; a part of {@link UpcycleReport}. */
export type WeightReport = Pick<UpcycleReport, 'copied' | 'replicated' | 'initialised' | 'leftOut'>;

/** Where a parameter of the new model comes from: a dense name, or undefined for a new one. */
export type DenseNameOf = (name: string) => string | undefined;

/** {@link DenseNameOf} of models whose feed-forward layers are `blocks.N.feedForward`, mixtures `blocks.N.moe`. */
export function blockNameOf(name: string): string | undefined {
  const [, block, part] = /^(blocks\.\d+)\.moe\.(.+)$/.exec(name) ?? [];
  if (part === undefined) return name;
  const field = /^(?:experts|shared)\.(up|upBias|down|downBias)$/.exec(part)?.[1];
  return field === undefined ? undefined : `${block}.feedForward.${field}`;
}

const isExpert = (name: string): boolean => /(^|\.)moe\.(experts|shared)\.[^.]+$/.test(name);

/** Copies everything that the dense model has of the new one, as the options say. */
export function copyWeights(
  dense: Module,
  model: Module,
  denseNameOf: DenseNameOf,
  { only, fromScratch }: Pick<CheckedUpcycleOptions, 'only' | 'fromScratch'>,
  report: WeightReport,
): void {
  const before = dense.stateDict();
  const state = model.stateDict();
  const inherited = [...state.keys()].filter((name) => denseNameOf(name) !== undefined);
  const { matched } = only ? matchNames(inherited, only) : { matched: new Set(inherited) };
  const taken = inherited.filter((name) => matched.has(name) && !(fromScratch && isExpert(name)));
  const used = new Set<string>();
  const took = new Set(taken);
  report.leftOut.push(...inherited.filter((name) => !took.has(name)));
  for (const name of taken) {
    const from = denseNameOf(name)!;
    const source =
      before.get(from) ??
      fail('ERR_LIBMOE_CHECKPOINT', `upcycling: ${name} needs ${from}, which the dense model does not have`);
    const copies = copyInto(state.get(name)!, source, name);
    used.add(from);
    if (from === name) report.copied.push(name);
    else report.replicated.push({ from, to: name, copies });
  }
  const lost = [...before.keys()].filter((name) => !used.has(name));
  if (!only && !fromScratch && lost.length > 0) {
    fail('ERR_LIBMOE_CHECKPOINT', `upcycling would lose ${lost.slice(0, 8).join(', ')} of the dense model`);
  }
}

/** A part of a model with routers. */
export interface RoutedPart {
  routed: RoutedModel;
  /** What names of the part begin with in the whole model; default nothing. */
  prefix?: string;
  /** The name in `routed` of a parameter of the part; default the same. */
  pathOf?: (name: string) => string;
}

/** Draws what the dense model has nothing of. */
export function drawRouters(
  model: Module,
  { routed, prefix = '', pathOf = (name) => name }: RoutedPart,
  denseNameOf: DenseNameOf,
  { seed, initStd, initScheme, initSeeds }: CheckedUpcycleOptions,
  report: WeightReport,
): void {
  const trained = model.namedParameters();
  const std = initScheme === 'kaiming-uniform' ? undefined : initStd;
  const init = { std, scheme: initScheme, seeds: initSeeds };
  for (const [name, target] of model.stateDict()) {
    if (!name.startsWith(prefix) || denseNameOf(name) !== undefined) continue;
    const path = pathOf(name.slice(prefix.length));
    const rule = trained.has(name) ? routerRule(routed, path, init) : routerBufferRule(routed, path);
    rule?.(target, { seed, name });
    report.initialised.push(name);
  }
}

/** Fills `target` with copies of `source`, one per expert. */
function copyInto(target: Tensor, source: Tensor, name: string): number {
  const copies = target.size / source.size;
  if (!Number.isInteger(copies)) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `upcycling: ${name} [${target.shape.join(', ')}] cannot hold copies of [${source.shape.join(', ')}]`,
    );
  }
  const values = source.readSync();
  noGrad(() => {
    for (let copy = 0; copy < copies; copy++) {
      using part = view(target, source.shape, copy * source.size);
      part.write(values);
    }
  });
  return copies;
}
