import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { checksumFile, checksumOf, type FileChecksum } from '../storage/checksums.ts';
import { readJson, writeFileAtomically } from '../storage/index.ts';
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

const startOf = (recipe: AnyRecipe) => (recipe.kind === 'image-text' ? undefined : recipe.start);

/** Keeps in a run's folder what the checkpoint that it starts from consists of. */
export function recordStart(folder: string, recipe: AnyRecipe): void {
  const start = startOf(recipe);
  const contents = start && contentsOf(resolveCheckpoint(start.checkpoint));
  if (contents) writeFileAtomically(path.join(folder, file), `${JSON.stringify(contents, null, 2)}\n`);
}

/**
 * Whether a run began with what the recipe's checkpoint is today. All rows of a table must start from the same weights: a run folder that was
 * trained on is another start, and so is a file that was replaced.
 * @param stored the recipe in the run's folder
 */
export function startsAlike(folder: string, stored: AnyRecipe, recipe: AnyRecipe): boolean {
  const [before, start] = [startOf(stored), startOf(recipe)];
  if (!before || !start) return !before === !start;
  const checkpoint = resolveCheckpoint(start.checkpoint);
  const contents = contentsOf(checkpoint);
  if (contents === undefined) return true; // a finished run needs its checkpoint no more
  if (path.resolve(resolveCheckpoint(before.checkpoint)) !== path.resolve(checkpoint)) return false;
  const record = path.join(folder, file);
  return !existsSync(record) || isDeepStrictEqual(readJson(record), contents);
}
