import { z } from 'zod';
import { pythonRegex } from '../python-regex.ts';

/** The source of a pattern of Python's `re`. */
export const regularExpression = z.string().refine((source) => {
  try {
    return pythonRegex(source) instanceof RegExp;
  } catch {
    return false;
  }
}, 'must be a regular expression');

const compiled = new Map<string, RegExp>();

/** The pattern with the flag `g`, compiled once. */
export function globalRegex(source: string): RegExp {
  let made = compiled.get(source);
  if (made === undefined) {
    made = pythonRegex(source, 'g');
    compiled.set(source, made);
  }
  return made;
}
