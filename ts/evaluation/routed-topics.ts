import type { KeyedRequest } from './asking.ts';
import type { PreparedTask } from './prepare.ts';
import type { RoutedTopic } from './routing-log.ts';

/** Whose the requests are: one may be asked for by several tasks. */
export function topicsOf(
  prepared: readonly PreparedTask[],
  documents: readonly (readonly KeyedRequest[])[],
): Map<string, RoutedTopic[]> {
  const topics = new Map<string, RoutedTopic[]>();
  let at = 0;
  for (const { task, questions } of prepared)
    for (const { docId, group, doc } of questions)
      for (const [index, { key }] of documents[at++]!.entries()) {
        const category = group ?? (typeof doc.category === 'string' ? doc.category : undefined);
        const topic = { task: task.task, docId, index, ...(category !== undefined && { category }) };
        topics.set(key, [...(topics.get(key) ?? []), topic]);
      }
  return topics;
}
