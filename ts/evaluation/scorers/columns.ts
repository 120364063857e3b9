import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { pythonRegex } from '../python-regex.ts';
import type { Row } from '../task.ts';
import { regularExpression } from './regular-expression.ts';

/**
 * The value of a column; `metadata.skills` is the key `skills` of the column `metadata`.
 * @throws ERR_LIBMOE_DATA naming the column and those there are
 */
export function column(doc: Row, name: string): unknown {
  if (Object.hasOwn(doc, name)) return doc[name];
  const value = optionalColumn(doc, name);
  return value !== undefined
    ? value
    : fail(
        'ERR_LIBMOE_DATA',
        `column "${name}" is missing; the record has ${Object.keys(doc).join(', ') || 'no columns'}`,
      );
}

/** The value of a column, undefined where there is none. */
export function optionalColumn(doc: Row, name: string): unknown {
  if (Object.hasOwn(doc, name)) return doc[name];
  let value: unknown = doc;
  for (const key of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Row)[key];
  }
  return value;
}

/** A column that must hold a text or a number, as text. */
export function textColumn(doc: Row, name: string): string {
  const value = column(doc, name);
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
    ? String(value)
    : fail('ERR_LIBMOE_DATA', `column "${name}" must hold a text, got ${JSON.stringify(value)}`);
}

/** A column that must hold a list of texts; one text is a list of one. */
export function textsColumn(doc: Row, name: string): string[] {
  const value = column(doc, name);
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.every((item) => typeof item === 'string' || typeof item === 'number')
    ? list.map(String)
    : fail('ERR_LIBMOE_DATA', `column "${name}" must hold a list of texts, got ${JSON.stringify(value)}`);
}

const details = z.strictObject({
  column: z.string(),
  /** A regular expression whose first group (the whole match without one) stands for the value. */
  match: regularExpression.optional(),
  /** Names for values, such as subject → domain. A value that is not listed keeps its own name. */
  map: z.record(z.string(), z.string()).optional(),
  /** The remainder of a whole number: MMBench's rotated copies share `index` modulo 1 000 000. */
  modulo: z.int().positive().optional(),
});

/** What documents are grouped by: a column (or a fact in `detail`), or a column with a rule that shortens it. */
export const groupKeySchema = z.union([z.string(), details]);
/** One key that documents are grouped by. */
export type GroupKey = z.output<typeof groupKeySchema>;

/** The values of a key for one document: several when the column holds a list, none when it holds none. */
export type KeyOf = (doc: Row, detail: Row | undefined) => string[];

/** Compiles a key. The function throws ERR_LIBMOE_DATA when neither the document nor its score has that column. */
export function keyReader(key: GroupKey): KeyOf {
  if (typeof key === 'string') return (doc, detail) => listed(columnOrDetail(key, doc, detail));
  const pattern = key.match === undefined ? undefined : pythonRegex(key.match);
  return (doc, detail) =>
    listed(columnOrDetail(key.column, doc, detail)).map((value) => {
      let name = value;
      if (pattern !== undefined) {
        const found = pattern.exec(value);
        if (found === null)
          fail('ERR_LIBMOE_DATA', `column "${key.column}": "${value}" does not match ${key.match}`);
        name = found[1] ?? found[0];
      }
      if (key.modulo !== undefined) {
        if (!/^-?\d+$/.test(name))
          fail('ERR_LIBMOE_DATA', `column "${key.column}" must hold a whole number, got "${name}"`);
        name = String(Number(name) % key.modulo);
      }
      return key.map?.[name] ?? name;
    });
}

function columnOrDetail(name: string, doc: Row, detail: Row | undefined): unknown {
  const own = optionalColumn(doc, name);
  return own !== undefined
    ? own
    : detail !== undefined && Object.hasOwn(detail, name)
      ? detail[name]
      : column(doc, name);
}

function listed(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [String(value)];
}
