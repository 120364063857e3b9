import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { checksumFile, checksumOf, type FileChecksum } from '../storage/checksums.ts';
import { readJsonObject, writeFileAtomically } from '../storage/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { AnyRecipe } from './recipe.ts';

const file = 'start.json';
const known = new Map<string, FileChecksum>();

/** What a checkpoint consists of: its checksums where libmoe wrote them, else those of its weights and configuration. */
function contentsOf(checkpoint: string): Record<string, FileChecksum> | undefined {
  if (!existsSync(checkpoint)) return undefined;
  const names = !statSync(checkpoint).isDirectory()
    ? ['']
    : existsSync(path.join(checkpoint, checksumFile))
      ? [checksumFile]
      : readdirSync(checkpoint)
          .filter((name) => name === 'config.json' || name.endsWith('.safetensors'))
          .sort();
  return Object.fromEntries(
    names.map((name) => {
      const whole = path.join(checkpoint, name);
      const { size, mtimeMs } = statSync(whole);
      const key = `${whole} ${size} ${mtimeMs}`;
      const sum = known.get(key) ?? checksumOf(whole);
      known.set(key, sum);
      return [name, sum];
    }),
  );
}

/** The checkpoints that a recipe takes weights from, by what their files are called in the record: those of `start` bare, those of parts after these. */
function startsOf(recipe: AnyRecipe): Map<string, string> {
  const starts = new Map<string, string>();
  if (recipe.kind === 'image-text') return starts;
  if (recipe.start) starts.set('', recipe.start.checkpoint);
  if (recipe.kind !== 'vision-language' || !recipe.model) return starts;
  const { vision, language } = recipe.model;
  if ('checkpoint' in vision) starts.set('model.vision/', vision.checkpoint);
  if ('checkpoint' in language) starts.set('model.language/', language.checkpoint);
  return starts;
}

const prefixIn = (name: string): string => /^model\.(vision|language)\//.exec(name)?.[0] ?? '';

/** What all checkpoints of a recipe that are still there consist of. */
function contentsOfAll(starts: ReadonlyMap<string, string>): Map<string, Record<string, FileChecksum>> {
  const all = new Map<string, Record<string, FileChecksum>>();
  for (const [prefix, checkpoint] of starts) {
    const contents = contentsOf(resolveCheckpoint(checkpoint));
    if (contents === undefined) continue;
    const named = Object.entries(contents).map(([name, sum]) => [prefix + name, sum] as const);
    all.set(prefix, Object.fromEntries(named));
  }
  return all;
}

/** Keeps in a run's folder what the checkpoints that it takes weights from consist of. */
export function recordStart(folder: string, recipe: AnyRecipe): void {
  const all = contentsOfAll(startsOf(recipe));
  if (all.size === 0) return;
  const contents = Object.assign({}, ...all.values()) as Record<string, FileChecksum>;
  writeFileAtomically(path.join(folder, file), `${JSON.stringify(contents, null, 2)}\n`);
}

/**
 * Whether a run began with what the recipe's checkpoints are today: the one it starts from, or those of the tower and the language model that it
 * joins. All rows of a table must start from the same weights: a run folder that was trained on is another start, and so is a file that was replaced.
 * @param stored the recipe in the run's folder
 */
export function startsAlike(folder: string, stored: AnyRecipe, recipe: AnyRecipe): boolean {
  const [before, starts] = [startsOf(stored), startsOf(recipe)];
  if (!isDeepStrictEqual([...before.keys()], [...starts.keys()])) return false;
  const contents = contentsOfAll(starts); // of those that are there: a finished run needs them no more
  const place = (checkpoint: string): string => path.resolve(resolveCheckpoint(checkpoint));
  for (const prefix of contents.keys())
    if (place(before.get(prefix)!) !== place(starts.get(prefix)!)) return false;
  const record = path.join(folder, file);
  if (!existsSync(record)) return true;
  const recorded = Object.entries(readJsonObject(record));
  return [...contents].every(([prefix, now]) =>
    isDeepStrictEqual(Object.fromEntries(recorded.filter(([name]) => prefixIn(name) === prefix)), now),
  );
}
