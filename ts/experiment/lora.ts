import { z } from 'zod';
import { matchNames } from '../models/language/index.ts';
import { readAdapters, writeAdapters } from '../models/language/stored-adapters.ts';
import { fail } from '../native/index.ts';
import { type Adapters, addLowRank, lowRankPlaces, type Module } from '../nn/index.ts';
import { count } from './recipe-parts.ts';

/** `training.lora`; rank and alpha default to those of the original's flags (spec/algorithms.md §7.1: lora_r, lora_alpha). */
export const loraSchema = (target: string) =>
  z.strictObject({
    rank: count.default(64),
    /** What is learnt is multiplied by alpha / rank. */
    alpha: z.number().positive().default(16),
    /** Matrices of attention and of dense feed-forward layers beside which something is learnt; `*` is any text. */
    targets: z.array(z.string().min(1)).min(1).default([target]),
    /**
     * Whether checkpoints have what was learnt in their matrices, so that any program can use them. Otherwise the matrices are as they were, and
     * only libmoe puts in what lies beside them. Either way adapters lie in lora.safetensors.
     */
    merge: z.boolean().default(true),
  });
export type Lora = z.output<ReturnType<typeof loraSchema>>;

/** The adapters of a run. */
export interface RunAdapters {
  /** Runs what writes the model into a checkpoint folder, and writes the adapters beside it. */
  save(folder: string, write: () => void): void;
  /** Runs what reads the model from a checkpoint folder of this run, and reads the adapters. */
  load(folder: string, read: () => void): void;
}

/**
 * Names of the matrices of a model beside which a recipe learns, and of what stays as it is because of that: all of the parts of the model (`language`;
 * of a language model the whole) that have adapters.
 */
export function chosenBy({ targets }: Pick<Lora, 'targets'>, model: Module, parts: readonly string[]) {
  const places = lowRankPlaces(model);
  if (places.size === 0)
    fail(
      'ERR_LIBMOE_CONFIG',
      'training.lora: the model has no matrices of attention or of dense feed-forward layers',
    );
  const { matched } = matchNames([...places.keys()], targets);
  const within = parts.filter((part) => [...matched].some((name) => name.startsWith(part)));
  const frozen = [...model.namedParameters().keys()].filter((name) =>
    within.some((part) => name.startsWith(part)),
  );
  return { matched: new Map([...places].filter(([name]) => matched.has(name))), frozen };
}

/** Adds the adapters of a recipe to its model, where it has any. @param parts what names of the parts begin with: `language.`; `''` for a model without parts */
export function withLora(
  lora: Lora | undefined,
  model: Module,
  { seed, parts, log }: { seed: number; parts: readonly string[]; log: (line: string) => void },
): RunAdapters {
  if (!lora) return { save: (_, write) => write(), load: (_, read) => read() };
  const { matched, frozen } = chosenBy(lora, model, parts);
  const parameters = model.namedParameters();
  for (const name of frozen) parameters.get(name)!.requiresGrad = false;
  const adapters: Adapters = addLowRank(model, matched.keys(), { ...lora, seed });
  const learnt = [...adapters.parameters().values()].reduce((sum, { size }) => sum + size, 0);
  log(
    `lora: ${learnt.toLocaleString('en')} parameters beside ${matched.size} matrices (rank ${lora.rank}); ${parts.filter((part) => part && [...matched.keys()].some((name) => name.startsWith(part))).join(', ') || 'the model'} stays as it is`,
  );
  const { rank, alpha, merge: merged } = lora;
  return {
    save(folder, write) {
      adapters.aside(merged, write);
      writeAdapters(folder, adapters, { rank, alpha, merged });
    },
    load(folder, read) {
      adapters.aside(false, read);
      readAdapters(folder, adapters);
    },
  };
}
