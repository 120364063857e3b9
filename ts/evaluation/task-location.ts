import { type Document, isMap, isPair, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { fail } from '../native/index.ts';

/** A YAML file that still knows where its keys stand. */
export interface LocatedYaml {
  file: string;
  content: unknown;
  /** The line of the deepest part of a path that the file has; undefined when it has none of it. */
  lineOf(path: readonly PropertyKey[]): number | undefined;
}

/** @throws ERR_LIBMOE_CONFIG naming file and line when it is no YAML */
export function parseLocated(source: string, file: string): LocatedYaml {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines });
  const [wrong] = document.errors;
  if (wrong !== undefined)
    fail('ERR_LIBMOE_CONFIG', `task file ${file} is not valid YAML: ${wrong.message}`, wrong);
  return {
    file,
    content: document.toJS(),
    lineOf: (path) => {
      const offset = offsetOf(document, path);
      return offset === undefined ? undefined : lines.linePos(offset).line;
    },
  };
}

function offsetOf(document: Document, path: readonly PropertyKey[]): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const key of path) {
    if (isMap(node)) {
      const pair: unknown = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(key),
      );
      if (!isPair(pair)) break;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof key === 'number') {
      const item = node.items[key];
      if (item === undefined) break;
      offset = (item as Node).range?.[0] ?? offset;
      node = item;
    } else break;
  }
  return offset;
}
