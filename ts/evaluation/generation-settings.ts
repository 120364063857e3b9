import type { Generation } from './model.ts';
import type { Task } from './task.ts';

/** lm-eval's default. */
const defaultTokens = 256;

/** How the texts of a task are generated, one for each repeat: greedily unless the task samples. */
export function generationsOf(
  task: Pick<Task, 'generation_kwargs' | 'fewshot_delimiter' | 'repeats'>,
): Generation[] {
  const given = task.generation_kwargs ?? {};
  const {
    until = [task.fewshot_delimiter],
    do_sample: samples,
    temperature,
    top_p: topP,
    top_k: topK,
  } = given;
  const hot = samples === false ? 0 : (temperature ?? (samples ? 1 : 0));
  return Array.from({ length: task.repeats }, (_, repeat) => ({
    until: (Array.isArray(until) ? until : [until]).filter((stop) => stop !== ''),
    maxTokens: given.max_new_tokens ?? given.max_gen_toks ?? defaultTokens,
    temperature: hot,
    ...(hot > 0 && topP && topP < 1 && { topP }),
    ...(hot > 0 && topK && { topK }),
    seed: given.seed ?? 0,
    repeat,
  }));
}
