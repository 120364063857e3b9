import type { Generation } from './model.ts';
import type { Task } from './task.ts';

/** lm-eval's defaults: 256 tokens, and the few-shot delimiter ends a text. */
const textDefaults = ({ fewshot_delimiter: delimiter }: Pick<Task, 'fewshot_delimiter'>) => ({
  until: [delimiter],
  tokens: 256,
});
/** Those of LibMoE's adapter for models that see images; it takes `until` and never applies it. */
const imageDefaults = { until: [], tokens: 1024 };

/**
 * How the texts of a task are generated, one for each repeat: greedily unless the task samples. It does not depend on the scorer, since one set of
 * answers is scored both ways.
 */
export function generationsOf(
  task: Pick<Task, 'generation_kwargs' | 'fewshot_delimiter' | 'repeats' | 'doc_to_visual'>,
): Generation[] {
  const given = task.generation_kwargs ?? {};
  const defaults = task.doc_to_visual === undefined ? textDefaults(task) : imageDefaults;
  const { until = defaults.until, do_sample: samples, temperature, top_p: topP, top_k: topK } = given;
  const hot = samples === false ? 0 : (temperature ?? (samples ? 1 : 0));
  return Array.from({ length: task.repeats }, (_, repeat) => ({
    until: (Array.isArray(until) ? until : [until]).filter((stop) => stop !== ''),
    maxTokens: given.max_new_tokens ?? given.max_gen_toks ?? defaults.tokens,
    temperature: hot,
    ...(hot > 0 && topP && topP < 1 && { topP }),
    ...(hot > 0 && topK && { topK }),
    seed: given.seed ?? 0,
    repeat,
  }));
}
