import { defineTask, type Task } from './task.ts';

/** A document with a name for reports. */
export interface TextDocument {
  id: string;
  text: string;
  [column: string]: unknown;
}

/**
 * Bits per byte on held-out documents given in memory: the task `tasks/held-out-text.yaml` for texts that are no files.
 * Losses per document go to the samples file, for the paired bootstrap between runs.
 */
export function heldOutTextTask(name: string, documents: readonly TextDocument[], alias?: string): Task {
  return defineTask({
    task: name,
    ...(alias === undefined ? {} : { task_alias: alias }),
    documents: [...documents],
    output_type: 'loglikelihood_rolling',
    doc_to_target: 'text',
    metric_list: [{ metric: 'bits_per_byte' }, { metric: 'byte_perplexity' }, { metric: 'word_perplexity' }],
    metadata: { version: 1 },
  });
}

/** Word-order minimal pairs from texts in memory: `tasks/word-order.yaml` for texts that are no files. */
export function wordOrderTask(
  name: string,
  texts: readonly string[],
  options: { pairs?: number; seed?: number } = {},
): Task {
  return defineTask({
    task: name,
    dataset_path: 'word-order',
    dataset_kwargs: { documents: [...texts], ...options },
    output_type: 'multiple_choice',
    doc_to_text: '',
    doc_to_choice: '{{[sentence_good, sentence_bad]}}',
    doc_to_target: 0,
    target_delimiter: '',
    metric_list: [{ metric: 'acc' }],
    metadata: { version: 1 },
  });
}
