import { mkdirSync } from 'node:fs';
import type { Tokenizer } from '../data/index.ts';
import {
  type EvalModel,
  evaluate,
  heldOutTextTask,
  type Results,
  type ScorerMode,
  type Task,
  type TaskChoice,
  wordOrderTask,
} from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import type { Recipe } from './language-recipe.ts';
import { collect } from './sources.ts';

/** The first characters of a text, up to a space. */
function beginning(text: string, characters: number | null): string {
  if (characters === null || text.length <= characters) return text;
  const space = text.lastIndexOf(' ', characters);
  return text.slice(0, space > 0 ? space : characters);
}

/** The longest beginning of a text that makes at most `tokens` tokens: the text of these tokens where it tokenises back to them. */
function firstTokens(text: string, tokenizer: Tokenizer, tokens: number | null): string {
  if (tokens === null) return text;
  const fits = (part: string): boolean => tokenizer.encode(part).length <= tokens;
  if (fits(text)) return text;
  const decoded = tokenizer.decode(Array.from(tokenizer.encode(text).slice(0, tokens)));
  if (text.startsWith(decoded) && fits(decoded)) return decoded;
  const characters = Array.from(text);
  let [most, tooMany] = [0, characters.length];
  while (tooMany - most > 1) {
    const middle = (most + tooMany) >> 1;
    if (fits(characters.slice(0, middle).join(''))) most = middle;
    else tooMany = middle;
  }
  return characters.slice(0, most).join('');
}

/** Held-out texts as tasks, and whatever else the recipe evaluates. */
export async function tasksOf(recipe: Recipe, tokenizer: Tokenizer): Promise<TaskChoice[]> {
  const { maxCharacters, maxTokens } = recipe.evaluation;
  const texts: Task[] = [];
  for (const [name, source] of Object.entries(recipe.data.heldOut)) {
    const documents = (await collect(source)).map(({ id, text }) => ({
      id,
      text: firstTokens(beginning(text, maxCharacters), tokenizer, maxTokens),
    }));
    texts.push(heldOutTextTask(name, documents));
  }
  if (recipe.evaluation.wordOrder) {
    const { source, pairs } = recipe.evaluation.wordOrder;
    const documents = (await collect(source)).map(({ text }) => text);
    texts.push(wordOrderTask('word-order', documents, { pairs, seed: 1 }));
  }
  return [...texts, ...recipe.evaluation.tasks];
}

/** How the tasks of a recipe are asked. */
export interface AskedHow {
  tasks: readonly TaskChoice[];
  scorer: ScorerMode;
  limit?: number | undefined;
}

/** Evaluates into a folder. @throws ERR_LIBMOE_STOPPED when the signal was aborted; the same call goes on */
export async function evaluateInto(
  model: EvalModel,
  { tasks, scorer, limit }: AskedHow,
  folder: string,
  signal?: AbortSignal,
): Promise<Results> {
  mkdirSync(folder, { recursive: true });
  const steps = evaluate(model, {
    tasks,
    out: folder,
    scorer,
    ...(limit && { limit }),
    ...(signal && { signal }),
  });
  try {
    for (;;) {
      const step = await steps.next();
      if (step.done) return step.value;
    }
  } catch (error) {
    if (signal?.aborted)
      fail('ERR_LIBMOE_STOPPED', 'stopped while evaluating; the run goes on with --resume', error);
    throw error;
  }
}

/** The headline number of every task: bits per byte, or accuracy. */
export function headlines(results: Results): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [task, row] of Object.entries(results.results)) {
    const value = row['bits_per_byte,none'] ?? row['acc,none'];
    if (typeof value === 'number') out[task] = value;
  }
  return out;
}
