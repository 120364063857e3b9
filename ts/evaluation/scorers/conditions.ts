import { z } from 'zod';
import type { Row } from '../task.ts';
import { column } from './columns.ts';

const value = z.union([z.string(), z.number(), z.boolean(), z.null()]);

/** Column → the value, or one of the values, that a document must have. */
export const conditionSchema = z.record(z.string(), z.union([value, z.array(value)]));
/** A condition on documents. */
export type Condition = z.output<typeof conditionSchema>;

/** Whether a document meets all of a condition; values are compared as text, a list in a column by any of its items. */
export function meets(doc: Row, condition: Condition): boolean {
  return Object.entries(condition).every(([name, wanted]) => {
    const found = column(doc, name);
    const all = (Array.isArray(found) ? found : [found]).map(String);
    return (Array.isArray(wanted) ? wanted : [wanted]).some((one) => all.includes(String(one)));
  });
}
